"""The served function, written once: latent code, directions and strengths in, pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.errors import ExportError
from latentclr.generators.base import Generator
from latentclr.method.directions import Directions
from latentclr.pictures.pixels import to_uint8
from serving.contract.manifest import LATENT_INPUTS
from serving.contract.tensors import ALPHA, CLASS_ID, DIRECTION, code_tensor

MAX_EDITS = 64
"""Edits of one row, M. Each gathers a copy of its direction's weights: at D = 512 this many take 64 MB a row and layer,
which is less than the activations of 1024 pixels, and without a bound one request could take all of the memory."""
_TINY = 2.0**-24  # the smallest number of half precision; 16 million pixels of 1 times this have the sum 1


class FusedEditor(nn.Module):
    """Direction model and generator as one module of tensors in and tensors out.

    p = encode(z); d = directions(p, direction); ps_l = p + sum_m alpha_ml d_m; image = to_uint8(synthesize(ps)).
    The direction is gathered by index, so the cost does not grow with K. Without edits, M = 0, p itself is drawn.

    For codes that come from GAN inversion the latent input is `w` (p itself) or `w+` (a p_l for each latent input; then
    d_l = directions(p_l), each code's own direction). Equal codes at all layers draw the same image in all three forms.
    """

    def __init__(self, generator: Generator, directions: Directions, latent_input: str = "z") -> None:
        """Put both in inference mode; neither collects gradients.

        Args:
            generator: What draws.
            directions: What edits.
            latent_input: `z`, or `w` or `w+` for a generator whose directions live in W.

        Raises:
            ExportError: The latent input is none of these, or the generator has no W.
        """
        super().__init__()
        check_latent_input(generator, latent_input)
        self.latent_input = latent_input
        self.generator, self.directions = generator, directions.eval().requires_grad_(False)
        self.conditional = generator.class_names is not None

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of `forward`'s arguments, in order; see `code_name` for the first of a published graph."""
        return ("z", DIRECTION, ALPHA, CLASS_ID) if self.conditional else ("z", DIRECTION, ALPHA)

    @property
    def code_name(self) -> str:
        """Name of the latent input in a published graph: `z` or `w`."""
        return code_tensor(self.latent_input)

    def forward(
        self, z: Tensor, direction: Tensor, alpha: Tensor, class_id: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Edit N images with M edits each.

        A bad row must not hurt the other rows of its batch, on any engine: a gather out of range raises for the whole
        batch on a CPU and reads garbage on a GPU. So bad rows are computed as unedited ones and blacked out.

        Args:
            z: The latent input, float32: z [N, D] as the generator's own sampler draws it; or w [N, D], or w+
                [N, L, D], as `Generator.encode` returns them (before truncation).
            direction: [N, M] int64 in [0, K), M in [0, MAX_EDITS]; M = 0 leaves the image as it is.
            alpha: [N, M, L] float32, strength of each edit at each latent input; zero leaves the image as it is.
            class_id: [N] int64, for class-conditional generators only.

        Returns:
            image: [N, H, W, 3] uint8 RGB, black where not valid.
            valid: [N] bool, False where the row was out of range or not finite; for all if M is more than MAX_EDITS.
        """
        # One edit of strength zero goes before the others, so that no step runs on an empty axis: without any, ONNX
        # Runtime up to 1.26 answers "not valid", and 1.27 to 1.30 now and then a wrong picture.
        rows = direction.shape[0]
        direction = torch.cat([direction.new_zeros(rows, 1), direction], dim=1)  # [N, 1 + M]
        alpha = torch.cat([alpha.new_zeros(rows, 1, alpha.shape[2]), alpha], dim=1)  # [N, 1 + M, L]
        # What lies beyond the bound is out of range, and cut off. A slice stays dynamic in every graph, as comparing M
        # would not, and names no device, as `arange` would in TorchScript.
        direction, beyond = direction[:, : 1 + MAX_EDITS], direction[:, 1 + MAX_EDITS :]
        marked = torch.cat([direction, torch.full_like(beyond, -1)], dim=1)  # [N, 1 + M]
        in_range = (marked >= 0) & (marked < self.directions.k)
        finite = torch.isfinite(z).flatten(1).all(dim=1) & torch.isfinite(alpha).flatten(1).all(dim=1)  # [N]
        valid = in_range.all(dim=1) & finite  # [N]
        if class_id is not None and self.generator.class_names is not None:
            classes = len(self.generator.class_names)
            valid = valid & (class_id >= 0) & (class_id < classes)
            class_id = class_id.clamp(0, classes - 1)
        z = torch.where(valid[:, None, None] if z.ndim == 3 else valid[:, None], z, torch.zeros_like(z))
        alpha = torch.where(valid[:, None, None], alpha, torch.zeros_like(alpha))
        direction = direction.clamp(0, self.directions.k - 1)
        alpha = alpha[:, : 1 + MAX_EDITS]

        if self.latent_input == "w+":
            # Layer by layer: gathering all L at once would hold L copies of the direction's weights.
            steps = [
                alpha[:, None, :, layer] @ self.directions.select(z[:, layer], direction)  # [N, 1, D]
                for layer in range(self.generator.latent.layers)
            ]
            ps = z + torch.cat(steps, dim=1)  # [N, L, D]
        else:
            p = self.generator.encode(z, class_id) if self.latent_input == "z" else z  # [N, D]
            d = self.directions.select(p, direction)  # [N, 1 + M, D]
            ps = p[:, None] + alpha.transpose(1, 2) @ d  # [N, L, D]
        image = self.generator.synthesize(ps, class_id)  # [N, 3, H, W] in [-1, 1]
        # Finite but enormous strengths can still overflow inside the generator. A sum is finite only if all its terms
        # are, and costs less than asking each pixel. The terms are made tiny first, so that the sum of a good picture
        # cannot overflow, in half precision either; times zero would do, but an optimiser may take it for zero.
        valid = valid & torch.isfinite((image * _TINY).sum(dim=(1, 2, 3)))
        image = torch.where(valid[:, None, None, None], image, torch.full_like(image, -1.0))
        return to_uint8(image), valid

    def example_inputs(self, n: int = 2, m: int = 2) -> tuple[Tensor, ...]:
        """Return valid inputs for tracing: N = n rows, M = m edits."""
        latent = self.generator.latent
        layers = latent.layers if self.latent_input == "w+" else 1
        z = torch.linspace(-1, 1, n * layers * latent.dim).view(n, layers, latent.dim)  # [N, 1 or L, D]
        z = z if self.latent_input == "w+" else z[:, 0]
        direction = (torch.arange(n * m) % self.directions.k).view(n, m)
        alpha = torch.ones(n, m, latent.layers)
        return (z, direction, alpha, torch.zeros(n, dtype=torch.int64)) if self.conditional else (z, direction, alpha)

    def sample_codes(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw n codes as the latent input takes them, and of a conditional generator any of all classes.

        Returns:
            Codes [N, D], or [N, L, D] with a code of its own at each layer; and class_id [N], or None.
        """
        latent = self.generator.latent
        layers = latent.layers if self.latent_input == "w+" else 1
        z = self.generator.sample(n * layers, rng)  # [N * L, D]
        names = self.generator.class_names
        class_id = None if names is None else torch.randint(len(names), (n,), generator=rng)
        if self.latent_input == "z":
            return z, class_id
        with torch.no_grad():
            w = self.generator.encode(z, None if class_id is None else class_id.repeat_interleave(layers))
        return w.unflatten(0, (n, layers)) if self.latent_input == "w+" else w, class_id


def check_latent_input(generator: Generator, latent_input: str) -> None:
    """Check that an editor of this generator can take codes of this kind.

    Raises:
        ExportError: It is none of z, w, w+, or directions do not live in a W space.
    """
    if latent_input not in LATENT_INPUTS:
        raise ExportError(f"the latent input must be one of {', '.join(LATENT_INPUTS)}, got {latent_input!r}")
    if latent_input == "z" or getattr(generator, "use_w", False):
        return
    if hasattr(generator, "use_w"):
        raise ExportError(f"a latent input {latent_input} needs directions in W; this run has generator.use_w=false")
    raise ExportError(f"a latent input {latent_input} needs a generator with a W space; {generator.name} takes z")
