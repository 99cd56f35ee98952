"""Optimizers and schedules by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from latentclr.errors import ConfigError
from latentclr.training.optim import build_optimizer, build_scheduler


def rates(spec, steps=7, lr=2.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = build_scheduler(spec, optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_exponential_decay_is_kerass():
    spec = {"name": "ExponentialDecayLR", "decay_steps": 3, "decay_rate": 0.5}
    assert rates(spec) == pytest.approx([2.0 * 0.5 ** (step / 3) for step in range(7)])
    assert rates({**spec, "staircase": True}) == pytest.approx([2, 2, 2, 1, 1, 1, 0.5])


def test_multistep_and_constant():
    milestones = {"name": "MultiStepLR", "milestones": [2, 5], "gamma": 0.2}
    assert rates(milestones) == pytest.approx([2, 2, 0.4, 0.4, 0.4, 0.08, 0.08])
    assert rates({"name": "ConstantLR"}) == [2.0] * 7
    assert rates({"name": "StepLR", "step_size": 2, "gamma": 0.1}, 4) == pytest.approx([2, 2, 0.2, 0.2])


def test_optimizers_get_their_arguments():
    parameter = nn.Parameter(torch.ones(2, 2))
    sgd = build_optimizer({"name": "SGD", "lr": 0.1, "momentum": 0.1, "nesterov": True}, [parameter])
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.1, 0.1, True)
    adamw = build_optimizer({"name": "AdamW", "weight_decay": 0.5}, [parameter])
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["weight_decay"] == 0.5


@pytest.mark.parametrize(
    ("build", "spec", "message"),
    [
        ("optimizer", {"name": "Adan"}, r"hparams.optimizer.name: torch has no 'Adan'.*did you mean 'Adam'"),
        ("optimizer", {"lr": 0.1}, "hparams.optimizer.name"),
        ("optimizer", {"name": "LBFGS"}, "no 'LBFGS' that fits"),
        ("optimizer", {"name": "Adam", "learning_rate": 0.1}, r"Adam takes no 'learning_rate'.*it takes lr, betas"),
        ("optimizer", {"name": "Adam", "lr": -1.0}, "Invalid learning rate"),
        ("optimizer", {"name": "Adam", "lr": "fast"}, "hparams.optimizer: Adam"),
        ("scheduler", {"name": "MultiStep"}, "did you mean 'MultiStepLR'"),
        ("scheduler", {"name": "ReduceLROnPlateau"}, "no 'ReduceLROnPlateau' that fits"),
        ("scheduler", {"name": "StepLR"}, "StepLR.*step_size"),
        ("scheduler", {"name": "ExponentialDecayLR", "decay_step": 1}, "did you mean 'decay_steps'"),
        ("scheduler", {"name": "ConstantLR", "factor": 0.5}, "ConstantLR takes no 'factor'"),
    ],
)  # fmt: skip
def test_refused(build, spec, message):
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=message):
        if build == "optimizer":
            build_optimizer(spec, [parameter])
        else:
            build_scheduler(spec, torch.optim.SGD([parameter], lr=0.1))


def torchs_own(name, arguments, steps):
    """Learning rates of a class of torch, made without us; None if torch cannot make it of these arguments."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    try:
        scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
        seen = []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    return seen


# They need a metric, a function, or schedulers as objects; or they are no schedule, or not torch's ConstantLR.
NO_SCHEDULES = {"LRScheduler", "ReduceLROnPlateau", "LambdaLR", "MultiplicativeLR", "ChainedScheduler", "SequentialLR"}


@pytest.mark.parametrize("name", sorted(n for n, c in vars(torch.optim.lr_scheduler).items() if inspect.isclass(c)))
@pytest.mark.parametrize("arguments", [{}, {"gamma": 0.5}, {"T_max": 3}, {"step_size": 2}, {"milestones": [1, 2]},
                                       {"schedulers": [1], "milestones": [1]}, {"T_max": 0}, {"step_size": 0},
                                       {"decay_steps": 0, "decay_rate": 0.1}])  # fmt: skip
def test_a_scheduler_is_torchs_own_or_refused(name, arguments):
    """No name is a crash: where torch can make it we give the same rates, and everything else is one line."""
    own = torchs_own(name, arguments, 4)
    if name == "ConstantLR":  # torch's is another: it starts at a third of the rate
        own = [2.0] * 4 if arguments == {} else None
    if own is None or name in NO_SCHEDULES or not issubclass(
        getattr(torch.optim.lr_scheduler, name), torch.optim.lr_scheduler.LRScheduler
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"hparams\.scheduler") as caught:
            rates({"name": name, **arguments}, 4)
        assert "\n" not in str(caught.value)
    else:
        assert rates({"name": name, **arguments}, 4) == own


NO_OPTIMIZERS = {"Optimizer", "LBFGS", "SparseAdam"}  # a base class, one that needs a closure, sparse gradients only


@pytest.mark.parametrize("name", sorted(n for n, c in vars(torch.optim).items() if inspect.isclass(c)))
def test_an_optimizer_is_torchs_own_or_refused(name):
    def moved(build):
        parameters = [nn.Parameter(torch.ones(2, 3, 3)), nn.Parameter(torch.ones(3))]
        optimizer = build(parameters)
        sum(p.square().sum() for p in parameters).backward()
        optimizer.step()
        return parameters

    try:
        own = moved(getattr(torch.optim, name)) if name not in NO_OPTIMIZERS else None
    except (TypeError, ValueError):  # such as Muon, which wants matrices
        own = None
    if own is None:
        with pytest.raises(ConfigError, match=r"hparams\.optimizer") as caught:
            moved(lambda parameters: build_optimizer({"name": name}, parameters))
        assert "\n" not in str(caught.value)
        return
    for ours, theirs in zip(moved(lambda parameters: build_optimizer({"name": name}, parameters)), own, strict=True):
        assert torch.equal(ours, theirs)
        assert (ours != 1).all()  # it did move
