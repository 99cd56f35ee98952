"""One process or several: whose device is whose, the reductions, and trainings in two real processes."""

from __future__ import annotations

import json
import signal
import socket
import time

import pytest
import torch
import torch.distributed as dist
from test_training import equal
from torch import nn

from latentclr.commands import run_eval
from latentclr.compose import compose_train
from latentclr.config import TrainConfig
from latentclr.errors import ConfigError
from latentclr.training.checkpoint import load_resume
from latentclr.training.distributed import Processes, processes, resolve_device
from latentclr.training.experiment import new_step
from latentclr.training.optim import build_optimizer, build_scheduler
from latentclr.training.rng import stream


@pytest.fixture
def words(short):
    return [*short, "hparams.iterations=24", "eval_freq=6", "save_freq=5", "projector=linear"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_devices():
    assert resolve_device(TrainConfig(device="cpu")) == torch.device("cpu")
    for name in ("tpu", "mps", "meta", "", "cuda:x"):
        with pytest.raises(ConfigError, match="device must be cpu, cuda or cuda:N, got"):
            resolve_device(TrainConfig(device=name))
    if not torch.cuda.is_available():
        assert resolve_device(TrainConfig(device="cuda:0")) == torch.device("cpu")
        with pytest.raises(ConfigError, match="there is no GPU here"):
            resolve_device(TrainConfig(device="cuda:0", auto_cpu_if_no_gpu=False))


def test_under_torchrun_each_process_has_its_own_gpu(monkeypatch):
    """As on a machine with two GPUs; only asking torch about them is replaced."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    asked = {name: resolve_device(TrainConfig(device=name)) for name in ("cuda", "cuda:1", "cpu")}
    assert asked == {"cuda": torch.device("cuda", 0), "cuda:1": torch.device("cuda", 1), "cpu": torch.device("cpu")}
    with pytest.raises(ConfigError, match=r"device cuda:2: this machine has 2 GPU\(s\)"):
        resolve_device(TrainConfig(device="cuda:2"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device(TrainConfig(device="cuda")) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"device cuda:2: this machine has 2 GPU\(s\)"):
        resolve_device(TrainConfig(device="cuda"))


def test_alone_nothing_is_sent_and_nothing_changes(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(TrainConfig(device="cpu")) as alone:
        assert not dist.is_initialized()
        assert alone == Processes(0, 1, torch.device("cpu"))
        assert alone.first
        assert alone.mean(1.5, -2.0) == [1.5, -2.0]
        assert (alone.any(True), alone.any(False)) == (True, False)
        norm = nn.BatchNorm1d(2)
        norm.running_mean.fill_(3.0)
        alone.share_buffers(norm)
        assert norm.running_mean.tolist() == [3.0, 3.0]


REDUCE = """
import json, os, sys

rank = int(sys.argv[1])
os.environ.update(RANK=sys.argv[1], LOCAL_RANK=sys.argv[1], WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=sys.argv[2])
import torch
from torch import nn
from latentclr.config import TrainConfig
from latentclr.training.distributed import processes

with processes(TrainConfig(device="cpu")) as here:
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank + 1.0)
    norm.weight.data.fill_(rank + 1.0)
    here.share_buffers(norm)
    told = {
        "rank": here.rank, "world": here.world, "first": here.first,
        "mean": here.mean(float(rank), 10.0 ** 9 + rank, -1.0),
        "any": [here.any(rank == 0), here.any(rank == 1), here.any(False), here.any(True)],
        "buffer": norm.running_mean.tolist(), "weight": norm.weight.tolist(),
    }
told["left"] = not torch.distributed.is_initialized()
print(json.dumps(told))
"""


@pytest.mark.slow
def test_two_processes_agree(start):
    """On every mean, on whether any wants to stop, and on the first one's batch statistics; weights stay each's own."""
    port = str(free_port())
    both = [start(str(rank), port, code=REDUCE) for rank in (0, 1)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    for rank, (stdout, _) in enumerate(answers):
        assert json.loads(stdout) == {
            "rank": rank, "world": 2, "first": rank == 0, "mean": [0.5, 10.0**9 + 0.5, -1.0],
            "any": [True, True, False, True], "buffer": [1.0, 1.0], "weight": [rank + 1.0] * 2, "left": True,
        }  # fmt: skip


RANKS = """
import sys
import torch
from latentclr.training import trainer as training
from latentclr.cli import cli

fit, one, folder = training.Trainer.fit, training.Trainer._one, sys.argv[1]

def fit_and_tell(self):
    self.step.generator.register_buffer("mark", torch.zeros(1))
    done = fit(self)
    mark = self.step.generator.get_buffer("mark").item()
    torch.save({**self.state(), "mark": mark}, f"{folder}/rank{self.processes.rank}.pt")
    return done

def mark_and_step(self, module):
    self.step.generator.get_buffer("mark").fill_(self.processes.rank + 1)
    return one(self, module)

training.Trainer.fit, training.Trainer._one = fit_and_tell, mark_and_step
cli(sys.argv[2:], prog_name="latentclr")
"""


def averaged(config, world):
    """Train in one process as `world` processes would: every rank's batch, gradients averaged, rank 0's statistics."""
    step = new_step(config, torch.device("cpu")).train()
    parameters = [p for p in step.parameters() if p.requires_grad]
    optimizer = build_optimizer(config.hparams.optimizer, parameters)
    scheduler = build_scheduler(config.hparams.scheduler, optimizer)
    losses = []
    for i in range(config.hparams.iterations):
        total, values, first = [torch.zeros_like(p) for p in parameters], [], None
        before = {name: b.clone() for name, b in step.named_buffers()}
        for rank in range(world):
            for name, buffer in step.named_buffers():
                buffer.copy_(before[name])
            optimizer.zero_grad()
            loss, _ = step(step.sample(config.hparams.batch_size, stream(config.seed, "train", i, rank)))
            loss.backward()
            values.append(loss.item())
            total = [t + p.grad / world for t, p in zip(total, parameters, strict=True)]
            first = first or {name: b.clone() for name, b in step.named_buffers()}
        for name, buffer in step.named_buffers():
            buffer.copy_(first[name])
        for p, gradient in zip(parameters, total, strict=True):
            p.grad = gradient
        optimizer.step()
        scheduler.step()
        losses.append(sum(values) / world)
    return step, losses


@pytest.mark.slow
def test_two_processes_are_one_with_averaged_gradients(start, words, tmp_path):
    run, script = tmp_path / "run", tmp_path / "ranks.py"
    script.write_text(RANKS)
    # SGD, because Adam turns the rounding of a gradient that is zero into a whole step.
    words = [
        *words,
        "hparams/optimizer=sgd",
        "hparams.iterations=8",
        "eval_freq=4",
        "eval_iters=4",
        f"output_dir={run}",
    ]
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tmp_path, "train",
                    *words)  # fmt: skip
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [rank["mark"] for rank in ranks] == [1, 2]  # nobody sends the frozen generator's buffers around
    for key in ("optimizer", "scheduler", "iteration", "best_loss", "loss", "accuracy", "held_out"):
        assert equal(ranks[0][key], ranks[1][key]), key
    for name, tensor in {**ranks[0]["directions"], **ranks[0]["projector"]}.items():
        other = {**ranks[1]["directions"], **ranks[1]["projector"]}[name]
        assert torch.equal(tensor, other), name
    config = compose_train(words)
    step, losses = averaged(config, 2)
    assert ranks[0]["loss"] == pytest.approx(losses, abs=1e-5)
    for name, tensor in step.directions.state_dict().items():
        assert (tensor - ranks[0]["directions"][name]).abs().max() <= 1e-5, name
    start_weights = new_step(config, torch.device("cpu")).directions.weights[0]
    assert (start_weights - ranks[0]["directions"]["weights.0"]).abs().max() > 1e-3  # it did train
    # One run folder, written by one process; its checkpoint scores what training said.
    assert sorted(p.name for p in run.glob("*.safetensors")) == ["best.safetensors", "last.safetensors"]
    assert run_eval(run, ["checkpoint=last"]).loss == pytest.approx(ranks[0]["held_out"][-1][1], abs=1e-5)


RANK = """
import os, sys

os.environ.update(RANK=sys.argv[1], LOCAL_RANK=sys.argv[1], WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=sys.argv[2])
from latentclr.cli import cli

cli(sys.argv[3:], prog_name="latentclr")
"""


@pytest.mark.full
def test_of_two_trainings_of_several_processes_the_second_is_refused(start, words, tmp_path):
    """Only the first process of each asks for the folder, and all of the second's end: none waits for the others."""
    run = tmp_path / "run"

    def both():
        port = free_port()
        endless = ["hparams.iterations=1000000", "eval_freq=1000000", "save_freq=1000000"]
        return [
            start(str(rank), str(port), "train", *words, *endless, f"output_dir={run}", code=RANK) for rank in (0, 1)
        ]

    first = both()
    deadline = time.monotonic() + 120
    while not (run / ".hydra" / "config.yaml").exists():  # not a run yet that could be resumed
        assert time.monotonic() < deadline and first[0].poll() is None
        time.sleep(0.05)
    second = both()
    errors = [process.communicate(timeout=240)[1] for process in second]
    assert [process.returncode for process in second] == [2, 2], errors
    assert errors[0].startswith(f"Error: {run} is in use by process {first[0].pid} on "), errors
    assert errors[1] == f"Error: the first process of this training cannot have {run}\n"
    assert len(errors[0].splitlines()) == 1
    assert [process.poll() for process in first] == [None, None]
    for process in first:
        process.send_signal(signal.SIGINT)
    errors = [process.communicate(timeout=240)[1] for process in first]
    assert [process.returncode for process in first] == [130, 130], errors
    assert not (run / ".lock").exists()
    assert load_resume(run / "resume.pt")["iteration"] >= 0  # whole, even if they had not begun when Ctrl-C came
