"""The least that convolutions in bfloat16 or float16 cost in pixels, whoever computes them.

    python benchmarks/bf16_rounding.py --output benchmarks/results/bf16_rounding.json

An engine of a small format rounds the inputs and weights of its convolutions, and then sums, outputs and whatever lies
between. Here the inputs and weights alone are rounded and all else is float32: no engine can be expected to do better.
The price goes with the contrast of the pictures, which stands beside it; BigGAN and StyleGAN2 have random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from common.machine import describe_machine
from common.report import Benchmark, finish
from common.timing import table
from torch import Tensor
from torch.overrides import TorchFunctionMode

from latentclr.config import BigGANConfig, DCGANConfig, GeneratorConfig, StyleGAN2Config
from latentclr.generators.base import Generator
from latentclr.generators.registry import build_generator
from latentclr.pictures.pixels import to_uint8
from latentclr.training.rng import stream

FORMATS = (torch.bfloat16, torch.float16)
CONFIGS: Mapping[str, GeneratorConfig] = {
    "dcgan, 64 px": DCGANConfig(),
    "biggan, 128 px": BigGANConfig(weights="random", resolution=128),
    "stylegan2, 256 px": StyleGAN2Config(weights="random:256"),
}
COLUMNS = ("generator", "format", "contrast", "worst_step", "mean_step")


class RoundedConvolutions(TorchFunctionMode):
    """While it is entered, convolutions round their inputs and weights to a format and compute in float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        """Take the format."""
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, with its first two arguments rounded if it is a convolution."""
        if function in (F.conv2d, F.conv_transpose2d):
            args = (*(argument.to(self.dtype).to(argument.dtype) for argument in args[:2]), *args[2:])
        return function(*args, **(kwargs or {}))


@click.command(cls=Benchmark)
@click.option("--pictures", type=click.IntRange(1), default=12, show_default=True, help="Of each generator.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(pictures: int, note: str | None, output: Path | None) -> None:
    """Measure what rounding the operands of convolutions does to the pictures."""
    start, results = describe_machine(), []
    for name, config in CONFIGS.items():
        generator = build_generator(config)
        exact = _draw(generator, pictures)
        for dtype in FORMATS:
            with RoundedConvolutions(dtype):
                difference = (_draw(generator, pictures) - exact).abs()  # [pictures, H, W, 3]
            results.append({
                "generator": name,
                "format": str(dtype).removeprefix("torch."),
                "contrast": round(float(exact.std()), 1),
                "worst_step": int(difference.max()),
                "mean_step": round(float(difference.mean()), 4),
            })  # fmt: skip
    click.echo(table(results, COLUMNS))
    finish("bf16_rounding", start=start, settings={"pictures": pictures}, results=results, targets=[],
           random_weights=True, note=note, output=output)  # fmt: skip


@torch.no_grad()
def _draw(generator: Generator, count: int) -> Tensor:
    """Return pictures [count, H, W, 3] in [0, 255]; one at a time, to save memory."""
    pictures = []
    for index in range(count):
        rng = stream(0, "rounding", index)
        z, class_id = generator.sample(1, rng), generator.sample_classes(1, rng)
        ps = generator.encode(z)[:, None].expand(-1, generator.latent.layers, -1)  # [1, L, D]
        pictures.append(to_uint8(generator.synthesize(ps, class_id)).float())
    return torch.cat(pictures)


if __name__ == "__main__":
    main()
