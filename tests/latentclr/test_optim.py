"""Optimizers and schedules by name."""

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
    assert sgd.defaults["nesterov"] is True
    assert isinstance(build_optimizer({"name": "AdamW", "weight_decay": 0.5}, [parameter]), torch.optim.AdamW)


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


@pytest.mark.parametrize("name", sorted(n for n, c in vars(torch.optim.lr_scheduler).items() if inspect.isclass(c)))
@pytest.mark.parametrize("arguments", [{}, {"schedulers": [1], "milestones": [1]}, {"T_max": 0}, {"step_size": 0},
                                       {"decay_steps": 0, "decay_rate": 0.1}])  # fmt: skip
def test_no_scheduler_name_is_a_crash(name, arguments):
    try:
        rates({"name": name, **arguments}, 2)
    except ConfigError as error:
        assert "hparams.scheduler" in str(error)


@pytest.mark.parametrize("name", sorted(n for n, c in vars(torch.optim).items() if inspect.isclass(c)))
def test_no_optimizer_name_is_a_crash(name):
    parameters = [nn.Parameter(torch.ones(2, 3, 3)), nn.Parameter(torch.ones(3))]
    try:
        optimizer = build_optimizer({"name": name}, parameters)
    except ConfigError as error:
        assert "hparams.optimizer" in str(error)
    else:
        sum(p.square().sum() for p in parameters).backward()
        optimizer.step()
