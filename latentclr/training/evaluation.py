"""How good the directions are, on codes that training never drew.

Consistency: a direction should change the features of different samples alike. Redundancy: two directions should not
change the features of one sample alike; with K directions some always do, and a product wants to know which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from latentclr.method.loss import contrastive_loss
from latentclr.method.step import ContrastiveStep
from latentclr.training.distributed import Processes
from latentclr.training.rng import stream


@dataclass(frozen=True)
class Evaluation:
    """What was measured over `samples` held-out codes.

    Attributes:
        loss: Contrastive loss.
        accuracy: Share of edits closer to their own direction than to the others, in [0, 1].
        similarity: [K, K]; the diagonal is consistency, the rest redundancy. Mean cosine of feature changes in [-1, 1]
            (its absolute value, in [0, 1], if the loss compares without sign): on the diagonal between different
            samples of one direction, off it between two directions at the same sample.
        samples: Number of codes.
    """

    loss: float
    accuracy: float
    similarity: Tensor
    samples: int

    @property
    def consistency(self) -> Tensor:
        """Consistency of each direction [K]."""
        return self.similarity.diagonal()

    def nearest_other(self) -> tuple[Tensor, Tensor]:
        """Return (redundancy [K], index [K]): each direction's likeness to the other it is most like."""
        others = self.similarity.masked_fill(torch.eye(len(self.similarity), dtype=torch.bool), -torch.inf)
        redundancy, index = others.max(dim=1)
        return redundancy, index


def held_out(
    step: ContrastiveStep,
    batch_size: int,
    iterations: int,
    seed: int,
    *,
    processes: Processes | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> tuple[float, float] | None:
    """Return the mean (loss, accuracy) of held-out batches, the same ones at every call.

    Args:
        step: With trained directions; left in the mode it was in.
        batch_size: Codes in a batch, at least 2.
        iterations: Batches; several processes share them.
        seed: Of the held-out codes.
        processes: The run's processes, if several.
        interrupted: Asked between batches; the answer is None if it says so.
    """
    rank, world = (processes.rank, processes.world) if processes else (0, 1)
    losses, accuracies = [0.0], [0.0]
    training = step.training
    step.eval()
    try:
        with torch.no_grad():
            for i in range(rank, iterations, world):
                if interrupted is not None and interrupted():
                    return None
                loss, accuracy = step(step.sample(batch_size, stream(seed, "eval", i)))
                losses.append(loss.item())
                accuracies.append(accuracy.item())
    finally:
        step.train(training)
    total, right = sum(losses) / iterations, sum(accuracies) / iterations
    if processes:
        total, right = (value * world for value in processes.mean(total, right))
    return total, right


def evaluate(step: ContrastiveStep, batch_size: int, iterations: int, seed: int) -> Evaluation:
    """Measure a trained step (in inference mode) on held-out codes.

    Args:
        step: With trained directions.
        batch_size: Codes in a batch, at least 2.
        iterations: Batches.
        seed: Of the held-out codes.
    """
    k = step.directions.k
    similarity = torch.zeros(k, k)
    losses, accuracies = [], []
    o = step.options
    step.eval()
    with torch.no_grad():
        for i in tqdm(range(iterations), unit="batch", desc="held-out", dynamic_ncols=True):
            f = step.changes(step.sample(batch_size, stream(seed, "eval", i)))  # [K * B, F]
            loss, accuracy = contrastive_loss(f, k, o.temp, o.use_abs, o.reduce)
            losses.append(loss.item())
            accuracies.append(accuracy.item())
            similarity += _similarity(f.unflatten(0, (k, -1)), o.use_abs).cpu() / iterations
    return Evaluation(sum(losses) / iterations, sum(accuracies) / iterations, similarity, batch_size * iterations)


def _similarity(f: Tensor, use_abs: bool) -> Tensor:
    b = f.shape[1]  # f: [K, B, F]
    across = f @ f.transpose(1, 2)  # [K, B, B], one direction, pairs of samples
    between = torch.einsum("kbf,jbf->kjb", f, f)  # [K, K, B], pairs of directions, one sample
    if use_abs:
        across, between = across.abs(), between.abs()
    different = ~torch.eye(b, dtype=torch.bool, device=f.device)
    consistency = across[:, different].mean(dim=1)  # [K]
    return torch.diagonal_scatter(between.mean(dim=2), consistency)
