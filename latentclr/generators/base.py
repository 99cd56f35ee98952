"""The protocol that every generator follows.

Symbols: N batch, D latent size, L latent inputs, F feature size, H and W image sides in pixels.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentclr.errors import GeneratorError, nearest
from serving.contract.latents import draw_row


@dataclass(frozen=True)
class LatentSpec:
    """How a latent code is drawn, in words that a client without torch can follow.

    Attributes:
        dim: D.
        layers: L, the number of latent inputs.
        sampler: `standard_normal`, or `truncated_normal` (normal cut at +-2, then times `truncation`).
        truncation: Factor of `truncated_normal`, else None.
    """

    dim: int
    layers: int = 1
    sampler: str = "standard_normal"
    truncation: float | None = None


class Generator(nn.Module, ABC):
    """A frozen pre-trained generator: latent codes in, images in [-1, 1] out.

    Subclasses fold at load time whatever is constant, so that training and export run the same lean module. No
    parameter ever collects gradients; gradients flow through to the latent codes.

    Attributes:
        name: The family's name, or the plug-in's own.
        latent: How z is drawn, D and L.
        resolution: H in pixels.
        width: W in pixels; None where it is H.
        feature_layers: Exact names accepted by `features`.
        class_names: Names of the classes of a conditional generator, by id; None for an unconditional one.
        class_ids: The classes that training draws from; empty for an unconditional generator.
        weights_sha256: Hash of the weights file that was loaded.
        random_weights: True if the weights are seeded noise, fit for latency work only.
    """

    name: str
    latent: LatentSpec
    resolution: int
    width: int | None = None
    feature_layers: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    class_ids: tuple[int, ...] = ()
    weights_sha256: str = ""
    random_weights: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.resolution, self.width or self.resolution

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        first = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def freeze(self) -> None:
        """Switch to inference behaviour and stop all parameters from collecting gradients.

        Subnormal weights of float32 become 0. Training leaves such in channels that nothing needs. They change no pixel
        and on many CPUs each operation with one takes a hundred times as long, in an exported graph too.

        Raises:
            GeneratorError: A weight, or what was folded into one, is not a finite number.
        """
        for name, tensor in (*self.named_parameters(), *self.named_buffers()):
            if not torch.isfinite(tensor).all():
                raise GeneratorError(f"{self.name}: the weights of {name} are not finite numbers")
            if tensor.dtype == torch.float32:
                subnormal = (tensor != 0) & (tensor.abs() < torch.finfo(torch.float32).tiny)
                if subnormal.any():
                    tensor.data = tensor.data.masked_fill(subnormal, 0)
        self.eval()
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Generator:
        """Stay in inference mode, whatever the module around it does."""
        return super().train(False)

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Map z [N, D] to the space in which directions live; the identity unless a subclass says otherwise.

        Args:
            z: [N, D].
            class_id: [N] int64 of a class-conditional generator, whose mapping may depend on it.

        Returns:
            [N, D].
        """
        return z

    @abstractmethod
    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images.

        Args:
            ps: [N, L, D], the code at each latent input.
            class_id: [N] int64, for class-conditional generators.

        Returns:
            [N, 3, H, W] in [-1, 1].
        """

    @abstractmethod
    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Run up to and including `layer` (an exact name from `feature_layers`) and return its output [N, ...]."""

    @abstractmethod
    def inputs_reaching(self, layer: str) -> int:
        """Return how many latent inputs, counted from the first, can change the output of `layer`."""

    def first_weights(self, inputs: Sequence[int]) -> Tensor:
        """Return the linear maps [R, D] that the code meets first, at some latent inputs, one below the other.

        SeFa (arXiv 2007.06600, section 3.1) reads directions from them. Rows may carry any factor of their own, such as
        that of a batch norm which is folded into them: whoever asks makes them of unit length.

        Args:
            inputs: Latent inputs in [0, L).

        Raises:
            GeneratorError: This family of generators does not tell.
        """
        raise GeneratorError(f"{self.name} does not tell which weights its code meets first, as model=sefa asks")

    def previews(self) -> tuple[int, ...]:
        """Return the sizes in pixels at which `stopping_at` can stop, smallest first; none unless a subclass has some.

        A generator with skip images (StyleGAN2: each resolution's to_rgb, added to the enlarged image so far) has a
        picture at every resolution on its way.
        """
        return ()

    def stopping_at(self, size: int) -> Generator:
        """Return a generator of the same codes whose picture is the one on the way that is `size` pixels high.

        It shares this one's weights, has the same latent inputs L, of which the last have no effect, as resolution the
        size, and a width in proportion.

        Args:
            size: One of `previews`.

        Raises:
            GeneratorError: It is none of them; the message lists them.
        """
        raise self.no_preview(size)

    def no_preview(self, size: int) -> GeneratorError:
        """Say which sizes there are."""
        sizes = self.previews()
        there = f"it stops at {', '.join(map(str, sizes))}" if sizes else "it has no pictures on its way"
        return GeneratorError(f"{self.name} of {self.resolution} pixels has no preview of {size}: {there}")

    def check_layer(self, layer: str) -> str:
        """Return `layer` if it is a feature layer.

        Raises:
            GeneratorError: It is not; the message lists the layers.
        """
        if layer not in self.feature_layers:
            raise GeneratorError(
                f"generator.feature_layer: {self.name} has no layer {layer!r}{nearest(layer, self.feature_layers)}"
                f" (layers: {', '.join(self.feature_layers)})"
            )
        return layer

    def default_layer(self) -> str:
        """Return the feature layer of a run that names none."""
        return self.feature_layers[0]

    def feature_size(self, layer: str) -> int:
        """Return F, the number of values of one sample's flattened features at `layer`."""
        device = self.device
        ps = torch.zeros(1, self.latent.layers, self.latent.dim, device=device)
        class_id = torch.zeros(1, dtype=torch.int64, device=device) if self.class_names else None
        with torch.no_grad():
            return self.features(ps, layer, class_id).numel()

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw z [count, D] from the generator's own distribution with a CPU random generator."""
        if self.latent.sampler == "standard_normal":
            return torch.randn(count, self.latent.dim, generator=rng)
        # A normal cut at +-2 by its quantile function: uniform between the CDF's values at the edges.
        edge = torch.erf(torch.tensor(2.0 / 2**0.5, dtype=torch.float64))
        u = torch.rand(count, self.latent.dim, generator=rng, dtype=torch.float64) * 2 - 1
        z = torch.erfinv(u * edge) * 2**0.5
        return (z * (self.latent.truncation or 1.0)).float()

    def sample_seeds(self, seed: int, count: int) -> Tensor:
        """Draw z [count, D], row i with `numpy.random.RandomState(seed + i)`, as NVIDIA's and the origin's tools do.

        Raises:
            GeneratorError: A seed is out of numpy's range [0, 2**32).
        """
        if not 0 <= seed <= 2**32 - count:
            raise GeneratorError(f"seeds must be in [0, 2**32), got {seed} to {seed + count - 1}")
        return torch.from_numpy(np.stack([draw_row(self.latent, seed + i) for i in range(count)]))

    def sample_classes(self, count: int, rng: torch.Generator) -> Tensor | None:
        """Draw class ids [count] from `class_ids`; None for an unconditional generator."""
        if not self.class_ids:
            return None
        choice = torch.randint(len(self.class_ids), (count,), generator=rng)
        return torch.tensor(self.class_ids)[choice]

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint or manifest records of the generator."""
        return {
            "name": self.name,
            "resolution": self.resolution,
            **({} if self.width is None else {"width": self.width}),
            "weights_sha256": self.weights_sha256,
            "random_weights": self.random_weights,
            "classes": None
            if self.class_names is None
            else {"names": list(self.class_names), "default": list(self.class_ids)},
        }
