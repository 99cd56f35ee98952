"""Refinement: from the encoder's code, by gradient, to one whose picture is nearer to the photo's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from latentclr.generators.base import Generator
from latentclr.inversion.encoder import Encoder
from latentclr.inversion.objective import at_layers

RATE, PRIOR, OFFSETS = 0.1, 0.002, 0.02
"""Adam's rate in standard deviations of the prior, and the weights of what keeps a code editable."""
_SCALES = (1, 2, 4)  # the picture is compared at these sizes too, since a small shift is no large error in a small one
_FALL = 0.25  # share of the steps in which the rate rises to begin with, and falls in the end


def refine(
    generator: Generator,
    encoder: Encoder,
    images: Tensor,
    codes: Tensor,
    steps: int,
    class_id: Tensor | None = None,
    told: Callable[[int, Tensor], bool] | None = None,
) -> Tensor:
    """Move codes so that what is drawn of them comes nearer to pictures.

    The loss is the squared error of the pixels at three sizes, relative to the error at the start, and two terms that
    keep a code where edits work: its distance from the prior's mean and, in w+, the distance of its parts from their
    mean (Zhu et al., arXiv 2004.00049, keep an inverted code in the generator's domain in the same spirit). Rows do not
    depend on each other; the best code of each, by pixels, is kept, so that no row gets worse.

    Args:
        generator: The frozen generator.
        encoder: Knows the prior; on the same device.
        images: [N, 3, H, W] in [-1, 1].
        codes: Where to begin: [N, D], or [N, L, D].
        steps: Of Adam.
        class_id: [N] of a conditional generator.
        told: Called with the steps done and the best errors so far [N] (mean square, of values in [-1, 1]); False ends
            the refinement.

    Returns:
        Codes of the same shape.
    """
    mean, scale = encoder.mean, encoder.scale
    x = ((codes - mean) / scale).detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=RATE, betas=(0.9, 0.99))
    wanted = _pyramid(images)
    best, errors = x.detach().clone(), torch.full((len(images),), torch.inf, device=images.device)
    start: Tensor | None = None
    for step in range(steps + 1):
        drawn = generator.synthesize(at_layers(generator, mean + scale * x), class_id).float()
        now = (drawn.detach().clamp(-1, 1) - images).square().flatten(1).mean(1)  # [N]
        better = now < errors
        errors = torch.where(better, now, errors)
        best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), x.detach(), best)
        if step == steps or (told is not None and not told(step, errors)):
            break
        error = sum((a - b).square().flatten(1).mean(1) for a, b in zip(_pyramid(drawn), wanted, strict=True))
        assert isinstance(error, Tensor)
        start = error.detach().clamp_min(1e-6) if start is None else start
        loss = error / start + PRIOR * x.square().flatten(1).mean(1)
        if x.ndim == 3:
            loss = loss + OFFSETS * (x - x.mean(1, keepdim=True)).square().flatten(1).mean(1)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / (0.1 * steps + 1), (steps - step) / (_FALL * steps + 1e-9))
        (x.grad,) = torch.autograd.grad(loss.sum(), x)
        optimizer.step()
    return mean + scale * best


def from_prior(encoder: Encoder, codes: Tensor) -> Tensor:
    """Return how far codes [N, ...] are from the prior's mean: root mean square, in standard deviations [N].

    A code that the generator's sampler draws is near 1.
    """
    return ((codes - encoder.mean) / encoder.scale).square().flatten(1).mean(1).sqrt()


def _pyramid(images: Tensor) -> list[Tensor]:
    return [images if size == 1 else F.avg_pool2d(images, size) for size in _SCALES if size <= min(images.shape[2:])]
