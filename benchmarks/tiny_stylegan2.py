"""Train a StyleGAN2 of 32 pixels on the faces that the DCGAN draws, for what wants a trained style network on a CPU.

    python benchmarks/tiny_stylegan2.py outputs/tiny/stylegan2.safetensors

It learns to draw of each z what the DCGAN draws of it (distillation: no discriminator, so a few minutes are enough), in
the format of rosinality's files. That makes a smooth generator with a W that means something, and nothing to be proud
of: details that the DCGAN has are averaged away.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from common.report import Benchmark
from references.grouped_stylegan2 import GroupedStyleGAN2
from safetensors.torch import save_file
from torch import Tensor

from latentclr.files import replacing
from latentclr.generators.dcgan import load_dcgan
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import EPS, StyleGAN2
from latentclr.progress import progress_bar
from latentclr.training.rng import stream

SIZE, MAPPING, WIDTH = 32, 4, 64  # pixels; layers; channels of the widest layer
BATCH, RATE, MAPPING_RATE = 8, 3e-3, 0.1
AVERAGED = 10_000  # codes whose mean w is the centre of truncation


class SharedStyleGAN2(GroupedStyleGAN2):
    """The same with one weight for the whole batch, whose gradient takes less time.

    Styles scale what comes in and what goes out (Karras et al., arXiv 1912.04958, equations 1 and 3).
    """

    def _modulated(self, x: Tensor, w: Tensor, name: str, *, demodulate: bool, up: bool) -> Tensor:
        affine = self._get(f"{name}.conv.modulation.weight")  # [I, D]
        s = F.linear(w, affine / math.sqrt(affine.shape[1]), self._get(f"{name}.conv.modulation.bias"))  # [N, I]
        weight = self._get(f"{name}.conv.weight")[0]  # [O, I, k, k]
        weight = weight / math.sqrt(weight[0].numel())
        x = x * s[:, :, None, None]
        if up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        if not demodulate:
            return x
        norm = torch.rsqrt(s.square() @ weight.square().sum((2, 3)).T + EPS)  # [N, O]
        return x * norm[:, :, None, None]

    def _upfirdn(self, x: Tensor, kernel: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        """Filter along rows and columns, as sums: the kernel is the product of its sums."""
        if up > 1:
            n, c, h, w = x.shape
            x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
        x = F.pad(x, (*pad, *pad))
        for axis, taps in ((2, kernel.sum(1)), (3, kernel.sum(0) / kernel.sum())):
            length = x.shape[axis] - len(taps) + 1
            x = torch.stack([tap * x.narrow(axis, i, length) for i, tap in enumerate(taps.flip(0))]).sum(0)
        return x


@click.command(cls=Benchmark)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--steps", type=click.IntRange(1), default=4000, show_default=True, help="Of 8 faces.")
def main(path: Path, steps: int) -> None:
    """Write the weights to PATH; end in one JSON line."""
    teacher = load_dcgan(None)
    tensors = random_tensors(SIZE, n_mlp=MAPPING, dim=teacher.latent.dim, width=WIDTH)
    student = SharedStyleGAN2(StyleGAN2(dict(tensors)), tensors)
    learnt = {name: tensor for name, tensor in student.table.items() if tensor.requires_grad}
    mapping = [tensor for name, tensor in learnt.items() if name.startswith("style/")]
    rest = [tensor for name, tensor in learnt.items() if not name.startswith("style/")]
    # A mapping learns a hundred times slower by itself, which is for GANs that train for days.
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": mapping, "lr": MAPPING_RATE}]
    optimizer = torch.optim.Adam(groups, lr=RATE, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = stream(0, "tiny-stylegan2")
    with progress_bar(steps, "step", desc="distilling") as bar:
        for _ in range(steps):
            z = torch.randn(BATCH, teacher.latent.dim, generator=rng)  # [N, D]
            with torch.no_grad():
                faces = F.avg_pool2d(teacher.synthesize(z[:, None]), 2)  # [N, 3, 32, 32]
            loss = F.mse_loss(
                student.synthesize(student.encode(z)[:, None].expand(-1, student.latent.layers, -1)), faces
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            bar.update()
    with torch.no_grad():
        average = student.encode(torch.randn(AVERAGED, teacher.latent.dim, generator=rng)).mean(0)  # [D]
    weights = {name.replace("/", "."): tensor.detach().clone() for name, tensor in student.table.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file({**weights, "latent_avg": average}, temporary)
    click.echo(json.dumps({"weights": str(path), "steps": steps, "mean_square_difference": round(loss.item(), 4)}))


if __name__ == "__main__":
    main()
