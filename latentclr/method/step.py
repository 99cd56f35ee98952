"""The one contrastive step, shared by training and evaluation.

z -> p -> K edits of every p -> generator features -> projector -> normalised changes f -> loss (arXiv 2104.00820, 3.1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentclr.errors import ConfigError
from latentclr.generators.base import Generator
from latentclr.method.differences import Differences, Recorded, Unedited
from latentclr.method.directions import Directions, draw_alpha
from latentclr.method.loss import similarity_loss
from latentclr.method.projectors import Projector
from latentclr.method.similarity import change_similarity, feature_changes


@dataclass(frozen=True)
class Batch:
    """The random part of a step: z [B, D], alpha [K], class_id [B] or None."""

    z: Tensor
    alpha: Tensor
    class_id: Tensor | None


@dataclass(frozen=True)
class StepOptions:
    """What a step computes.

    Attributes:
        layer: The generator's feature layer.
        feed_layers: Latent inputs that receive the edit; None for all.
        alpha: A strength or a (low, high) range.
        temp: Temperature of the loss.
        use_abs: Compare without sign.
        reduce: `mean` or `sum`.
        chunk: Edited rows that go through the generator at once; None for all. Bounds memory, costs one more forward.
        rounding: Small format of the changes that go through the generator (see `differences`), None for float32. All
            else is always float32.
    """

    layer: str
    feed_layers: tuple[int, ...] | None = None
    alpha: float | Sequence[float] = 0.1
    temp: float = 0.5
    use_abs: bool = True
    reduce: str = "mean"
    chunk: int | None = None
    rounding: torch.dtype | None = None


class ContrastiveStep(nn.Module):
    """A module whose forward is one step, so that DistributedDataParallel can wrap it."""

    def __init__(
        self, generator: Generator, directions: Directions, projector: Projector, options: StepOptions
    ) -> None:
        """Check that the edit can reach the features.

        Raises:
            ConfigError: A feed layer does not exist, or none of them reaches the feature layer.
        """
        super().__init__()
        self.generator, self.directions, self.projector, self.options = generator, directions, projector, options
        generator.check_layer(options.layer)
        fed = feed_mask(options.feed_layers, generator.latent.layers)
        reaching = generator.inputs_reaching(options.layer)
        if reaching == 0:
            raise ConfigError(
                f"no gradient comes back from {options.layer} to the code: {generator.name} may run under"
                " torch.no_grad, detach or round there; choose another feature layer"
            )
        if options.feed_layers is not None and not fed[:reaching].any():
            raise ConfigError(
                f"feed_layers {list(options.feed_layers)} cannot change {options.layer}: only the latent inputs"
                f" 0..{reaching - 1} reach it; use one of those or a later feature layer"
            )
        self.register_buffer("fed", fed, persistent=False)  # [L]

    def sample(self, batch_size: int, rng: torch.Generator) -> Batch:
        """Draw z, alpha and classes on the CPU (the same on every device) and move them to the module's device."""
        device = self.get_buffer("fed").device
        z = self.generator.sample(batch_size, rng)
        alpha = draw_alpha(self.options.alpha, self.directions.k, self.directions.per_direction_alpha, rng)
        class_id = self.generator.sample_classes(batch_size, rng)
        return Batch(z.to(device), alpha.to(device), None if class_id is None else class_id.to(device))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (loss, accuracy) of a batch."""
        o = self.options
        projected, base = self._projected(batch)
        s = change_similarity(projected, base, self.projector.normalize)  # [K * B, K * B]
        return similarity_loss(s, self.directions.k, o.temp, o.use_abs, o.reduce)

    @torch.no_grad()
    def changes(self, batch: Batch) -> Tensor:
        """Return f [K * B, F'], direction-major rows of unit length: the projected change of features by each edit."""
        return feature_changes(*self._projected(batch), self.projector.normalize)

    def _projected(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return projected features of all edits [K * B, F'], not normalised, and of the unedited codes [B, F']."""
        k = self.directions.k
        generator, layer, fed = self.generator, self.options.layer, self.get_buffer("fed")
        memory = None if self.options.rounding is None else Unedited(len(batch.z))
        with torch.no_grad():
            p = generator.encode(batch.z, batch.class_id)  # [B, D]
            unedited = p[:, None].expand(-1, generator.latent.layers, -1)  # [B, L, D]
            with Recorded(memory) if memory else contextlib.nullcontext():
                features = generator.features(unedited, layer, batch.class_id)  # [B, ...]
            base = self.projector(features)  # [B, F']
        step = batch.alpha[:, None, None] * self.directions(p)  # [K, B, D]
        edited = p[:, None] + fed[:, None] * step[:, :, None]  # [K, B, L, D]
        class_id = None if batch.class_id is None else batch.class_id.repeat(k)
        features = self._features(edited.flatten(0, 1), class_id, memory)  # [K * B, ...]
        return self.projector.project_groups(features, k), base

    def _features(self, ps: Tensor, class_id: Tensor | None, memory: Unedited | None) -> Tensor:
        layer, dtype = self.options.layer, self.options.rounding

        def run(part: Tensor, classes: Tensor | None, start: int) -> Tensor:
            with Differences(memory, dtype, start) if memory and dtype else contextlib.nullcontext():
                return self.generator.features(part, layer, classes)

        chunk = self.options.chunk or len(ps)
        if chunk >= len(ps):
            return run(ps, class_id, 0)
        classes = [None] * -(-len(ps) // chunk) if class_id is None else class_id.split(chunk)
        # Only the features of a chunk are kept; its inner activations are computed again in the backward pass.
        parts = [
            checkpoint(run, part, classes[i], i * chunk, use_reentrant=False) for i, part in enumerate(ps.split(chunk))
        ]
        return torch.cat(parts)


def feed_mask(feed_layers: Sequence[int] | None, layers: int) -> Tensor:
    """Return a mask [L], 1 at the layers that receive the edit.

    Args:
        feed_layers: The layers; None for all.
        layers: L.

    Raises:
        ConfigError: The list is empty, or a layer is out of range.
    """
    if feed_layers is None:
        return torch.ones(layers)
    outside = [layer for layer in feed_layers if not 0 <= layer < layers]
    if outside or not feed_layers:
        raise ConfigError(f"feed_layers must name layers in [0, {layers}), got {list(feed_layers)}")
    mask = torch.zeros(layers)
    mask[list(feed_layers)] = 1.0
    return mask
