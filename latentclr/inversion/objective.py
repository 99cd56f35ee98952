"""What an encoder is trained for: the code, the picture that it draws, and the generator's own features of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentclr.generators.base import Generator
from latentclr.inversion.encoder import Encoder

CODE, PIXELS, FEATURES, OFFSETS = 1.0, 0.2, 0.05, 0.2
"""Weights of the four losses. Each is near 1 for an encoder that always answers with the mean, but the last, which is 0
there. On the faces larger weights of pixels and features hold the code back: what they gain at first it loses later."""
JUDGED = 4
"""One of so many pictures is drawn again and compared: gradients through the generator cost several times what the
encoder's do, and the code's loss alone teaches most."""


@dataclass(frozen=True)
class Drawn:
    """N pictures of known codes.

    Attributes:
        codes: [N, D] in the space of the directions.
        class_id: [N] of a conditional generator.
        images: [N, 3, H, W] in [-1, 1].
    """

    codes: Tensor
    class_id: Tensor | None
    images: Tensor

    def rows(self, chosen: Tensor) -> Drawn:
        """Return some of them, by number."""
        class_id = None if self.class_id is None else self.class_id[chosen]
        return Drawn(self.codes[chosen], class_id, self.images[chosen])


def sample_codes(generator: Generator, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Draw codes [N, D] as `Generator.encode` returns them, and classes of a conditional generator, on its device."""
    z = generator.sample(count, rng).to(generator.device)
    class_id = generator.sample_classes(count, rng)
    class_id = None if class_id is None else class_id.to(z.device)
    with torch.no_grad():
        return generator.encode(z, class_id), class_id


def at_layers(generator: Generator, codes: Tensor) -> Tensor:
    """Return codes [N, D] or [N, L, D] as [N, L, D]."""
    return codes[:, None].expand(-1, generator.latent.layers, -1) if codes.ndim == 2 else codes


def draw(generator: Generator, count: int, rng: torch.Generator) -> Drawn:
    """Draw pictures of random codes."""
    codes, class_id = sample_codes(generator, count, rng)
    with torch.no_grad():
        images = generator.synthesize(at_layers(generator, codes), class_id).float().clamp(-1, 1)
    return Drawn(codes, class_id, images)


def losses(
    generator: Generator, encoder: Encoder, layer: str, drawn: Drawn, seen: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compare what an encoder finds with what was drawn.

    Args:
        generator: The frozen generator.
        encoder: In training or inference mode.
        layer: Whose features are compared.
        drawn: The pictures with their codes.
        seen: What the encoder sees of them [N, 3, H, W]: `drawn.images`, or changed.

    Returns:
        The sum of the weighted losses, and each by itself: `code` and `offsets` in variances of the prior, `pixels` and
        `features`, of a part of the pictures, relative to their variance, so that 1 is what a guess of the mean has.
    """
    base, offsets = encoder.whitened(seen)
    wanted = (drawn.codes - encoder.mean) / encoder.scale  # [N, D]
    parts = {"code": F.mse_loss(base, wanted)}
    total = CODE * parts["code"]
    if offsets is not None:
        parts["offsets"] = offsets.square().mean()
        total = total + OFFSETS * parts["offsets"]
    few = max(2, len(base) // JUDGED)
    code = base[:few] if offsets is None else base[:few, None] + offsets[:few]
    some = drawn.rows(torch.arange(few, device=base.device))
    ps, truth = at_layers(generator, encoder.mean + encoder.scale * code), at_layers(generator, some.codes)
    parts["pixels"] = _relative(generator.synthesize(ps, some.class_id).float(), some.images)
    with torch.no_grad():
        features = generator.features(truth, layer, some.class_id).float()
    parts["features"] = _relative(generator.features(ps, layer, some.class_id).float(), features)
    total = total + PIXELS * parts["pixels"] + FEATURES * parts["features"]
    return total, {name: part.detach() for name, part in parts.items()}


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square error over the variance between the batch's rows."""
    spread = wanted.var(0, unbiased=False).mean().clamp_min(1e-12)
    return F.mse_loss(found, wanted) / spread
