"""The `latentclr` command: train, eval, gen here; export's and serving's commands are loaded by name when asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from latentclr import __version__
from latentclr.catalog import NamedGenConfig
from latentclr.config import GROUPS, Line, ScoreConfig, TrainConfig, option_sections, own_lines
from latentclr.errors import of_the_machine

COMMANDS_ELSEWHERE = {
    "name": "latentclr.commands.names:name",
    "names": "latentclr.commands.names:names",
    "import": "latentclr.commands.import_run:import_",
    "weights": "latentclr.commands.weights:weights",
    "invert": "latentclr.commands.invert:invert",
    "check": "export.check:check",
    "export": "export.cli:export",
    "rollback": "export.cli:rollback",
    "serve": "serving.cli:serve",
    "edit": "serving.cli:edit",
    "certify": "serving.certify.command:certify",
    "studio": "serving.studio.cli:studio",
    "doctor": "serving.doctor.command:doctor",
}


# Which extra of `pip install latentclr[...]` brings a package; the client's own packages are always there.
EXTRAS = {
    "torch": "train", "hydra": "train", "omegaconf": "train", "matplotlib": "train", "safetensors": "train",
    "tensorboard": "train", "tqdm": "train", "onnx": "export", "onnxscript": "export", "onnxruntime": "cpu",
    "fastapi": "studio", "uvicorn": "studio", "nltk": "biggan", "joblib": "joblib", "ray": "ray",
    "submitit": "submitit", "optuna": "optuna",
}  # fmt: skip

INTERRUPTED = 130  # what shells make of SIGINT
_LONGEST_MESSAGE = 1000  # characters; a file may hold a megabyte where a message quotes it


class UserError(click.ClickException):
    """One line on standard error."""

    exit_code = 2

    def __init__(self, error: Exception | str) -> None:
        text = " ".join(str(error).split())
        super().__init__(text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}...")


class Commands(click.Group):
    """A group whose commands may live in packages above this one; they are imported only when named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all commands in the order of the work: train ... edit."""
        return [*self.commands, *COMMANDS_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its package if it is another's."""
        if cmd_name not in COMMANDS_ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, name = COMMANDS_ELSEWHERE[cmd_name].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise _missing(error, cmd_name) or error from error
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that carries exit code 2 is a message to the user, and so is Ctrl-C at any time."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:  # its argument, if any, says what that means for the files
            click.echo(": ".join(["interrupted", *map(str, interrupt.args)]), err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:  # click would print the usage above it
            raise UserError(error.format_message()) from error
        except click.ClickException:
            raise
        except ModuleNotFoundError as error:
            raise _missing(error, ctx.invoked_subcommand or "") or error from error
        except Exception as error:
            if getattr(error, "exit_code", None) == UserError.exit_code:
                raise UserError(error) from error
            if told := of_the_machine(error):
                raise UserError(told) from error
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an option for a path that is given an empty one would mean the working folder."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            paths = {option for p in command.params if isinstance(p.type, click.Path) for option in p.opts}
            for word, following in zip(rest, [*rest[1:], None], strict=False):
                option, equals, value = word.partition("=")
                if option in paths and option[:1] == "-" and (value if equals else following) == "":
                    raise click.UsageError(f"{option} must name a file or folder, got ''")
        return name, command, rest

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse a word that no program and no path can hold, before something else stumbles over it."""
        for word in args:
            if "\0" in word:
                raise UserError(f"an argument holds a NUL byte: {word[:80]!r}")
        return super().parse_args(ctx, args)


def _missing(error: ModuleNotFoundError, command: str) -> UserError | None:
    """Say which extra of the installation a command lacks; None if the module is none that an extra brings."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    extra = "export" if command == "export" and extra == "train" else extra  # which brings the other one, too
    return UserError(f"{command or 'this command'} needs {package}: pip install 'latentclr[{extra}]'")


class Configured(click.Command):
    """A command on a run, whose help lists its own options of the form KEY=VALUE with default and meaning."""

    schema: type = TrainConfig
    keys: tuple[str, ...] = ("checkpoint",)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write options, and where the rest is listed."""
        _write_options(formatter, "Options of this command, as KEY=VALUE", own_lines(self.schema, self.keys))
        with formatter.section("Options of the run, as KEY=VALUE"):
            formatter.write_text("As it was trained, unless overridden here too; latentclr train --help lists them.")
        super().format_epilog(ctx, formatter)


class ConfiguredTrain(Configured):
    """`train`, whose help lists every option of a run."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write groups and options, under headings."""
        (run, lines), *others = option_sections().items()
        _write_options(formatter, f"{run}, as KEY=VALUE", lines)
        with formatter.section("Groups, as KEY=NAME (the first is the default)"):
            more = {"generator": ("FILE.py:FUNCTION",)}  # which no table can list
            rows = [(f"{group}=", " | ".join((*names, *more.get(group, ())))) for group, names in GROUPS.items()]
            formatter.write_dl(rows)
        for heading, lines in others:
            _write_options(formatter, heading, lines)
        click.Command.format_epilog(self, ctx, formatter)


class ConfiguredEval(Configured):
    """`eval`."""

    keys = ("checkpoint", "eval_iters", "hparams.batch_size", "seed", "device", "output_dir")


class ConfiguredGen(Configured):
    """`gen`."""

    schema = NamedGenConfig
    keys = ("checkpoint", "seed", "device", "output_dir")


class ConfiguredScore(Configured):
    """`score`."""

    schema = ScoreConfig
    keys = ("checkpoint", "seed", "device", "output_dir")


def _write_options(formatter: click.HelpFormatter, heading: str, lines: Sequence[Line]) -> None:
    with formatter.section(heading):
        formatter.write_dl([(f"{key}={default}", meaning) for key, default, meaning in lines])


def check_config_name(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what would be silently ignored: a run's configuration is its `.hydra/config.yaml` or `config.yaml`."""
    if value.removesuffix(".yaml") != "config":
        raise click.BadParameter(f"a run's configuration is called config, got {value!r}", ctx, parameter)
    return value


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="latentclr")
def cli() -> None:
    """Editing sliders for generative models: discover directions without labels, export them, serve them."""


@cli.command(cls=ConfiguredTrain)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE]...")
@click.option("--multirun", "-m", is_flag=True, help="A sweep: options may have several values, such as k=8,16.")
def train(overrides: tuple[str, ...], multirun: bool) -> None:
    """Discover K directions of a generator, without labels.

    \b
    Example, faces in a quarter of a minute on two cores:
      latentclr train k=16 generator=dcgan model=nonlinear model.alpha='[-3.0,+3.0]' \\
          hparams.batch_size=8 hparams.iterations=400 output_dir=outputs/faces
    Go on after Ctrl-C or a crash, exactly where it stopped:
      latentclr train checkpoint=outputs/faces
    On two GPUs:
      torchrun --nproc-per-node 2 -m latentclr train k=64 generator=dcgan
    Directions of another method, or sliders for what a scorer knows, computed in one go:
      latentclr train model=sefa k=16 output_dir=outputs/sefa
      latentclr train model=attributes 'attributes=[happy,yaw]' output_dir=outputs/sliders
    Which layer, which K? One run for each combination, scored and compared:
      latentclr train --multirun k=8,16 generator.feature_layer=main.2,main.5 seed=0,1 output_dir=outputs/sweep
    """
    from latentclr.commands import run_sweep, run_train

    if multirun:
        run_sweep(overrides)
        return
    if not run_train(overrides):
        click.get_current_context().exit(INTERRUPTED)


@cli.command("eval", cls=ConfiguredEval)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[RUN] [KEY=VALUE]...")
@click.option("--config-path", type=click.Path(path_type=Path), help="The run folder, in the origin's form.")
@click.option("--config-name", default="config", expose_value=False, callback=check_config_name,
              help="Accepted for the origin's form.")  # fmt: skip
def evaluate(words: tuple[str, ...], config_path: Path | None) -> None:
    """Measure a run on held-out codes: loss, accuracy, consistency, redundancy.

    \b
    Example:
      latentclr eval outputs/faces eval_iters=50
    """
    from latentclr.commands import run_eval

    run, overrides = split_run(words, config_path)
    run_eval(run, overrides)


@cli.command(cls=ConfiguredGen)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[RUN] [KEY=VALUE]...")
@click.option("--config-path", type=click.Path(path_type=Path), help="The run folder, in the origin's form.")
@click.option("--config-name", default="config", expose_value=False, callback=check_config_name,
              help="Accepted for the origin's form.")  # fmt: skip
def gen(words: tuple[str, ...], config_path: Path | None) -> None:
    """Draw labelled grids of edited images, and walks, into RUN/gen or output_dir.

    Strengths are the run's own, as `latentclr score` measured them, unless alphas=[...] names others. What gen drew
    there before is replaced, also where it was more; files that it did not write, or that were changed since, stay, and
    where one is in the way nothing is drawn.

    \b
    Example:
      latentclr gen outputs/faces n_samples=3 n_dirs=-1 alphas=[-6,-3,3,6] walk=webp
    Named edits (see `latentclr name`) over their ranges, or together at these strengths:
      latentclr gen outputs/faces edits=[smile,old]
      latentclr gen outputs/faces edits='{smile: 3, old: -2}'
    """
    from latentclr.commands import run_gen

    run, overrides = split_run(words, config_path)
    run_gen(run, overrides)


@cli.command(cls=ConfiguredScore)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="RUN [RUN]... [KEY=VALUE]...")
def score(words: tuple[str, ...]) -> None:
    """Measure what each direction does, how far it goes, what it repeats and what to call it.

    Every direction is moved until the picture has changed as much as by all others. The table is printed; score.json,
    score.png and score.html, a page to look at, go into the run folder. Several runs are compared with the first one.
    Seed 0 draws the codes of every run unless seed=N is given.

    \b
    Examples:
      latentclr score outputs/faces scorers=[pixels,faces]
      latentclr name outputs/faces --auto
      latentclr score outputs/faces outputs/sefa outputs/random codes=48
    """
    from latentclr.commands import run_score

    runs = [Path(word) for word in words if is_path(word)]
    if not runs:
        raise click.UsageError("expected a run folder: latentclr score RUN [RUN]... [KEY=VALUE]...")
    run_score(runs, [word for word in words if not is_path(word)])


def is_path(word: str) -> bool:
    """Tell a path from an override, KEY=VALUE: what is there is a path, also a run folder called `k=8`."""
    return "=" not in word or os.path.exists(word)  # which, other than Path's, is False for what no path can be


def split_run(words: Sequence[str], config_path: Path | None) -> tuple[Path, list[str]]:
    """Tell the run folder from the overrides: `RUN KEY=VALUE...`, or the origin's `--config-path` or `checkpoint=`.

    Raises:
        UsageError: No run is named.
    """
    overrides = list(words)
    if overrides and ("=" not in overrides[0] or (config_path is None and is_path(overrides[0]))):
        return Path(overrides[0]), overrides[1:]
    if config_path is not None:
        return (config_path.parent if config_path.name == ".hydra" else config_path), overrides
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key == "checkpoint":
            return Path(value), [w for w in overrides if w is not word]
    raise click.UsageError("expected a run folder: latentclr eval|gen|export RUN [KEY=VALUE]...")


def main() -> None:
    """Entry point."""
    cli(prog_name="latentclr")
