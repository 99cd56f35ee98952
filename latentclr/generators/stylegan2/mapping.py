"""The mapping network of StyleGAN2 and StyleGAN3: z, and the class where there is one, to w."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import GeneratorError

LEARNING_RATE = 0.01  # factor of the mapping network, by which its stored weights are too large
SLOPE = 0.2  # of the leaky ReLU, whose output is multiplied by sqrt(2): folded here, as lrelu(a * x) = a * lrelu(x)
EPS = 1e-8
AVERAGE_SAMPLES = 10_000  # codes whose mean stands in for an average w that a file lacks


class Mapping(nn.Module):
    """z [..., D] -> w [..., D]: normalise, then a stack of linear layers with leaky ReLU.

    A class-conditional network embeds the class, normalises that too, and gives both to the first layer. That part of
    the first layer depends on nothing but the class: it is folded into a bias for each class.

    Attributes:
        classes: How many there are; 0 for an unconditional network.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], embed: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Fold the weights.

        Args:
            weights: [O, I] of each layer, as stored.
            biases: [O] of each layer, as stored.
            embed: Weight [E, classes] and bias [E] of the embedding; the first layer then takes D + E numbers.
        """
        super().__init__()
        gain = LEARNING_RATE * math.sqrt(2)
        scaled = [weight * (gain / math.sqrt(weight.shape[1])) for weight in weights]
        shifts = [bias * gain for bias in biases]
        self.classes = 0
        if embed is not None:
            weight, bias = embed
            self.classes = weight.shape[1]
            embedded = _normalised(weight.T / math.sqrt(self.classes) + bias)  # [classes, E]
            dim = scaled[0].shape[1] - embedded.shape[1]
            shifts[0] = shifts[0] + embedded @ scaled[0][:, dim:].T  # [classes, O]
            scaled[0] = scaled[0][:, :dim].contiguous()
        self.weights, self.biases = nn.ParameterList(scaled), nn.ParameterList(shifts)

    def forward(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Map z [N, D] or [N, L, D] and class_id [N] to w of z's shape.

        Raises:
            GeneratorError: The network is class-conditional, and no class came.
        """
        if self.classes and class_id is None:
            raise GeneratorError("the generator is class-conditional: expected class_id [N], got none")
        x = _normalised(z)  # [..., D]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if class_id is not None and self.classes and i == 0:
                of_class = F.embedding(class_id, bias)  # [N, O]
                x = F.linear(x, weight) + (of_class if z.ndim == 2 else of_class[:, None])
            else:
                x = F.linear(x, weight, bias)  # [..., O]
            x = F.leaky_relu(x, SLOPE)
        return x

    def average(self) -> Tensor:
        """Return the mean w [D] of `AVERAGE_SAMPLES` codes from a seed, of all classes alike."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(AVERAGE_SAMPLES, self.weights[0].shape[1], generator=rng)
        class_id = torch.arange(AVERAGE_SAMPLES) % self.classes if self.classes else None
        with torch.no_grad():
            w: Tensor = self(z, class_id)
        return w.mean(0)


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
