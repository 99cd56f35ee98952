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

TILE, GAP, TOP, LEFT = 80, 2, 26, 118  # pixels
INK, QUIET, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seeds", default="7,22", show_default=True, help="Faces to edit.")
@click.option("--panels", default=2, show_default=True, help="Columns of directions.")
@click.option("--output", "-o", type=click.Path(path_type=Path), default=Path("faces.png"), show_default=True)
def main(repository: Path, seeds: str, panels: int, output: Path) -> None:
    """Serve REPOSITORY, move every slider of some faces from end to end, save one picture."""
    faces = [int(seed) for seed in seeds.split(",")]
    click.echo("starting Triton ...")
    with TritonServer(repository, ports=Ports(0, 0, 0)) as server, EditClient(server.grpc_url) as client:
        manifest, started = client.manifest, time.perf_counter()
        ranges: dict[int | str, tuple[float, float]] = {name: edit.alpha for name, edit in manifest.edits.items()}
        named = {edit.direction for edit in manifest.edits.values()}
        twins = {k for k, score in enumerate(manifest.directions.scores) if score.twin_of is not None}
        ranges |= {
            k: manifest.directions.range_of(k) for k in range(manifest.directions.count) if k not in named | twins
        }
        strips = [
            np.concatenate([client.sweep(seed, key, [low, 0.0, high]).images for seed in faces])
            for key, (low, high) in ranges.items()
        ]  # R x [faces * 3, H, W, 3]
        seconds = time.perf_counter() - started
    labels = [(str(key), f"{low:+.1f} to {high:+.1f}") for key, (low, high) in ranges.items()]
    save_image(draw(strips, labels, ["-", "0", "+"] * len(faces), panels), output)
    images = sum(map(len, strips))
    click.echo(f"{images} edited faces in {seconds:.1f} s from Triton; look at {output}")


def draw(
    strips: Sequence[np.ndarray], labels: Sequence[tuple[str, str]], columns: Sequence[str], panels: int
) -> Image.Image:
    """Draw one strip for each slider beside its name and range, in several panels side by side."""
    rows = -(-len(strips) // panels)
    width = LEFT + len(columns) * (TILE + GAP) + 14
    picture = Image.new("RGB", (panels * width, TOP + rows * (TILE + GAP)), PAPER)
    pen, font, small = ImageDraw.Draw(picture), ImageFont.load_default(14), ImageFont.load_default(11)
    for r, (strip, (name, span)) in enumerate(zip(strips, labels, strict=True)):
        x, y = (r // rows) * width, TOP + (r % rows) * (TILE + GAP)
        pen.text((x + LEFT - 8, y + TILE / 2 - 9), name, fill=INK, font=font, anchor="rm")
        pen.text((x + LEFT - 8, y + TILE / 2 + 9), span, fill=QUIET, font=small, anchor="rm")
        for i, image in enumerate(strip):
            left = x + LEFT + i * (TILE + GAP)
            if r % rows == 0:
                pen.text((left + TILE / 2, TOP / 2), columns[i], fill=INK, font=font, anchor="mm")
            picture.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, y))
    return picture


if __name__ == "__main__":
    main()
