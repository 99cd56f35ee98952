"""Generators small enough for tests, as real subclasses of the protocol, and random DCGAN weights in their layout."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from latentclr.generators.base import Generator, LatentSpec

D, LAYERS, WIDTH, SIZE, CLASSES = 6, 3, 10, 8, ("ant", "bee", "cat", "dog")


class LayeredGenerator(Generator):
    """L = 3 latent inputs: layer i sees the inputs 0..i. Two hundred numbers and a tanh, conditional if asked."""

    name = "layered"

    def __init__(self, conditional: bool = False, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.latent = LatentSpec(dim=D, layers=LAYERS, sampler="standard_normal")
        self.resolution = SIZE
        self.feature_layers = tuple(f"layers.{i}" for i in range(LAYERS))
        self.inputs = nn.Parameter(torch.randn(LAYERS, D, WIDTH, generator=rng) / D**0.5)
        self.hidden = nn.Parameter(torch.randn(LAYERS, WIDTH, WIDTH, generator=rng) / WIDTH**0.5)
        self.classes = nn.Parameter(torch.randn(len(CLASSES), WIDTH, generator=rng))
        self.pixels = nn.Parameter(torch.randn(WIDTH, 3 * SIZE * SIZE, generator=rng) / WIDTH**0.5)
        if conditional:
            self.class_names, self.class_ids = CLASSES, (1, 3)
        self.weights_sha256 = "0" * 64
        self.freeze()

    def _run(self, ps: Tensor, last: int, class_id: Tensor | None) -> Tensor:
        x = ps.new_zeros(ps.shape[0], WIDTH)  # [N, WIDTH]
        if self.class_names is not None:
            x = x + self._of_class(class_id)
        for i in range(last + 1):
            x = torch.tanh(x @ self.hidden[i] + ps[:, i] @ self.inputs[i])
        return x

    def _of_class(self, class_id: Tensor | None) -> Tensor:
        assert class_id is not None
        return self.classes[class_id]

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        return self._run(ps, self.feature_layers.index(self.check_layer(layer)), class_id)

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        x = self._run(ps, LAYERS - 1, class_id) @ self.pixels
        return torch.tanh(x).unflatten(1, (3, SIZE, SIZE))  # [N, 3, H, W]

    def inputs_reaching(self, layer: str) -> int:
        return self.feature_layers.index(self.check_layer(layer)) + 1


def dcgan_tensors(dim: int = 24, channels: tuple[int, ...] = (12, 6), seed: int = 0) -> dict[str, Tensor]:
    """Return random DCGAN weights as `torch.save` files of that architecture name them; 4 * 2**len(channels) pixels."""
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    sizes = [dim, *channels, 3]
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        tensors[f"main.{3 * i}.weight"] = torch.randn(before, after, 4, 4, generator=rng) / (before * 4) ** 0.5
        if after != 3:
            tensors[f"main.{3 * i + 1}.weight"] = 1 + 0.2 * torch.randn(after, generator=rng)
            tensors[f"main.{3 * i + 1}.bias"] = 0.2 * torch.randn(after, generator=rng)
            tensors[f"main.{3 * i + 1}.running_mean"] = 0.3 * torch.randn(after, generator=rng)
            tensors[f"main.{3 * i + 1}.running_var"] = 0.5 + torch.rand(after, generator=rng)
            tensors[f"main.{3 * i + 1}.num_batches_tracked"] = torch.tensor(7)
    return tensors


class MappedGenerator(LayeredGenerator):
    """Conditional in its mapping alone, as StyleGAN2 is: w = tanh(M z + the class's shift), and then no class."""

    name = "mapped"
    use_w = True

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.map = nn.Parameter(torch.randn(D, D, generator=rng) / D**0.5, requires_grad=False)
        self.shifts = nn.Parameter(3 * torch.randn(len(CLASSES), D, generator=rng), requires_grad=False)
        self.class_names, self.class_ids = CLASSES, (1, 3)

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        assert class_id is not None, "the mapping wants a class"
        return torch.tanh(z @ self.map + self.shifts[class_id])

    def _of_class(self, class_id: Tensor | None) -> Tensor:
        return self.classes[:1] * 0


class SceneGenerator(Generator):
    """A bright spot before a wall, so that it is known what each part of the code does: 16 x 16 pixels, D = 6.

    z0 is the light of everything, z1 the spot's place from left to right, z2 the light of the wall's outermost columns
    and rows, z3 the spot's size; z4 and z5 do nothing. `code` is the code itself, `picture` the picture.
    """

    name = "scene"

    def __init__(self, conditional: bool = False) -> None:
        super().__init__()
        self.latent = LatentSpec(dim=D, layers=1, sampler="standard_normal")
        self.resolution = 16
        self.feature_layers = ("code", "picture")
        if conditional:
            self.class_names, self.class_ids = CLASSES, (1, 3)
        self.weights_sha256 = "0" * 64
        self.scale = nn.Parameter(torch.ones(1))
        self.freeze()

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        z = ps[:, 0, :, None, None]  # [N, D, 1, 1]
        x = ((2 * torch.arange(16) + 1) / 16 - 1).expand(16, 16)
        edge = torch.ones(16, 16)
        edge[2:, 2:-2] = 0.0
        spot = torch.exp(-((x - 0.3 * z[:, 1]) ** 2 + x.T**2) / (0.2 * torch.exp(0.3 * z[:, 3])))
        gray = 0.12 * z[:, 0] + 0.2 * z[:, 2] * edge + 0.8 * spot - 0.3
        if class_id is not None:
            gray = gray + 0.05 * class_id[:, None, None]
        return torch.tanh(gray)[:, None].expand(-1, 3, -1, -1)

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        return ps[:, 0] if self.check_layer(layer) == "code" else self.synthesize(ps, class_id)

    def inputs_reaching(self, layer: str) -> int:
        self.check_layer(layer)
        return 1
