"""The commands `serve` and `edit`, which `latentclr` loads by name."""

from __future__ import annotations

import secrets
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from serving.contract.layers import parse_layers
from serving.contract.layout import DEFAULT_MODEL
from serving.errors import InvalidEdit
from serving.interrupt import interruptible

# Whatever is slow to import (numpy, PIL, gRPC) is imported inside the commands: `--help` must be instant.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from serving.client.client import EditClient, Edited
    from serving.client.photos import Inverted
    from serving.triton.ports import Ports

_SETTINGS = {"show_default": True, "max_content_width": 110}
_EMBEDDED_ONLY = ("log_file", "timeout", "shared_memory")
_DOCKER_ONLY = ("image",)


@click.command(context_settings=_SETTINGS)
@click.option("--repository", type=click.Path(path_type=Path), default="model_repository", help="Model repository.")
@click.option("--host", default="127.0.0.1", help="Address to bind; the embedded server does not belong on a network.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, help="HTTP port; 0 picks a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, help="gRPC port; 0 picks a free one.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, help="Metrics port; 0 picks a free one.")
@click.option("--model", "models", multiple=True, help="Serve only this model; repeat for several.  [default: all]")
@click.option("--log-file", type=click.Path(path_type=Path), help="Add Triton's log to this file.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=300.0, help="Seconds to become ready.")
@click.option("--poll", "poll_s", type=click.IntRange(1, 86400), metavar="SECONDS",
              help="Look for new versions this often, and switch to them.  [default: load once]")  # fmt: skip
@click.option("--grpc-only", is_flag=True, help="Open neither the HTTP nor the metrics port.")
@click.option("--shared-memory", is_flag=True,
              help="Let programs of this machine pass pictures through shared memory; they can then also reach each "
              "other's.")  # fmt: skip
@click.option("--engine", type=click.Choice(["embedded", "docker"]), default="embedded",
              help="The Triton of the nvidia-pytriton wheel, or NVIDIA's container, for production.")  # fmt: skip
@click.option("--image", help="Container image of --engine docker.  [default: NVIDIA's tritonserver]")
@click.option(
    "--print-command", is_flag=True, help="Print the command that would start the server, and do not start it."
)
def serve(
    repository: Path,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    models: tuple[str, ...],
    log_file: Path | None,
    timeout: float,
    poll_s: int | None,
    grpc_only: bool,
    shared_memory: bool,
    engine: str,
    image: str | None,
    print_command: bool,
) -> None:
    """Serve a model repository with a real Triton until Ctrl-C.

    \b
    Examples:
      latentclr serve --repository model_repository
      latentclr serve --repository model_repository --engine docker --poll 5
    """
    from serving.client.address import is_loopback
    from serving.triton.ports import Ports
    from serving.triton.server import TritonServer
    from serving.triton.supervise import keep_alive

    ports = Ports(http_port, grpc_port, metrics_port)
    if engine == "docker":
        _refuse(_EMBEDDED_ONLY, "--engine docker has no")
        _serve_with_docker(repository, host, ports, models, poll_s, grpc_only, image, print_command)
        return
    _refuse(_DOCKER_ONLY, "only --engine docker has")
    server = TritonServer(
        repository, host=host, ports=ports, models=models, log_file=log_file, poll_s=poll_s,
        grpc_only=grpc_only, shared_memory=shared_memory,
    )  # fmt: skip
    if print_command:
        click.echo(server.command())
        return
    if not is_loopback(host):
        click.echo(f"warning: {host} is open to the network, and this Triton is an old release for local use", err=True)
    with interruptible():
        try:
            server.start()
            server.wait_ready(timeout)
            rest = "" if grpc_only else f", HTTP {server.http_url}, metrics {server.metrics_url}"
            click.echo(f"ready: gRPC {server.grpc_url}{rest}; models {', '.join(server.ready_models())} (Ctrl-C stops)")
            while True:
                keep_alive(server, lambda text: click.echo(text, err=True))
                time.sleep(0.2)
        except KeyboardInterrupt:
            click.echo("stopping")
        finally:
            server.stop()


@click.command(context_settings=_SETTINGS)
@click.option("--seed", type=int, help="The picture to edit.  [default: 0, unless --z or --w]")
@click.option("--direction", help="Direction index or edit name, walked along --alpha.")
@click.option("--alpha", help="Strengths, separated by commas: -6,-3,0,3,6.  [default: five over the model's range]")
@click.option("--edit", "edits", multiple=True, metavar="KEY=ALPHA", help="An edit; repeat to apply several together.")
@click.option("--layers", help="Latent inputs at which to edit: 0-3 or 0,2,5-7.  [default: the run's feed_layers]")
@click.option("--class-id", type=int, help="Class number, for conditional generators.")
@click.option("--class-name", help="Class by name.")
@click.option("--z", "z_file", type=click.Path(path_type=Path), help="An .npy of codes [N, D] instead of a seed.")
@click.option("--w", "w_file", type=click.Path(path_type=Path),
              help="An .npy of codes from GAN inversion, if the model was exported for them.")  # fmt: skip
@click.option(
    "--photo", type=click.Path(path_type=Path), help="A photo to edit, if the model was exported --with-encoder."
)
@click.option(
    "--face", type=click.IntRange(0), help="With several faces in the photo: which, from left to right, from 0."
)
@click.option(
    "--align",
    type=click.Choice(["auto", "centre"]),
    help="Look for a face in the photo, or take its middle.  [default: auto]",
)
@click.option(
    "--refine",
    type=click.IntRange(1, 1000),
    metavar="STEPS",
    help="Steps that bring the drawn face nearer to the photo's first.",
)
@click.option("--keep", is_flag=True, help="Keep the photo's own pixels where nothing was edited.")
@click.option("--paste", is_flag=True, help="Put the picture back into the photo.")
@click.option("--from", "source", type=click.Path(path_type=Path),
              help="Make the picture of this PNG again, which a client, `edit` or the studio wrote.")  # fmt: skip
@click.option("--force", is_flag=True, help="With --from: also if another model is served now.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="edit.png", help="Picture to write.")
@click.option("--url", default="127.0.0.1:8001", help="The server: host:port for gRPC, or http://host:port.")
@click.option("--model", help="The served model.  [default: latent_edit, or the model of --from]")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=30.0, help="Seconds to wait for an answer.")
def edit(
    seed: int | None,
    direction: str | None,
    alpha: str | None,
    edits: tuple[str, ...],
    layers: str | None,
    class_id: int | None,
    class_name: str | None,
    z_file: Path | None,
    w_file: Path | None,
    photo: Path | None,
    face: int | None,
    align: str | None,
    refine: int | None,
    keep: bool,
    paste: bool,
    source: Path | None,
    force: bool,
    output: Path,
    url: str,
    model: str | None,
    timeout: float,
) -> None:
    """Edit a picture on a running server; several strengths make a labelled strip.

    A PNG carries what made it, and --from makes it again, bit for bit.

    \b
    Examples:
      latentclr edit --seed 7 --direction 3 --alpha -6,-3,0,3,6 -o strip.png
      latentclr edit --seed 7 --edit smile=4 --edit 5=-2 -o face.png
      latentclr edit --photo me.jpg --edit smile=3 --keep --paste -o smiling.png
      latentclr edit --from strip.png -o again.png
    """
    if source is not None:
        asked = (seed, direction, alpha, layers, class_id, class_name, face, align, refine, keep or None, paste or None)
        if edits or any(value is not None for value in asked):
            raise InvalidEdit(
                "--from brings seed, edits, layers and class; give only -o, --url, --model, --z, --w or --photo"
            )
        if sum(given is not None for given in (z_file, w_file, photo)) > 1:
            raise InvalidEdit("--from takes one of --z, --w and --photo: whichever the picture is of")
        _edit_again(source, output, z_file or w_file, photo, (url, model, timeout), force)
        return
    if force:
        raise InvalidEdit("--force needs --from")
    if direction is not None and edits:
        raise InvalidEdit("give --direction with --alpha, or --edit, not both")
    if alpha is not None and direction is None:
        raise InvalidEdit("--alpha needs --direction")
    alphas = None if alpha is None else parse_alphas(alpha)
    pairs = dict(parse_edit(text) for text in edits)
    if len(pairs) != len(edits):
        raise InvalidEdit("--edit names one direction twice")
    only = None if layers is None else list(parse_layers(layers))
    if sum(given is not None for given in (seed, z_file, w_file, photo)) > 1:
        raise InvalidEdit("give --seed, --z, --w or --photo, not both")
    if photo is None and (keep or paste or any(value is not None for value in (face, align, refine))):
        raise InvalidEdit("--face, --align, --refine, --keep and --paste need --photo")
    if paste and direction is not None:
        raise InvalidEdit("--paste takes one picture: give --edit instead of --direction")

    from serving.client.alpha_range import telling
    from serving.client.client import EditClient
    from serving.client.images import check_path, save_image, strip
    from serving.contract.recipe import printable_title

    check_path(output)
    z = None if z_file is None else _load_codes(z_file)
    w = None if w_file is None else _load_codes(w_file)
    seed = 0 if seed is None and z is None and w is None and photo is None else seed
    with telling(_warn), EditClient(url, model or DEFAULT_MODEL, timeout) as client:
        inverted = None if photo is None else client.invert(photo, align=align or "auto", face=face)
        if inverted is not None and refine is not None:
            inverted = _refined(client, inverted, refine)
        if direction is not None:
            key = parse_key(direction)
            alphas = _default_alphas(client, key) if alphas is None else alphas
            result: Edited = client.sweep(
                seed,
                key,
                alphas,
                z=z,
                w=w,
                photo=inverted,
                keep=keep,
                layers=only,
                class_id=class_id,
                class_name=class_name,
            )
            labels, title = [f"{value:+g}" if value else "0" for value in alphas], f"direction {direction}"
        else:
            result = client.edit(
                seed, pairs, z=z, w=w, photo=inverted, keep=keep, layers=only, class_id=class_id, class_name=class_name
            )
            result = result.pasted() if paste else result
            labels, title = [f"row {row}" for row in range(len(result))], " ".join(edits)
        noise = client.manifest.generator.random_weights
    title = printable_title(f"random weights: {title}" if noise else title)
    recipe = result.recipe
    if len(result) == 1:
        picture = result.to_pil()
    else:
        picture = strip(result.images, labels, title)
        recipe = None if recipe is None else recipe.as_strip(labels, title)
    with telling(_warn):
        save_image(picture, output, recipe)
    size = f"{len(result)} image{'s' if len(result) > 1 else ''}, {picture.width}x{picture.height}"
    click.echo(f"wrote {output}: {size}" + ("; the generator has random weights: this is noise" if noise else ""))


def _edit_again(
    source: Path,
    output: Path,
    codes_file: Path | None,
    photo: Path | None,
    where: tuple[str, str | None, float],
    force: bool,
) -> None:
    """Make the picture of a PNG again and compare the two."""
    import numpy as np
    from PIL import Image

    from serving.client.client import EditClient
    from serving.client.images import check_path, enlarge, pixels_of, read_recipe, save_image, strip
    from serving.client.replay import replay

    check_path(output)
    recipe, before = read_recipe(source)
    codes = None if codes_file is None else _load_codes(codes_file)
    url, model, timeout = where
    with EditClient(url, model or recipe.model, timeout) as client:
        result = replay(client, recipe, codes, photo=photo, force=force)
    images = enlarge(result.images, recipe.scale)
    picture = strip(images, recipe.labels, recipe.title) if recipe.labels else Image.fromarray(images[0])
    save_image(picture, output, result.recipe)
    after = pixels_of(picture)
    if before.shape == after.shape and (before == after).all():
        click.echo(f"wrote {output}: the same pixels as {source}")
        return
    if before.shape != after.shape:
        difference = f"{before.shape[1]}x{before.shape[0]} before, {picture.width}x{picture.height} now"
    else:
        difference = f"they differ by up to {int((np.maximum(before, after) - np.minimum(before, after)).max())} of 255"
    click.echo(f"wrote {output}")
    click.echo(f"warning: not the same pixels as {source}: {difference}", err=True)


def _refined(client: EditClient, inverted: Inverted, steps: int) -> Inverted:
    """Refine a photo's code and say what it brought."""
    from serving.client.refine import refine

    start = time.monotonic()
    done = list(refine(client, inverted, steps))
    took = time.monotonic() - start
    click.echo(f"refined: {done[0].psnr:.1f} -> {done[-1].psnr:.1f} dB in {steps} steps, {took:.1f} s")
    return done[-1].inverted


def parse_key(text: str) -> int | str:
    """Read a direction index or an edit's name."""
    try:
        return int(text)
    except ValueError:
        return text.strip()


def parse_alphas(text: str) -> list[float]:
    """Read strengths separated by commas.

    Raises:
        InvalidEdit: One of them is not a number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidEdit(f"--alpha must be numbers separated by commas, got {text!r}") from None


def parse_edit(text: str) -> tuple[int | str, float]:
    """Read `KEY=ALPHA`.

    Raises:
        InvalidEdit: There is no `=`, or no number after it.
    """
    key, equals, strength = text.rpartition("=")
    try:
        if not equals or not key.strip():
            raise ValueError
        return parse_key(key), float(strength)
    except ValueError:
        raise InvalidEdit(f"--edit must be DIRECTION=ALPHA or NAME=ALPHA, got {text!r}") from None


def _default_alphas(client: EditClient, key: int | str) -> list[float]:
    """Five strengths over the range that the model suggests."""
    from serving.contract.edits import resolve_edit

    low, high = resolve_edit(client.manifest, key).alpha
    return [low + (high - low) * step / 4 for step in range(5)]


def _load_codes(path: Path) -> NDArray[np.generic]:
    from serving.contract.arrays import read_npy

    try:
        return read_npy(path)
    except ValueError as error:
        raise InvalidEdit(f"{path} {error}") from error


def _refuse(names: tuple[str, ...], why: str) -> None:
    """Refuse options of the other engine that stand on the command line.

    Raises:
        UsageError: There are some; the first of them is named as it is typed.
    """
    context = click.get_current_context()
    given = {name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    for parameter in context.command.params:
        if parameter.name in given:
            raise click.UsageError(f"{why} {parameter.opts[-1]}")


def _serve_with_docker(
    repository: Path,
    host: str,
    ports: Ports,
    models: tuple[str, ...],
    poll_s: int | None,
    grpc_only: bool,
    image: str | None,
    only_print: bool,
) -> None:
    from serving.contract.journal import recover_if_free
    from serving.triton.docker import IMAGE, docker_command, run_docker
    from serving.triton.ports import Ports, claim_ports
    from serving.triton.repository import check_repository

    if not only_print:
        recover_if_free(repository)
    check_repository(repository, models)
    ports = claim_ports(host, Ports(0, ports.grpc, 0) if grpc_only else ports)
    key = secrets.token_hex(16)
    command = docker_command(repository, host, ports, models, poll_s, image or IMAGE, key, grpc_only)
    if only_print:
        click.echo(shlex.join(command))
        return
    # What runs goes into journals and logs of CI. A shell stumbles over <key>, so nobody starts a server with that one.
    click.echo(shlex.join(command).replace(key, "<key>"), err=True)
    try:
        with interruptible():
            run_docker(command)
    except KeyboardInterrupt:
        click.echo("stopping")


def _warn(line: str) -> None:
    click.echo(f"warning: {line}", err=True)
