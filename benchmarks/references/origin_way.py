"""One training step the way the origin does it, as the thing to be faster than.

Written from the paper (LatentCLR, arXiv 2104.00820, section 3) and from DESIGN's list of what the origin's trainer
does, not from its code: the generator is a stock module whose weights collect gradients, nothing in it is folded, K
separate networks make the directions, and each direction's edits go through the generator and the projector
on their own. It takes its weights from a lean step, so both must find the same loss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.method.directions import MLPDirections
from latentclr.method.step import Batch, ContrastiveStep


def stock_dcgan(tensors: Mapping[str, Tensor], layer: str) -> nn.Sequential:
    """Build the DCGAN up to and including `layer` from plain modules, nothing folded, nothing frozen.

    Args:
        tensors: `main.{i}.*` as the weights file holds them.
        layer: Such as `main.2`.

    Returns:
        A module that maps [N, D, 1, 1] to the features [N, C, h, w], in inference mode (fixed batch-norm statistics).
    """
    main: OrderedDict[str, nn.Module] = OrderedDict()
    convolutions = sorted(int(key.split(".")[1]) for key, value in tensors.items() if value.ndim == 4)
    for i in convolutions:
        inputs, outputs, *_ = tensors[f"main.{i}.weight"].shape
        stride, padding = (1, 0) if i == 0 else (2, 1)
        main[str(i)] = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
        if i == convolutions[-1]:
            main[str(i + 1)] = nn.Tanh()
        else:
            main[str(i + 1)] = nn.BatchNorm2d(outputs)
            main[str(i + 2)] = nn.ReLU()
    whole = nn.Sequential(main)
    whole.load_state_dict({key.removeprefix("main."): value for key, value in tensors.items()})
    return nn.Sequential(*list(whole)[: int(layer.removeprefix("main.")) + 1]).eval()


@dataclass(frozen=True)
class OriginGenerator:
    """The two functions that a step needs of a stock generator, whose weights collect gradients.

    Attributes:
        encode: z [B, D] -> the code to edit [B, D].
        features: code [B, D], class_id [B] or None -> features [B, ...].
    """

    encode: Callable[[Tensor], Tensor]
    features: Callable[[Tensor, Tensor | None], Tensor]


class OriginStep(nn.Module):
    """A step over K separate networks, K generator passes and K projections.

    Attributes:
        nets: K networks Linear, (BatchNorm1d, ReLU, Linear) x (depth - 1), the last Linear without bias if depth > 1.
        generator: See `OriginGenerator`.
    """

    def __init__(self, lean: ContrastiveStep, generator: OriginGenerator) -> None:
        """Copy a lean step's direction weights.

        Args:
            lean: A step with linear or nonlinear directions and the identity projector.
            generator: The same generator the stock way.
        """
        super().__init__()
        assert isinstance(lean.directions, MLPDirections)
        self.options, self.k, self.generator = lean.options, lean.directions.k, generator
        self.nets = nn.ModuleList(_network(lean.directions, k) for k in range(self.k))

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        with torch.no_grad():
            p = self.generator.encode(batch.z)  # [B, D]
            base = self._project(p, batch.class_id)  # [B, F]
        changes = []
        for k, net in enumerate(self.nets):
            d = net(p)
            edited = p + batch.alpha[k] * d / d.norm(dim=1, keepdim=True)  # [B, D]
            change = self._project(edited, batch.class_id) - base
            changes.append(change / change.norm(dim=1, keepdim=True))
        return self._loss(torch.cat(changes))  # [K * B, F]

    def _project(self, p: Tensor, class_id: Tensor | None) -> Tensor:
        features = self.generator.features(p, class_id).flatten(1)  # [B, F]
        return F.normalize(features, dim=1)

    def _loss(self, f: Tensor) -> Tensor:
        # Mean reduction. E = exp(S * temp) over all pairs; pos: same direction without self, neg: other directions.
        s = f @ f.T  # [K * B, K * B]
        e = torch.exp((s.abs() if self.options.use_abs else s) * self.options.temp)
        b = f.shape[0] // self.k
        same = torch.block_diag(*[torch.ones(b, b)] * self.k)
        pos = (e * (same - torch.eye(len(f)))).sum(dim=1) / (b - 1)
        neg = (e * (1 - same)).sum(dim=1) / (len(f) - b)
        return -torch.log(pos / neg).mean()


def _network(stacked: MLPDirections, k: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, weight in enumerate(stacked.weights):
        linear = nn.Linear(stacked.dim, stacked.dim, bias=i < len(stacked.biases))
        with torch.no_grad():
            linear.weight.copy_(weight[k])
            if i < len(stacked.biases):
                linear.bias.copy_(stacked.biases[i][k])
        layers.append(linear)
        if i + 1 < stacked.depth:
            norm = nn.BatchNorm1d(stacked.dim)
            with torch.no_grad():
                norm.weight.copy_(stacked.gains[i][k])
                norm.bias.copy_(stacked.shifts[i][k])
            layers += [norm, nn.ReLU()]
    return nn.Sequential(*layers)
