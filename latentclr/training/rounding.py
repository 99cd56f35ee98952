"""What a small number format does to the changes that a run learns from, measured on that run before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from latentclr.method.similarity import feature_changes
from latentclr.method.step import Batch, ContrastiveStep


@dataclass(frozen=True)
class Rounding:
    """Errors of the normalised changes f of projected features, each the mean of |f - f in float32| over all edits.

    Attributes:
        dtype: The small format.
        change: How much edits change the features: the mean of |change| / |features|.
        of_changes: Error of a step as it is, which rounds changes.
        of_features: Error if features were computed exactly and then rounded, the least that a step which rounds
            features could have.
    """

    dtype: torch.dtype
    change: float
    of_changes: float
    of_features: float

    def __str__(self) -> str:
        name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]
        return (
            f"mixed_precision={name} rounds changes of features, {_percent(self.of_changes)} off float32 on codes of"
            f" this run; edits change features by {_percent(self.change)}, so rounded features would be"
            f" {_percent(self.of_features)} off"
        )


@torch.no_grad()
def measure_rounding(step: ContrastiveStep, batch: Batch) -> Rounding:
    """Compare a step that rounds with the same in float32; nothing of the step changes.

    Args:
        step: With `options.rounding`.
        batch: The codes to measure on.
    """
    options, training = step.options, [module for module in step.modules() if module.training]
    assert options.rounding is not None
    normalize, k = step.projector.normalize, step.directions.k
    step.eval()  # batch statistics of the training are not those of this batch
    try:
        rounded = step.changes(batch)  # [K * B, F']
        step.options = replace(options, rounding=None)
        x, base = step._projected(batch)  # [K * B, F'], [B, F']
    finally:
        step.options = options
        for module in training:
            module.training = True
    exact = feature_changes(x, base, normalize)
    unit = x / x.norm(dim=1, keepdim=True) if normalize else x
    coarse = feature_changes(x.to(options.rounding).float(), base.to(options.rounding).float(), normalize)
    spread = base.repeat(k, 1)  # [K * B, F']

    def error(f: torch.Tensor) -> float:
        return float((f - exact).norm(dim=1).mean())

    change = float(((unit - spread).norm(dim=1) / spread.norm(dim=1)).mean())
    return Rounding(options.rounding, change, error(rounded), error(coarse))


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
