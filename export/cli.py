"""`latentclr export` and `latentclr rollback`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from export.options import PRECISIONS, RANGES, TARGETS, TENSORRT
from latentclr.cli import Configured, check_config_name, split_run
from serving.contract.layout import DEFAULT_MODEL
from serving.contract.layout import ENGINES as KNOWN
from serving.contract.manifest import LATENT_INPUTS

ENGINES = (*(engine.name for engine in KNOWN.values()), "auto")
WEB = "web"
_OF_PAGES = ("output", "title")  # options of the target web alone
_OF_BOTH = ("words", "target", "name", "precision", "quality", "opset", "config_path", "config_name")


def _check_name(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise click.UsageError(f"--name must be letters, digits, _ . or -, got {value!r}")
    return value


def _parse_cuda(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for (key, equals, text), value in zip(pairs, values, strict=True):
        if not (key and equals and text):
            raise click.UsageError(f"--cuda must be KEY=VALUE, got {value!r}")
    return {key: text for key, _, text in pairs}


@click.command(cls=Configured)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[RUN] [KEY=VALUE]...")
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False), default=Path("model_repository"),
              show_default=True, help="Triton model repository to publish to.")  # fmt: skip
@click.option("--name", default=DEFAULT_MODEL, show_default=True, callback=_check_name,
              help="Model name, of the first engine; a further one's adds _ and the engine.")  # fmt: skip
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES),
              help="What runs it; repeat it. auto takes the fastest here.  "
              "[default: onnxruntime and torchscript; in reduced precision one that has it]")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
              help="Of the arithmetic; fp16 is for GPUs. Of --target web: of the stored weights, fp16 or fp32, by "
              "default as few bits as hold the quality.")  # fmt: skip
@click.option("--quality", metavar="exact|certified|NUMBERS",
              help="What the model must hold, or nothing is published; such as psnr=38,ssim=0.97. A preview in "
              "reduced precision and the encoder have their own.  "
              "[default: exact; in reduced precision certified]")  # fmt: skip
@click.option("--target", type=click.Choice((*TARGETS, WEB)), default="auto", show_default=True,
              help="Where it runs: on the server, with auto on its GPU if it has one; or as a page in its visitors' "
              "browsers.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Of --target web: where the page goes.  [default: RUN/web]")  # fmt: skip
@click.option("--title", help="Of --target web: stands above the page.  [default: Sliders]")
@click.option("--max-batch-size", type=click.IntRange(*RANGES["max_batch_size"]), default=16, show_default=True,
              help="Rows that Triton may put together.")  # fmt: skip
@click.option("--instances", type=click.IntRange(*RANGES["instances"]), default=1, show_default=True,
              help="Copies of the model on each GPU, or on the CPU.")  # fmt: skip
@click.option("--queue-delay", "queue_delay_us", type=click.IntRange(*RANGES["queue_delay_us"]), default=0,
              show_default=True, metavar="MICROSECONDS",
              help="How long a request may wait for others to join its batch.")  # fmt: skip
@click.option("--queue-timeout", "queue_timeout_s", type=click.FloatRange(*RANGES["queue_timeout_s"]), default=0.0,
              show_default=True, metavar="SECONDS",
              help="Bound the queue and refuse what waited this long; 0 for neither.")  # fmt: skip
@click.option("--cache/--no-cache", default=False, show_default=True,
              help="Answer repeated requests from Triton's response cache.")  # fmt: skip
@click.option("--threads", type=click.IntRange(*RANGES["threads"]), default=0, show_default=True,
              help="CPU threads of one operator; 0 takes all cores.")  # fmt: skip
@click.option("--tensorrt", type=click.Choice(TENSORRT),
              help="Let TensorRT run the graph, which must be of this --precision.")  # fmt: skip
@click.option("--cuda", multiple=True, metavar="KEY=VALUE", callback=_parse_cuda,
              help="Option of ONNX Runtime's CUDA provider, such as use_tf32=0, which TensorRT does not see; "
              "repeat.")  # fmt: skip
@click.option("--opset", type=click.IntRange(18, 20), default=18, show_default=True, help="ONNX operator set.")
@click.option("--latent-input", type=click.Choice(LATENT_INPUTS),
              help="Latent input; w [N, D] and w+ [N, L, D] are for codes from GAN inversion.  "
              "[default: z; with an encoder its own]")  # fmt: skip
@click.option("--with-encoder", is_flag=True,
              help="Publish NAME_encoder and NAME_photo too, for photos; see `latentclr invert train`.")  # fmt: skip
@click.option("--preview", type=click.IntRange(1), metavar="PIXELS",
              help="Publish NAME_preview too, whose smaller pictures appear while a slider moves; StyleGAN2 has one at "
              "each power of two from 8.")  # fmt: skip
@click.option("--preview-precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
              help="Of the preview's arithmetic; in int8 it is there sooner, within 36 dB of float32.")  # fmt: skip
@click.option("--config-path", type=click.Path(path_type=Path), help="The run folder, in the origin's form.")
@click.option("--config-name", default="config", expose_value=False, callback=check_config_name,
              help="Accepted for the origin's form.")  # fmt: skip
def export(
    words: tuple[str, ...],
    repository: Path,
    name: str,
    opset: int,
    latent_input: str | None,
    with_encoder: bool,
    preview: int | None,
    preview_precision: str,
    config_path: Path | None,
    engines: tuple[str, ...],
    precision: str,
    quality: str | None,
    output: Path | None,
    title: str | None,
    **options: Any,
) -> None:
    """Fuse a run's directions with their generator, prove parity, publish for Triton or as a page.

    RUN is a run folder; KEY=VALUE are overrides of its configuration, such as checkpoint=last. A NAME that is there
    already gets the next version, which a server that polls takes up; `latentclr rollback` goes back.

    \b
    Examples:
      latentclr export outputs/faces --repository model_repository --name latent_edit
      latentclr export outputs/faces --target gpu --precision fp16 --tensorrt fp16
      latentclr export outputs/ffhq --preview 256
      latentclr export outputs/faces --with-encoder
      latentclr export outputs/faces --target gpu --max-batch-size 32 --queue-delay 500
      latentclr export outputs/ffhq generator.truncation=1 --latent-input w+ --name invert_edit
      latentclr export outputs/faces --target web --output site/faces --title "Faces"
    """
    given = {name for name, source in _sources().items() if source is ParameterSource.COMMANDLINE}
    run, overrides = split_run(words, config_path)
    if options["target"] == WEB:
        from export.web.pipeline import TITLE, export_web

        _refuse(given - {*_OF_PAGES, *_OF_BOTH}, "--target web writes a page, which has no")
        folder = export_web(
            run, overrides, output or (run if run.is_dir() else run.parent) / "web", name=name, title=title or TITLE,
            precision=precision if "precision" in given else None, quality=quality, opset=opset, say=click.echo,
        )  # fmt: skip
        click.echo(f"wrote {folder}")
        click.echo(f"look at it: python -m http.server --directory {folder}")
        return
    _refuse(given & {*_OF_PAGES}, "only --target web has")
    from export.options import TritonOptions
    from export.pipeline import export_run

    for folder in export_run(
        run, overrides, repository, name, engines=engines or None, precision=precision, quality=quality,
        options=TritonOptions(**options), opset=opset, latent_input=latent_input, preview=preview,
        preview_precision=preview_precision, with_encoder=with_encoder, say=click.echo,
    ):  # fmt: skip
        click.echo(f"published {folder}")
    click.echo(f"serve it: latentclr serve --repository {repository}")
    click.echo("a server that runs already takes it up if it was started with --poll; restart any other")


def _sources() -> dict[str, ParameterSource | None]:
    """Return where each parameter's value comes from."""
    context = click.get_current_context()
    return {name: context.get_parameter_source(name) for name in context.params}


def _refuse(names: set[str], why: str) -> None:
    """Refuse options that have no meaning here.

    Raises:
        UsageError: There are some; the first of them is named as it is typed.
    """
    for parameter in click.get_current_context().command.params:
        if parameter.name in names:
            raise click.UsageError(f"{why} {parameter.opts[-1]}")


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False), default=Path("model_repository"),
              help="Triton model repository.")  # fmt: skip
@click.option(
    "--name",
    default=DEFAULT_MODEL,
    callback=_check_name,
    help="Model; its twins for other engines and its preview go along.",
)
@click.option("--to", type=click.IntRange(1), help="Version to serve.  [default: the one before the present one]")
def rollback(repository: Path, name: str, to: int | None) -> None:
    """Serve an older version of a model again; no version is deleted, so --to also goes forward.

    A server that polls (`latentclr serve --poll 2`) follows by itself, without a failed request.

    \b
    Examples:
      latentclr rollback --repository model_repository --name latent_edit
      latentclr rollback --repository model_repository --name latent_edit --to 3
    """
    from export.repository import rollback as roll_back

    for model, (before, now) in roll_back(repository, name, to).items():
        click.echo(f"{model} serves version {now}" + (f", before {before}" if now != before else " already"))
