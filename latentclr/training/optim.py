"""Optimizers and schedules by name, with their arguments checked before training starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from latentclr.errors import ConfigError, nearest

Scheduler = torch.optim.lr_scheduler.LRScheduler


def build_optimizer(spec: Mapping[str, Any], parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make an optimizer.

    Args:
        spec: `name`, any class of `torch.optim`, and its arguments.
        parameters: What to optimise.

    Raises:
        ConfigError: No such class, or it does not take these arguments.
    """
    known = {n: c for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)}
    del known["Optimizer"], known["LBFGS"], known["SparseAdam"]  # a base class, one that needs a closure, sparse only
    optimizer: torch.optim.Optimizer = _build("hparams.optimizer", known, spec, list(parameters))
    return optimizer


def build_scheduler(spec: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Scheduler:
    """Make a learning-rate schedule that is stepped once per iteration.

    Args:
        spec: `name` and arguments: `ConstantLR` alone leaves the rate as it is; `ExponentialDecayLR(decay_steps,
            decay_rate, staircase)` is Keras's, rate * decay_rate ** (step / decay_steps); any other name is a class of
            `torch.optim.lr_scheduler`.
        optimizer: Whose rate to schedule.

    Raises:
        ConfigError: No such class, or it does not take these arguments.
    """
    schedulers = torch.optim.lr_scheduler
    known: dict[str, Callable[..., Any]] = {
        n: c for n, c in vars(schedulers).items() if inspect.isclass(c) and issubclass(c, Scheduler) and n[0] != "_"
    }
    for name in (
        "LRScheduler",
        "ReduceLROnPlateau",
        "LambdaLR",
        "MultiplicativeLR",
        "ChainedScheduler",
        "SequentialLR",
    ):
        known.pop(name, None)  # they need a metric, a function or other schedulers
    for length in ("step_size", "T_max", "decay_steps"):  # torch divides by them, some only at a later step
        if spec.get(length) == 0:
            raise ConfigError(f"hparams.scheduler.{length} must not be 0")
    known |= {"ConstantLR": constant_lr, "ExponentialDecayLR": exponential_decay_lr}
    scheduler: Scheduler = _build("hparams.scheduler", known, spec, optimizer)
    return scheduler


def constant_lr(optimizer: torch.optim.Optimizer) -> Scheduler:
    """Keep the learning rate."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def exponential_decay_lr(
    optimizer: torch.optim.Optimizer, decay_steps: int, decay_rate: float, staircase: bool = False
) -> Scheduler:
    """Decay as Keras does: rate * decay_rate ** (step / decay_steps), whole powers only if `staircase`."""

    def factor(step: int) -> float:
        return float(decay_rate ** (step // decay_steps if staircase else step / decay_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _build(key: str, known: Mapping[str, Callable[..., Any]], spec: Mapping[str, Any], target: Any) -> Any:
    arguments = dict(spec)
    name = str(arguments.pop("name", None))
    if name not in known:
        raise ConfigError(f"{key}.name: torch has no {name!r} that fits{nearest(name, known)}")
    accepted = list(inspect.signature(known[name]).parameters)[1:]
    for argument in arguments:
        if argument not in accepted:
            hint = nearest(argument, accepted)
            raise ConfigError(f"{key}: {name} takes no {argument!r}{hint} (it takes {', '.join(accepted)})")
        if isinstance(arguments[argument], Mapping):
            raise ConfigError(f"{key}.{argument} must be a value or a list, got a table")
    try:
        return known[name](target, **arguments)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ConfigError(f"{key}: {name}: {error}") from None
