"""Train a StyleGAN2 of 32 pixels on the faces that the DCGAN draws, for what wants a trained style network on a CPU.

    python benchmarks/tiny_stylegan2.py outputs/tiny/stylegan2.safetensors

It learns to draw of each z what the DCGAN draws of it (distillation: no discriminator, so a few minutes are enough), in
the format of rosinality's files. That makes a smooth generator with a W that means something, and nothing to be proud
of: details that the DCGAN has are averaged away.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from common.report import Benchmark
from references.grouped_stylegan2 import GroupedStyleGAN2
from safetensors.torch import save_file

from latentclr.files import replacing
from latentclr.generators.dcgan import load_dcgan
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.progress import progress_bar
from latentclr.training.rng import stream

SIZE, MAPPING, WIDTH = 32, 4, 64  # pixels; layers; channels of the widest layer
BATCH, RATE = 16, 2e-3
AVERAGED = 10_000  # codes whose mean w is the centre of truncation


@click.command(cls=Benchmark)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--steps", type=click.IntRange(1), default=4000, show_default=True, help="Of 16 faces.")
def main(path: Path, steps: int) -> None:
    """Write the weights to PATH; end in one JSON line."""
    teacher = load_dcgan(None)
    tensors = random_tensors(SIZE, n_mlp=MAPPING, dim=teacher.latent.dim, width=WIDTH)
    student = GroupedStyleGAN2(StyleGAN2(dict(tensors)), tensors)
    learnt = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=RATE, betas=(0.0, 0.99))
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
