"""One process or several: what torchrun's environment says, and the few reductions that training needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from latentclr.config import TrainConfig
from latentclr.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: In [0, world).
        world: Number of processes.
        device: Where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def mean(self, *values: float) -> list[float]:
        """Average numbers over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor / self.world]

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the first one's buffers (batch statistics), the ones that are saved."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process, so that all stop at the same step."""
        return flag if self.world == 1 else self.mean(float(flag))[0] > 0


def resolve_device(config: TrainConfig) -> torch.device:
    """Return the device that a configuration asks for; under torchrun, this process's own GPU.

    Raises:
        ConfigError: It is no device, or there is no GPU and `auto_cpu_if_no_gpu` is off.
    """
    try:
        device = torch.device(config.device)
    except RuntimeError:
        raise ConfigError(f"device must be cpu, cuda or cuda:N, got {config.device!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be cpu, cuda or cuda:N, got {config.device!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        if not config.auto_cpu_if_no_gpu:
            raise ConfigError(
                f"device {config.device}: there is no GPU here; use device=cpu or auto_cpu_if_no_gpu=true"
            )
        return torch.device("cpu")
    if device.type == "cuda":
        local = os.environ.get("LOCAL_RANK")
        device = torch.device("cuda", int(local) if local is not None else device.index or 0)
        if (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"device {device}: this machine has {torch.cuda.device_count()} GPU(s)")
    return device


@contextlib.contextmanager
def processes(config: TrainConfig) -> Iterator[Processes]:
    """Join the other processes of a torchrun, if any, for the length of a `with` block."""
    device = resolve_device(config)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()
