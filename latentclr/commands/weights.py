"""The `latentclr weights` commands."""

from __future__ import annotations

from pathlib import Path

import click

from latentclr.errors import GeneratorError
from latentclr.generators.weights.download import WEIGHTS, fetch, lock_file, read_lock, verify, weights_named


@click.group("weights")
def weights() -> None:
    """Fetch pre-trained weights, check them, and say where they are.

    The cache is LATENTCLR_CACHE (default ~/.cache/latentclr). Hashes are pinned on first use in latentclr-weights.lock
    in the working directory (or LATENTCLR_LOCK): commit it, and your team gets the same bytes or an error.

    \b
    Examples:
      latentclr weights list
      latentclr weights fetch biggan-deep-256
      latentclr train generator=biggan generator.weights=$(latentclr weights path biggan-deep-256)
    """


@weights.command("list")
def list_() -> None:
    """List what can be fetched, what is in the cache, and what is pinned."""
    pinned = read_lock()
    for entry in WEIGHTS.values():
        states = ["cached" if entry.cached() else "by hand" if entry.by_hand else "not cached"]
        states += ["pinned"] if all(url in pinned for _, url in entry.files) else []
        click.echo(f"{entry.name:18} {', '.join(states):20} {entry.about}")
    by_hand = [entry for entry in WEIGHTS.values() if entry.by_hand and not entry.cached()]
    if by_hand:
        click.echo(
            "\nby hand: Google Drive gives files of this size to a browser only. Open the address, save the file under"
            "\nthe path, and run `latentclr weights verify NAME`: it compares the SHA-256 with the one in"
            f"\n{lock_file()}, or pins it there."
        )
    for entry in by_hand:
        for file, url in entry.files:
            click.echo(f"  {url}  {entry.folder / file}")


@weights.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch_(names: tuple[str, ...]) -> None:
    """Download weights into the cache; goes on with a download that broke off."""
    for entry in [weights_named(name) for name in names]:
        click.echo(f"{entry.name}: {fetch(entry)}")


@weights.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
def verify_(names: tuple[str, ...]) -> None:
    """Compare cached files with the lock file; all that are cached if no NAME is given."""
    entries = [weights_named(name) for name in names] or [entry for entry in WEIGHTS.values() if entry.cached()]
    for entry in entries:
        for path, digest in verify(entry):
            click.echo(f"{digest}  {path}")
    click.echo(f"{len(entries)} of {len(WEIGHTS)} checked against {lock_file()}" if entries else "nothing is cached")


@weights.command("path")
@click.argument("name")
def path_(name: str) -> None:
    """Print where weights are in the cache, for use as generator.weights=PATH."""
    entry = weights_named(name)
    if not entry.cached():
        raise GeneratorError(f"{name} is not in the cache; {entry.how()}")
    click.echo(entry.path)


@weights.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def convert(source: Path, target: Path) -> None:
    """Rewrite StyleGAN2, StyleGAN3 or R3GAN weights as TARGET.safetensors; nothing in SOURCE is ever run."""
    from latentclr.generators.weights.convert import convert_weights

    convert_weights(source, target)
    click.echo(f"wrote {target}")
