"""Random streams: one for each purpose, independent of everything else."""

import pytest
import torch

from latentclr.config import TrainConfig
from latentclr.errors import ConfigError
from latentclr.training.distributed import resolve_device
from latentclr.training.rng import stream


def draw(*what):
    return torch.randn(4, generator=stream(*what)).tolist()


def test_streams():
    assert draw(0, "train", 5) == draw(0, "train", 5)
    # As they are used: (seed, "train", step, rank), (seed, "eval", batch), (seed, "init").
    others = [
        draw(0, "train", 5, 0),
        draw(0, "train", 5, 1),
        draw(0, "train", 6, 0),
        draw(0, "train", 0, 5),
        draw(1, "train", 5, 0),
        draw(0, "eval", 5),
        draw(0, "eval", 6),
        draw(0, "init"),
    ]
    assert len({tuple(values) for values in others}) == len(others)


def test_streams_leave_the_global_one_alone():
    before = torch.get_rng_state()
    draw(3, "x")
    assert torch.equal(before, torch.get_rng_state())


def test_devices():
    assert resolve_device(TrainConfig(device="cpu")) == torch.device("cpu")
    for name in ("tpu", "mps", "meta", "", "cuda:x"):
        with pytest.raises(ConfigError, match="device must be cpu, cuda or cuda:N, got"):
            resolve_device(TrainConfig(device=name))
    if not torch.cuda.is_available():
        assert resolve_device(TrainConfig(device="cuda:0")) == torch.device("cpu")
        with pytest.raises(ConfigError, match="there is no GPU here"):
            resolve_device(TrainConfig(device="cuda:0", auto_cpu_if_no_gpu=False))
