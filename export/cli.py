"""`latentclr export`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from latentclr.cli import Configured, split_run


@click.command(cls=Configured)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[RUN] [KEY=VALUE]...")
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False), default=Path("model_repository"),
              show_default=True, help="Triton model repository to publish to.")  # fmt: skip
@click.option(
    "--name", default="latent_edit", show_default=True, help="Model name; the TorchScript twin adds _torchscript."
)
@click.option("--max-batch-size", type=click.IntRange(1, 256), default=16, show_default=True,
              help="Rows that Triton may put together.")  # fmt: skip
@click.option("--opset", type=click.IntRange(18, 20), default=18, show_default=True, help="ONNX operator set.")
@click.option("--config-path", type=click.Path(path_type=Path), help="The run folder, in the origin's form.")
def export(
    words: tuple[str, ...], repository: Path, name: str, max_batch_size: int, opset: int, config_path: Path | None
) -> None:
    """Fuse a run's directions with their generator, prove parity, publish for Triton.

    RUN is a run folder; KEY=VALUE are overrides of its configuration, such as checkpoint=last.

    \b
    Example:
      latentclr export outputs/faces --repository model_repository --name latent_edit
    """
    from export.pipeline import export_run

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise click.UsageError(f"--name must be letters, digits, _ . or -, got {name!r}")
    run, overrides = split_run(words, config_path)
    for folder in export_run(
        run, overrides, repository, name, max_batch_size=max_batch_size, opset=opset, say=click.echo
    ):
        click.echo(f"published {folder}")
    click.echo(f"serve it: latentclr serve --repository {repository}")
