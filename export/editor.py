"""The served function, written once: latent code, directions and strengths in, pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentclr.directions import Directions
from latentclr.generators.base import Generator
from latentclr.pixels import to_uint8


class FusedEditor(nn.Module):
    """Direction model and generator as one module of tensors in and tensors out.

    p = encode(z); d = directions(p, direction); ps_l = p + sum_m alpha_ml d_m; image = to_uint8(synthesize(ps)).
    The direction is gathered by index, so the cost does not grow with K.
    """

    def __init__(self, generator: Generator, directions: Directions) -> None:
        """Put both in inference mode; neither collects gradients."""
        super().__init__()
        self.generator, self.directions = generator, directions.eval().requires_grad_(False)
        self.conditional = generator.class_names is not None

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of `forward`'s arguments, in order."""
        return ("z", "direction", "alpha", "class_id") if self.conditional else ("z", "direction", "alpha")

    def forward(
        self, z: Tensor, direction: Tensor, alpha: Tensor, class_id: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Edit N images with M edits each.

        A bad row must not hurt the other rows of its batch, on any engine: a gather out of range raises for the whole
        batch on a CPU and reads garbage on a GPU. So bad rows are computed as unedited ones and blacked out.

        Args:
            z: [N, D] float32, as the generator's own sampler draws it.
            direction: [N, M] int64 in [0, K).
            alpha: [N, M, L] float32, strength of each edit at each latent input; zero leaves the image as it is.
            class_id: [N] int64, for class-conditional generators only.

        Returns:
            image: [N, H, W, 3] uint8 RGB, black where not valid.
            valid: [N] bool, False where the row was out of range or not finite.
        """
        in_range = (direction >= 0) & (direction < self.directions.k)
        valid = in_range.all(dim=1) & torch.isfinite(z).all(dim=1) & torch.isfinite(alpha).flatten(1).all(dim=1)  # [N]
        if class_id is not None and self.generator.class_names is not None:
            classes = len(self.generator.class_names)
            valid = valid & (class_id >= 0) & (class_id < classes)
            class_id = class_id.clamp(0, classes - 1)
        z = torch.where(valid[:, None], z, torch.zeros_like(z))
        alpha = torch.where(valid[:, None, None], alpha, torch.zeros_like(alpha))
        direction = direction.clamp(0, self.directions.k - 1)

        p = self.generator.encode(z)  # [N, D]
        d = self.directions.select(p, direction)  # [N, M, D]
        ps = p[:, None] + alpha.transpose(1, 2) @ d  # [N, L, D]
        image = self.generator.synthesize(ps, class_id)  # [N, 3, H, W] in [-1, 1]
        # Finite but enormous strengths can still overflow inside the generator.
        valid = valid & torch.isfinite(image).flatten(1).all(dim=1)
        image = torch.where(valid[:, None, None, None], image, torch.full_like(image, -1.0))
        return to_uint8(image), valid

    def example_inputs(self, n: int = 2, m: int = 2) -> tuple[Tensor, ...]:
        """Return valid inputs for tracing: N = n rows, M = m edits."""
        latent = self.generator.latent
        z = torch.linspace(-1, 1, n * latent.dim).view(n, latent.dim)
        direction = (torch.arange(n * m) % self.directions.k).view(n, m)
        alpha = torch.ones(n, m, latent.layers)
        return (z, direction, alpha, torch.zeros(n, dtype=torch.int64)) if self.conditional else (z, direction, alpha)
