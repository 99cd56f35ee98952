"""The training loop: steps, held-out evaluations, checkpoints, exact resume."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from latentclr.compose import plain
from latentclr.config import TrainConfig
from latentclr.errors import CheckpointError, ConfigError, LatentCLRError, SaveError, first_reason
from latentclr.method.directions import MLPDirections
from latentclr.progress import Watch, progress_bar
from latentclr.training.checkpoint import (
    FORMAT,
    RESUME_FILE,
    load_checkpoint,
    save_checkpoint,
    save_resume,
    write_checkpoint,
)
from latentclr.training.distributed import Processes
from latentclr.training.evaluation import held_out
from latentclr.training.experiment import new_step
from latentclr.training.finite import all_finite, tensors_in
from latentclr.training.optim import build_optimizer, build_scheduler
from latentclr.training.rng import stream
from latentclr.training.rounding import measure_rounding

logger = logging.getLogger(__name__)
AXIS_CODES = 1024  # that say in which sense a direction points (model.orient)
# What every optimizer reads anew at each step. Others come with state of their own, as amsgrad does, or do not matter.
CHANGEABLE = ("lr", "betas", "eps", "weight_decay", "momentum", "dampening", "nesterov", "alpha", "rho", "maximize")
ADVICE = ": lower hparams.optimizer.lr or set hparams.grad_clip_max_norm"


@dataclass
class History:
    """What happened so far, one entry a step or a held-out evaluation."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float, float]] = field(default_factory=list)  # iteration, loss, accuracy


class Trainer:
    """A run: its modules, optimizer, counters, and the folder that they are saved to.

    Attributes:
        step: The contrastive step, with generator, directions and projector.
        iteration: Steps done.
        best_loss: Lowest held-out loss so far, infinity before the first.
        history: Losses so far.
    """

    def __init__(self, config: TrainConfig, run: Path, processes: Processes, watch: Watch | None = None) -> None:
        """Build everything fresh from the configuration.

        Args:
            config: Of the run.
            run: Its folder.
            processes: This one among those of the run.
            watch: Told of every step in place of a bar.

        Raises:
            LatentCLRError: The configuration, generator or weights cannot be used.
        """
        self.config, self.run, self.processes, self.watch = config, run, processes, watch
        self.step = new_step(config, processes.device)
        if not config.train_projector:
            self.step.projector.requires_grad_(False)
        self.parameters = [p for p in self.step.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(config.hparams.optimizer, self.parameters)
        self.scheduler = build_scheduler(config.hparams.scheduler, self.optimizer)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.step.options.rounding is torch.float16)
        self.iteration, self.best_loss, self.history = 0, float("inf"), History()

    def state(self) -> dict[str, Any]:
        """Return everything an exact resume needs, as plain containers and tensors."""
        return {
            "format": FORMAT,
            "config": plain(self.config),
            "weights_sha256": self.step.generator.weights_sha256,
            "threads": torch.get_num_threads(),
            "iteration": self.iteration,
            "best_loss": self.best_loss,
            "directions": self.step.directions.state_dict(),
            "projector": self.step.projector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": list(self.history.loss),
            "accuracy": list(self.history.accuracy),
            "held_out": list(self.history.held_out),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a run where `state` left it.

        Raises:
            CheckpointError: The state does not fit this run, or is of another generator.
            ConfigError: The optimizer is given what it cannot change any more.
        """
        recorded, generator = state.get("weights_sha256"), self.step.generator
        if recorded is not None and recorded != generator.weights_sha256:  # states of before have none
            raise CheckpointError(
                f"{self.run / RESUME_FILE} is of a {generator.name} with other weights: bring those back, or train anew"
                " into another folder"
            )
        try:
            self.step.directions.load_state_dict(state["directions"])
            self.step.projector.load_state_dict(state["projector"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self._change_arguments(state["config"]["hparams"]["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.iteration, self.best_loss = int(state["iteration"]), float(state["best_loss"])
            self.history = History(
                [float(v) for v in state["loss"]],
                [float(v) for v in state["accuracy"]],
                [(int(at), float(loss), float(accuracy)) for at, loss, accuracy in state["held_out"]],
            )
            for name in ("loss", "accuracy"):
                if self.iteration < 0 or len(getattr(self.history, name)) != self.iteration:
                    raise ValueError(f"{len(getattr(self.history, name))} entries of {name} in {self.iteration} steps")
            finite = all_finite(tensors_in(state))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(f"{self.run / RESUME_FILE} does not fit this run: {first_reason(error)}") from None
        if not finite:
            raise CheckpointError(f"{self.run / RESUME_FILE} holds numbers that are not finite: train anew{ADVICE}")

    def take_best(self, source: Path, before: TrainConfig) -> None:
        """Keep the best checkpoint of the run that goes on, or look for the best anew from here, and say why.

        Args:
            source: The folder of that run, whose best checkpoint is copied if this run has another one.
            before: Its configuration: losses under other settings are no worse and no better.

        Raises:
            SaveError: The disk is full or the folder cannot be written.
        """
        if math.isinf(self.best_loss):
            return
        was, now = _measured_by(before), _measured_by(self.config)
        reason, best = ", ".join(key for key in was if was[key] != now[key]), None
        reason = f"{reason} changed, and losses before and after cannot be compared" if reason else ""
        elsewhere = source.resolve() != self.run.resolve()
        if not reason:
            try:
                best = load_checkpoint(source / "best.safetensors")
                if elsewhere and best.loss != self.best_loss:  # it went on meanwhile
                    reason = f"{best.path} is not of the state that is resumed"
            except CheckpointError as error:
                reason = str(error)
        if self.processes.any(bool(reason)):
            self.best_loss = float("inf")
            if self.processes.first:
                logger.info("the best checkpoint is looked for anew from step %d on: %s", self.iteration, reason)
        elif best is not None and elsewhere and self.config.save and self.processes.first:
            write_checkpoint(self.run / "best.safetensors", best)

    def _change_arguments(self, saved: Mapping[str, Any]) -> None:
        """Give the optimizer what differs from the saved configuration; the schedule's progress stays in the rate.

        Raises:
            ConfigError: It needs more for that than the run has.
        """
        for key, value in self.config.hparams.optimizer.items():
            if key == "name" or value == saved.get(key):
                continue
            for group in self.optimizer.param_groups:
                if key != "lr" and group.get(key) == value:
                    continue
                if key not in CHANGEABLE:
                    known = ", ".join(name for name in CHANGEABLE if name in group)
                    raise ConfigError(f"hparams.optimizer.{key} cannot be changed on resume (what can: {known})")
                if (key == "lr" and not group["initial_lr"]) or (key == "momentum" and not group[key]):
                    raise ConfigError(f"hparams.optimizer.{key} is 0 in this run and cannot be changed on resume")
                if key == "lr":
                    group["lr"] *= value / group["initial_lr"]
                    group["initial_lr"] = value
                    self.scheduler.base_lrs = [value]
                else:
                    group[key] = value

    def fit(self) -> bool:
        """Train to `hparams.iterations`, or until Ctrl-C.

        Returns:
            True if the run is complete, False if it was interrupted; either way it is saved.

        Raises:
            LatentCLRError: The loss, a gradient or the state is not finite any more, or the disk is full.
        """
        config, first = self.config, self.processes.first
        total = config.hparams.iterations
        if first and self.step.options.rounding is not None and self.iteration < total:
            rng = stream(config.seed, "rounding")
            logger.info("%s", measure_rounding(self.step, self.step.sample(min(config.hparams.batch_size, 4), rng)))
        bar = progress_bar(total, "step", initial=self.iteration, disable=not first or self.watch is not None)
        with bar, interruptible() as signalled, self._events() as events:

            def interrupted() -> bool:
                return signalled() or (self.watch is not None and self.watch(self.iteration, total))

            module: nn.Module = self.step
            if self.processes.world > 1:  # torch aborts the process where Ctrl-C comes while this is made
                # No buffers at each step: the generator's never change, and batch statistics are shared before they
                # count.
                module = DistributedDataParallel(self.step, broadcast_buffers=False)
            while True:
                stop = self.processes.any(interrupted())
                if not stop and self._evaluation_due():
                    stop = not self._evaluate(events, interrupted)
                if stop or (self.iteration and (self.iteration % config.save_freq == 0 or self.iteration == total)):
                    self.save()
                if stop or self.iteration >= total:
                    return not stop
                loss, accuracy = self._one(module)
                if events is not None:
                    events.add_scalar("Loss/train", loss, self.iteration)
                    events.add_scalar("Acc/train", accuracy, self.iteration)
                bar.set_postfix(loss=f"{loss:.4f}", acc=f"{accuracy:.3f}", refresh=False)
                bar.update()

    def save(self) -> None:
        """Write `last.safetensors` and `resume.pt`.

        Raises:
            SaveError: The disk is full; the files that stood there before are untouched.
            LatentCLRError: The state is not finite; what was saved before stays.
        """
        if self.processes.any(not all_finite(tensors_in(self.state()))):
            raise self._diverged(f"the state is not finite after step {self.iteration}")
        if self.config.save and self.processes.first:
            loss = self.history.held_out[-1][1] if self.history.held_out else None
            self._save_weights("last", loss)
            save_resume(self.run / RESUME_FILE, self.state())

    def _one(self, module: nn.Module) -> tuple[float, float]:
        self.step.train()
        self.step.projector.train(self.config.train_projector)
        rng = stream(self.config.seed, "train", self.iteration, self.processes.rank)
        batch = self.step.sample(self.config.hparams.batch_size, rng)
        self.optimizer.zero_grad()
        loss, accuracy = module(batch)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # All numbers cross to the CPU at once, and are judged before anything is changed by them.
        loss_now, accuracy_now, norm_now = torch.stack([loss.detach(), accuracy, norm.to(loss.device)]).tolist()
        scale = self.scaler.get_scale()
        # A scaled fp16 gradient may overflow: the scaler skips that step and lowers its factor, while there is any.
        usable = math.isfinite(norm_now) or (self.scaler.is_enabled() and scale > 1) or all_finite(gradients)
        loss_now, accuracy_now, unusable = self.processes.mean(loss_now, accuracy_now, float(not usable))
        if not math.isfinite(loss_now):
            raise self._diverged(f"the loss became {loss_now} at step {self.iteration + 1}")
        if unusable:
            raise self._diverged(f"the gradient is not finite at step {self.iteration + 1}")
        if self.config.hparams.grad_clip_max_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.hparams.grad_clip_max_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # fp16 skips a step whose gradients overflowed; so must the schedule
            self.scheduler.step()
        self.iteration += 1
        self.history.loss.append(loss_now)
        self.history.accuracy.append(accuracy_now)
        return loss_now, accuracy_now

    def _diverged(self, what: str) -> LatentCLRError:
        saved = self.config.save and (self.run / RESUME_FILE).is_file()
        state = f"the last good state is in {self.run}" if saved else "nothing was saved yet"
        return LatentCLRError(f"{what}{ADVICE}; {state}")

    def _evaluation_due(self) -> bool:
        # Asked before each step, not after: a run that was stopped in an evaluation does it again when resumed.
        if self.history.held_out and math.isinf(self.best_loss):  # see `take_best`
            return True
        done = self.history.held_out[-1][0] if self.history.held_out else 0
        at_end = self.iteration == self.config.hparams.iterations
        return done != self.iteration and (self.iteration % self.config.eval_freq == 0 or at_end)

    def _evaluate(self, events: Any, interrupted: Callable[[], bool]) -> bool:
        config, before = self.config, self.history.held_out[-1][0] if self.history.held_out else 0
        for trained in (self.step.directions, self.step.projector):
            self.processes.share_buffers(trained)
        self._orient()
        measured = held_out(
            self.step,
            config.hparams.batch_size,
            config.eval_iters,
            config.seed,
            processes=self.processes,
            interrupted=interrupted if self.processes.world == 1 else None,  # several finish together
        )
        if measured is None:
            return False
        loss, accuracy = measured
        if not math.isfinite(loss):
            raise self._diverged(f"the held-out loss became {loss} at step {self.iteration}")
        self.history.held_out.append((self.iteration, loss, accuracy))
        window = self.history.loss[before:] or [float("nan")]
        if self.processes.first:
            logger.info(
                "step %d: train loss %.4f, held-out loss %.4f, held-out accuracy %.3f, learning rate %.2g",
                self.iteration, sum(window) / len(window), loss, accuracy, self.optimizer.param_groups[0]["lr"],
            )  # fmt: skip
        if events is not None:
            events.add_scalar("Loss/val", loss, self.iteration)
            events.add_scalar("Acc/val", accuracy, self.iteration)
        if loss < self.best_loss:
            self.best_loss = loss
            if config.save and self.processes.first:
                self._save_weights("best", loss)
        return True

    def _orient(self) -> None:
        """Give directions the axes that follow from their present weights, whatever was saved or measured before."""
        directions, generator = self.step.directions, self.step.generator
        if isinstance(directions, MLPDirections) and directions.orient:
            with torch.no_grad():
                rng, device = stream(self.config.seed, "axes"), self.processes.device
                z, classes = generator.sample(AXIS_CODES, rng), generator.sample_classes(AXIS_CODES, rng)
                directions.set_axes(generator.encode(z.to(device), None if classes is None else classes.to(device)))

    def _save_weights(self, name: str, loss: float | None) -> None:
        self._orient()
        save_checkpoint(
            self.run / f"{name}.safetensors",
            self.step.directions,
            self.step.projector,
            config=plain(self.config),
            generator=self.step.generator,
            iteration=self.iteration,
            loss=loss,
        )

    @contextlib.contextmanager
    def _events(self) -> Iterator[Any]:
        if not (self.config.tensorboard and self.processes.first):
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter

        hook = threading.excepthook  # the writer's thread would print what is raised again here
        threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else hook(args)
        try:
            with SummaryWriter(str(self.run), purge_step=self.iteration + 1 if self.iteration else None) as events:
                yield events
        except OSError as error:
            reason = error.strerror or error
            raise SaveError(f"could not write TensorBoard events to {self.run}: {reason}") from error
        finally:
            threading.excepthook = hook


def _measured_by(config: TrainConfig) -> dict[str, Any]:
    """Return what the held-out loss depends on besides what is trained."""
    told = plain(config)
    sections = {name: told[name] for name in ("generator", "loss")}
    found = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    for key in ("generator.name", "generator.weights"):  # where they lie says nothing of them
        found.pop(key, None)
    alone = {key: told[key] for key in ("seed", "eval_iters", "feed_layers", "mixed_precision")}
    return {
        **found,
        **alone,
        "model.alpha": told["model"]["alpha"],
        "hparams.batch_size": told["hparams"]["batch_size"],
    }


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag that is read between steps; a second one stops at once."""
    flags: list[int] = []

    def note(number: int, frame: Any) -> None:
        if flags:
            raise KeyboardInterrupt
        flags.append(number)

    watched = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, note) for number in watched}
    except ValueError:  # not the main thread: whoever called us handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(flags)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
