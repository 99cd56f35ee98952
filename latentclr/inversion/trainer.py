"""Training an encoder on the generator's own pictures: steps, held-out reconstructions, exact resume."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentclr.config import InvertConfig
from latentclr.errors import CheckpointError, ConfigError, LatentCLRError, first_reason
from latentclr.generators.base import Generator
from latentclr.inversion.augment import augment
from latentclr.inversion.encoder import ENCODER_FILE, Encoder, EncoderSpec, SavedEncoder, save_encoder
from latentclr.inversion.objective import Drawn, at_layers, draw, losses, sample_codes
from latentclr.pictures.pixels import to_uint8
from latentclr.pictures.render import at_once, save_picture
from latentclr.progress import progress_bar
from latentclr.training.checkpoint import load_resume, save_resume
from latentclr.training.finite import all_finite, tensors_in
from latentclr.training.rng import stream
from latentclr.training.trainer import interruptible
from serving.contract.certificate import picture_psnr

RESUME_FILE, PICTURE_FILE = "encoder_resume.pt", "encoder.png"
FORMAT = 1
PRIOR_CODES, HELD_OUT = 10_000, 128
_COLUMNS = 8  # of the picture of reconstructions
_WARM_UP, _FALL, _LEAST = 50, 0.4, 0.02  # steps; share of the steps in which the rate falls; to this part of it
_AVERAGED = 0.995  # of the moving average of the weights, which is what is kept
_GAP, _PAPER = 2, 255
_DRAWN, _USES = 8, 3  # batches that are drawn at once, and how often each picture is used


@dataclass(frozen=True)
class Reached:
    """What an encoder makes of held-out pictures.

    Attributes:
        psnr: Mean over the pictures, dB, of what is drawn of the code that it finds.
        psnr_changed: The same where it sees them changed as photos are, against the unchanged ones.
        floor: The same of the mean picture: what an encoder that sees nothing has.
        code_error: Mean square error of the code, in variances of the prior; of `w+` against the one w.
    """

    psnr: float
    psnr_changed: float
    floor: float
    code_error: float

    def as_dict(self) -> dict[str, float]:
        """Return them by name, rounded."""
        return {name: round(value, 3) for name, value in vars(self).items()}


class EncoderTrainer:
    """An encoder in training, and the folder that it is saved to.

    Attributes:
        encoder: With the newest weights.
        averaged: With the moving average of them, in inference mode: what is saved.
        step: Steps done.
        history: (step, what was reached on held-out codes).
    """

    def __init__(self, config: InvertConfig, generator: Generator, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin anew.

        Args:
            config: How to train.
            generator: On its device.
            folder: Where the encoder goes.
            settings: The whole configuration as plain data, for the file's header.

        Raises:
            ConfigError: The generator has no such space of codes.
        """
        self.config, self.generator, self.folder, self.settings = config, generator, folder, dict(settings)
        device, latent, (height, width) = generator.device, generator.latent, generator.size
        self.layer = generator.check_layer(config.generator.feature_layer)
        space = chosen_space(generator, config.space)
        spec = EncoderSpec(space, latent.dim, latent.layers, height, width, config.channels)
        self.encoder = Encoder(spec, stream(config.seed, "encoder")).to(device)
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder.set_prior(sample_codes(generator, PRIOR_CODES, stream(config.seed, "prior"))[0])
        self.averaged = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), lr=config.learning_rate)
        self.batch = config.batch or max(4, min(32, 2 * at_once(generator)))
        self.step, self.history = 0, list[tuple[int, Reached]]()
        self.seconds = 0.0
        self._block: tuple[int, Drawn] | None = None

    def state(self) -> dict[str, Any]:
        """Return everything an exact resume needs, as plain containers and tensors."""
        return {
            "format": FORMAT,
            "config": self.settings,
            "weights_sha256": self.generator.weights_sha256,
            "step": self.step,
            "seconds": self.seconds,
            "encoder": self.encoder.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [(step, *vars(reached).values()) for step, reached in self.history],
        }

    def resume(self, path: Path) -> None:
        """Go on where a state left off.

        Raises:
            CheckpointError: The file is damaged, or of another generator.
            ConfigError: It was begun with other settings.
        """
        state = load_resume(path)
        if state.get("weights_sha256") != self.generator.weights_sha256:
            raise CheckpointError(f"{path} is of another generator: anew=true begins again")
        before, asked = (_settings_of(config) for config in (state["config"], self.settings))
        for key, now in asked.items():
            if (was := before.get(key)) != now:
                raise ConfigError(f"{path} was begun with {key}={was}, got {now}: repeat it, or anew=true begins again")
        try:
            self.encoder.load_state_dict(state["encoder"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.history = [(int(step), Reached(*map(float, values))) for step, *values in state["history"]]
            if not 0 <= self.step <= self.config.steps or not all_finite(tensors_in(state)):
                raise ValueError("its numbers are out of range")
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit this encoder: {first_reason(error)}") from None

    def fit(self, say: Callable[[str], None], clock: Callable[[], float]) -> bool:
        """Train to the last step, or until Ctrl-C; either way it is saved.

        Args:
            say: Receives a line for each held-out evaluation.
            clock: Seconds that go by.

        Returns:
            Whether it is complete.

        Raises:
            LatentCLRError: The loss is not finite any more, or the disk is full.
        """
        total, every = self.config.steps, max(1, -(-self.config.steps // 10))
        bar = progress_bar(total, "step", initial=self.step)
        begun, before = clock(), self.seconds
        with bar, interruptible() as interrupted:
            while self.step < total:
                parts = self._one()
                self.seconds = before + clock() - begun
                bar.set_postfix({name: f"{value:.3f}" for name, value in parts.items()}, refresh=False)
                bar.update()
                stop = interrupted()
                if self.step % every == 0 or self.step == total:
                    reached = self._evaluate()
                    with bar.external_write_mode():
                        say(
                            f"step {self.step}: {reached.psnr:.2f} dB, changed as photos are {reached.psnr_changed:.2f}"
                            f" dB (the mean picture {reached.floor:.2f} dB), code error {reached.code_error:.3f}"
                        )
                if stop or self.step % self.config.save_freq == 0:
                    save_resume(self.folder / RESUME_FILE, self.state())
                if stop:
                    return False
        return True

    def save(self, face: tuple[tuple[float, float], ...] | None) -> Path:
        """Write the encoder, and remove the state that it was resumed from."""
        path = self.folder / ENCODER_FILE
        training = {"steps": self.step, "seconds": round(self.seconds, 1), "batch": self.batch,
                    "threads": torch.get_num_threads(), "config": self.settings}  # fmt: skip
        figures = self.history[-1][1].as_dict() if self.history else {}
        averaged = copy.deepcopy(self.averaged).cpu()
        save_encoder(path, SavedEncoder(averaged, self.generator.describe(), face, training, figures, path))
        (self.folder / RESUME_FILE).unlink(missing_ok=True)
        return path

    def _one(self) -> dict[str, float]:
        config, at = self.config, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(at, config.steps)
        drawn = self._pictures(at)
        seen = augment(drawn.images, stream(config.seed, "encoder-photos", at), config.changed)
        self.encoder.train()
        total, parts = losses(self.generator, self.encoder, self.layer, drawn, _channels_last(seen))
        self.optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.encoder.parameters() if p.grad is not None])
        loss, length = torch.stack([total.detach(), norm]).tolist()
        if not (math.isfinite(loss) and math.isfinite(length)):
            raise LatentCLRError(
                f"the loss became {loss} at step {at + 1}: lower learning_rate (now {config.learning_rate:g})"
            )
        self.optimizer.step()
        self.step += 1
        kept = min(_AVERAGED, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.averaged.state_dict().values(), self.encoder.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - kept)
                else:
                    mean.copy_(now)
        return {name: float(value) for name, value in parts.items()}

    def _pictures(self, step: int) -> Drawn:
        """Return a step's pictures: some are drawn at once, and each is used a few times, changed anew."""
        number, at = divmod(step, _DRAWN * _USES)
        if self._block is None or self._block[0] != number:
            parts = [
                draw(self.generator, self.batch, stream(self.config.seed, "encoder-codes", number, part))
                for part in range(_DRAWN)
            ]
            classes = [part.class_id for part in parts if part.class_id is not None]
            codes, images = torch.cat([part.codes for part in parts]), torch.cat([part.images for part in parts])
            self._block = number, Drawn(codes, torch.cat(classes) if classes else None, images)
        use, part = divmod(at, _DRAWN)
        order = torch.randperm(_DRAWN * self.batch, generator=stream(self.config.seed, "encoder-order", number, use))
        return self._block[1].rows(order[part * self.batch : (part + 1) * self.batch].to(self.generator.device))

    def _evaluate(self) -> Reached:
        found = [self._reconstructed(drawn, number) for number, drawn in enumerate(self._held_out())]
        originals, plain, changed, codes, _ = (torch.cat(parts) for parts in zip(*found, strict=True))
        mean = originals.float().mean(0, keepdim=True).expand_as(originals)
        reached = Reached(
            mean_psnr(originals, plain), mean_psnr(originals, changed), mean_psnr(originals, mean), float(codes.mean())
        )
        self.history.append((self.step, reached))
        seen = torch.cat([part[4] for part in found])
        save_picture(
            _sheet([images[:_COLUMNS] for images in (originals, plain, seen, changed)]), self.folder / PICTURE_FILE
        )
        return reached

    def _held_out(self) -> list[Drawn]:
        parts = -(-HELD_OUT // (size := min(HELD_OUT, at_once(self.generator))))
        if size < 4:  # pictures of 1024 pixels: seconds each on a CPU
            parts = -(-16 // size)
        return [draw(self.generator, size, stream(self.config.seed, "encoder-held-out", i)) for i in range(parts)]

    def _reconstructed(self, drawn: Drawn, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return original, reconstruction, that of the changed picture, code errors [N], the changed one."""
        seen = augment(drawn.images, stream(self.config.seed, "encoder-held-out-photos", number), 1.0)
        with torch.no_grad():
            codes = self.averaged.encode(_channels_last(drawn.images))
            images = [
                to_uint8(self.generator.synthesize(at_layers(self.generator, found), drawn.class_id)).cpu()
                for found in (codes, self.averaged.encode(_channels_last(seen)))
            ]
            single = codes.mean(1) if codes.ndim == 3 else codes
            error = ((single - drawn.codes) / self.averaged.scale).square().mean(1)
        return to_uint8(drawn.images).cpu(), images[0], images[1], error.cpu(), to_uint8(seen).cpu()


def _settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an encoder's training depends on; which generator it is, the hash of its weights says."""
    own = ("space", "channels", "steps", "batch", "learning_rate", "changed", "seed")
    generator = config.get("generator")
    drawn = generator.items() if isinstance(generator, Mapping) else ()
    return {key: config.get(key) for key in own} | {
        f"generator.{key}": value for key, value in drawn if key not in ("name", "weights")
    }


def chosen_space(generator: Generator, space: str | None) -> str:
    """Return the space of codes that an encoder of a generator answers with.

    Raises:
        ConfigError: The generator has no such space.
    """
    has_w = bool(getattr(generator, "use_w", False))
    known = ("w", "w+") if has_w else ("z",)
    if space is None:
        return "w+" if has_w else "z"
    if space not in known:
        raise ConfigError(f"space must be {' or '.join(known)} for {generator.name}, got {space!r}")
    return space


def mean_psnr(originals: Tensor, images: Tensor) -> float:
    """Return the mean over N pictures [N, H, W, 3] of 0 to 255 of their PSNR in dB, identical ones as 100."""
    return float(np.mean([picture_psnr(*pair) for pair in zip(originals.numpy(), images.numpy(), strict=True)]))


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: it rises, stays, and falls in the last part."""
    left = (steps - step) / (_FALL * steps)
    return min(1.0, (step + 1) / _WARM_UP, max(_LEAST, left))


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)  # convolutions of the encoder are a third faster so


def _sheet(rows: list[Tensor]) -> Image.Image:
    """Lay out rows of pictures [C, H, W, 3] as one."""
    padded = [torch.nn.functional.pad(row, (0, 0, 0, _GAP, 0, _GAP), value=_PAPER) for row in rows]
    table = torch.stack(padded)  # [R, C, H + gap, W + gap, 3]
    return Image.fromarray(
        table.permute(0, 2, 1, 3, 4).flatten(3, 4).flatten(2, 3).reshape(-1, table.shape[1] * table.shape[3], 3).numpy()
    )
