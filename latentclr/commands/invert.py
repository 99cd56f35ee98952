"""`latentclr invert`: pictures to codes, and the training of the encoder that does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from latentclr.cli import INTERRUPTED, Configured
from latentclr.config import InvertConfig


class PicturesOrTrain(click.Group):
    """A group with one command, `train`; whatever else comes first is a picture."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return `train`, or the command of the pictures, whatever the name of the first."""
        return super().get_command(ctx, cmd_name if cmd_name == "train" else "pictures")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take the pictures' command unless `train` is named."""
        return super().resolve_command(ctx, args if args[:1] == ["train"] else ["pictures", *args])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return what can be named."""
        return ["train"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave options to the pictures' command: the group has none but help."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["pictures", *args]
        return super().parse_args(ctx, args)


class ConfiguredInvert(Configured):
    """`invert train`."""

    schema = InvertConfig
    keys = ("checkpoint", "seed", "save_freq", "device", "output_dir")


@click.group(cls=PicturesOrTrain)
def invert() -> None:
    """Find the codes of pictures of your own: latentclr invert PICTURE... --run RUN -o CODES.npy.

    The run needs an encoder, which `latentclr invert train RUN` makes of the generator's own pictures.
    `latentclr invert PICTURE --help` tells what else can be said.

    \b
    Examples:
      latentclr invert train outputs/faces
      latentclr invert me.jpg --run outputs/faces -o me.npy --steps 100
      latentclr export outputs/faces --with-encoder
    """


@invert.command(cls=ConfiguredInvert)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="RUN|generator=... [KEY=VALUE]...")
def train(words: tuple[str, ...]) -> None:
    """Train an encoder from pictures to codes, on the generator's own pictures: no other data is needed.

    encoder.safetensors and encoder.png (originals, reconstructions, both again as photos are) go into the run folder.
    Call it again after Ctrl-C, and it goes on exactly where it stopped. Without a run: generator=NAME, and
    output_dir=FOLDER.

    \b
    Examples:
      latentclr invert train outputs/faces
      latentclr invert train outputs/faces steps=500 batch=16
      latentclr invert train generator=stylegan2 generator.weights=cats.pt space=w output_dir=outputs/cats
    """
    from latentclr.commands.invert_train import run_invert_train

    if not run_invert_train(words):
        click.get_current_context().exit(INTERRUPTED)


@invert.command("pictures")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PICTURE...")
@click.option("--run", "run", type=click.Path(path_type=Path), required=True,
              help="Run folder with an encoder, see `latentclr invert train`.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), default="codes.npy", show_default=True,
              help="The codes: [N, D], or [N, L, D] of w+. CODES.json and CODES.png lie beside.")  # fmt: skip
@click.option("--steps", type=click.IntRange(0, 100_000), default=0, show_default=True,
              help="Refine that often by gradient; 100 is a good number.")  # fmt: skip
@click.option("--align", type=click.Choice(["auto", "centre"]), default="auto", show_default=True,
              help="auto: a face as the generator has it, if it draws faces; centre: the middle.")  # fmt: skip
@click.option("--face", type=click.IntRange(0), help="Which face, from left to right, where there are several.")
@click.option("--class-id", type=click.IntRange(0), help="Of a class-conditional generator; the run's if not given.")
@click.option("--paste", is_flag=True, help="Also write each reconstruction back into its picture, NAME.pasted.png.")
@click.option("--device", help="cpu, cuda or cuda:N; the run's if not given.")
@click.option("--set", "words", multiple=True, metavar="KEY=VALUE", help="Override the generator's options, such as a "
              "plug-in's generator=FILE.py:FUNCTION.")  # fmt: skip
def pictures(**given: Any) -> None:
    """Find the codes of pictures, and say how near the generator comes to them.

    \b
    Example:
      latentclr invert me.jpg you.png --run outputs/faces -o us.npy --steps 100
      latentclr edit --z us.npy --edit happy=3 -o happy.png
    """
    from latentclr.commands.invert_pictures import run_invert

    words: Sequence[str] = given.pop("words")
    run_invert(**given, words=words)
