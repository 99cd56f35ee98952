"""BigGAN-deep as the `pytorch_pretrained_biggan` package runs it, behind the protocol of our generators.

The module, its spectral-norm hooks and its batch norms are the package's own; here stands only what feeds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common.report import BenchmarkError
from torch import Tensor

from latentclr.config import BigGANConfig
from latentclr.generators.base import Generator
from latentclr.generators.biggan.biggan import GEN_Z, RANDOM, BigGAN
from latentclr.generators.biggan.spec import BigGANSpec, find_weights, spec_for
from latentclr.generators.biggan.tensors import random_tensors
from latentclr.generators.weights.files import load_tensors


class PackageBigGAN(Generator):
    """The package's model with the weights of ours; one code for all layers, as it knows no other way.

    Attributes:
        model: `pytorch_pretrained_biggan.BigGAN`.
    """

    name = "biggan"

    def __init__(self, lean: BigGAN, tensors: dict[str, Tensor]) -> None:
        """Load the weights.

        Args:
            lean: Ours, for its sizes and its truncation.
            tensors: The package's state dict.

        Raises:
            BenchmarkError: The package is not installed.
        """
        super().__init__()
        try:
            import pytorch_pretrained_biggan as package
        except ImportError:
            raise BenchmarkError("the package's way needs it: pip install pytorch-pretrained-biggan==0.1.1") from None
        spec = lean.spec
        self.latent, self.resolution, self.truncation = lean.latent, lean.resolution, lean.truncation
        self.feature_layers, self.class_names, self.class_ids = lean.feature_layers, lean.class_names, lean.class_ids
        self.num_classes = spec.num_classes
        fields = BigGANSpec.__dataclass_fields__
        config: Any = package.BigGANConfig(**{name: getattr(spec, name) for name in fields})
        self.model = package.BigGAN(config)
        self.model.load_state_dict(tensors)
        self.eval()

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Return images [N, 3, H, W] from ps [N, L, D], of which only the first code is used, and class_id [N]."""
        image: Tensor = self.model(ps[:, 0], self._one_hot(class_id), self.truncation)
        return image

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer`: the package's forward, stopped there."""
        count = self.feature_layers.index(self.check_layer(layer))
        generator: Any = self.model.generator
        condition = torch.cat((ps[:, 0], self.model.embeddings(self._one_hot(class_id))), dim=1)  # [N, D + E]
        x: Tensor = generator.gen_z(condition).view(len(ps), 4, 4, -1).permute(0, 3, 1, 2).contiguous()  # [N, C, 4, 4]
        for block in list(generator.layers)[:count]:
            x = block(x, condition, self.truncation) if hasattr(block, "bn_0") else block(x)  # attention takes no code
        return x

    def inputs_reaching(self, layer: str) -> int:
        """Return 1 for gen_z, and one more for every GenBlock up to and including `layer`."""
        self.check_layer(layer)
        return 1 if layer == GEN_Z else self.latent.layers

    def _one_hot(self, class_id: Tensor | None) -> Tensor:
        assert class_id is not None
        return F.one_hot(class_id, self.num_classes).float()  # [N, classes]


def load_package_biggan(config: BigGANConfig, lean: BigGAN) -> PackageBigGAN:
    """Load the package's model with the weights that `lean` was loaded with; its parameters collect gradients.

    Raises:
        LatentCLRError: The weights cannot be read.
        BenchmarkError: The package is not installed, or the weights are the published ones.
    """
    if config.weights is None:
        raise BenchmarkError("give generator.weights=PATH or generator.weights=random to compare with the package")
    if config.weights == RANDOM:
        return PackageBigGAN(lean, random_tensors(spec_for(config.resolution)))
    return PackageBigGAN(lean, load_tensors(find_weights(Path(config.weights).expanduser(), config.resolution)[0]))
