"""`latentclr check`."""

from __future__ import annotations

from itertools import chain

import click

from latentclr.cli import Configured


class ConfiguredCheck(Configured):
    """`check`, which takes a generator's options."""

    keys = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say where options are listed."""
        with formatter.section("Options, as KEY=VALUE"):
            formatter.write_text("generator= and generator.KEY=, as latentclr train --help lists them.")
        click.Command.format_epilog(self, ctx, formatter)


@click.command(cls=ConfiguredCheck)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="generator=NAME|FILE.py:FUNCTION [KEY=VALUE]...")
def check(overrides: tuple[str, ...]) -> None:
    """Say whether a generator can be used, and what to write where it cannot.

    The same code must draw the same picture, whatever else is in the batch; pixels must be finite and in [-1, 1],
    weights frozen, and features have gradients to the code. Both graphs are exported and compared with PyTorch. The
    exit code is 0 if all of it holds, else 2.

    \b
    Examples:
      latentclr check generator=dcgan
      latentclr check generator=examples/painted_eyes.py:eyes
    """
    from export.conformance import export_findings, layer_lines, protocol_findings
    from export.errors import ExportError
    from latentclr.compose import compose_train, parse_overrides
    from latentclr.errors import ConfigError
    from latentclr.generators.registry import build_generator

    parsed = parse_overrides(overrides)
    if others := sorted(key for key in parsed.keys if key.partition(".")[0] != "generator"):
        raise ConfigError(f"latentclr check takes generator= and generator.KEY=, got {others[0]}")
    if parsed.value("generator") is None:
        raise ConfigError("expected generator=NAME or generator=FILE.py:FUNCTION")
    config = compose_train(parsed)
    generator = build_generator(config.generator)
    layer = generator.check_layer(config.generator.feature_layer)
    latent, (height, width) = generator.latent, generator.size
    numbers = sum(parameter.numel() for parameter in generator.parameters())
    codes = f"{latent.dim} numbers" if latent.layers == 1 else f"{latent.dim} numbers at {latent.layers} latent inputs"
    classes = "" if generator.class_names is None else f", {len(generator.class_names)} classes"
    click.echo(
        f"{generator.name}: codes of {codes} ({latent.sampler}), pictures of {width} x {height} pixels{classes},"
        f" {numbers:,} weights{' of seeded noise' * generator.random_weights}"
    )
    click.echo(f"weights SHA-256 {generator.weights_sha256 or 'none'}")
    failed = []
    for finding in chain(protocol_findings(generator, layer), export_findings(generator)):
        click.echo(f"{'ok  ' if finding.good else 'FAIL'}  {finding.name}: {finding.text}")
        if finding.advice and not finding.good:
            click.echo(f"      -> {finding.advice}")
        failed += [] if finding.good else [finding.name]
    for line in layer_lines(generator, layer):
        click.echo(f"      {line}")
    click.echo("      * the layer that a run would look at; another with generator.feature_layer=NAME")
    if failed:
        raise ExportError(f"{generator.name} cannot be used everywhere yet: {', '.join(failed)}")
