"""Draw what the discovered directions do to real faces, with requests to a real Triton server.

`make demo` runs it on a freshly exported run. Every pixel comes from the server; nothing here imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serving import EditClient, Ports, TritonServer, save_image

TILE, GAP, TOP, LEFT = 80, 2, 26, 34  # pixels
INK, PAPER = (20, 20, 20), (255, 255, 255)


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seeds", default="7,22", show_default=True, help="Faces to edit.")
@click.option("--alphas", default="-6,0,6", show_default=True, help="Strengths.")
@click.option("--panels", default=2, show_default=True, help="Columns of directions.")
@click.option("--output", "-o", type=click.Path(path_type=Path), default=Path("faces.png"), show_default=True)
def main(repository: Path, seeds: str, alphas: str, panels: int, output: Path) -> None:
    """Serve REPOSITORY, walk every direction on some faces, save one picture."""
    faces, strengths = [int(s) for s in seeds.split(",")], [float(a) for a in alphas.split(",")]
    click.echo("starting Triton ...")
    with TritonServer(repository, ports=Ports(0, 0, 0)) as server, EditClient(server.grpc_url) as client:
        started, count = time.perf_counter(), client.manifest.directions.count
        strips = [
            np.concatenate([client.sweep(seed, k, strengths).images for seed in faces]) for k in range(count)
        ]  # K x [faces * alphas, H, W, 3]
        seconds = time.perf_counter() - started
    picture = draw(strips, [f"{a:+g}" if a else "0" for a in strengths] * len(faces), panels)
    save_image(picture, output)
    images = count * len(faces) * len(strengths)
    click.echo(f"{images} edited faces in {seconds:.1f} s from Triton; look at {output}")


def draw(strips: Sequence[np.ndarray], labels: Sequence[str], panels: int) -> Image.Image:
    """Draw one strip for each direction, in several panels side by side."""
    rows = -(-len(strips) // panels)
    width = LEFT + len(labels) * (TILE + GAP) + 14
    picture = Image.new("RGB", (panels * width, TOP + rows * (TILE + GAP)), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for k, strip in enumerate(strips):
        x, y = (k // rows) * width, TOP + (k % rows) * (TILE + GAP)
        pen.text((x + LEFT - 6, y + TILE / 2), str(k), fill=INK, font=font, anchor="rm")
        for i, image in enumerate(strip):
            left = x + LEFT + i * (TILE + GAP)
            if k % rows == 0:
                pen.text((left + TILE / 2, TOP / 2), labels[i], fill=INK, font=font, anchor="mm")
            picture.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, y))
    return picture


if __name__ == "__main__":
    main()
