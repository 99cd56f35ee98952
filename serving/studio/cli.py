"""The command `studio`."""

from __future__ import annotations

import importlib.util
import time
from contextlib import ExitStack
from pathlib import Path

import click

from serving.contract.layout import DEFAULT_MODEL
from serving.errors import InvalidEdit, ServerStartError
from serving.interrupt import interruptible

_EXTRA = ("fastapi", "uvicorn", "yaml")


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--url", help="gRPC address of a running Triton, HOST:PORT.  [default: start one]")
@click.option("--repository", type=click.Path(path_type=Path), metavar="FOLDER",
              help="What it serves; with --url: what the server there serves, to keep names in.  "
                   "[default: model_repository, without --url]")  # fmt: skip
@click.option("--model", default=DEFAULT_MODEL, help="The served model.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; any but a loopback address needs --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--token",
    envvar="LATENTCLR_STUDIO_TOKEN",
    help="What a browser must know, at least 16 characters; better in $LATENTCLR_STUDIO_TOKEN, which `ps` hides.",
)
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="Answer to this host name too; repeat.")
@click.option("--catalog", type=click.Path(path_type=Path), metavar="FILE",
              help="Another file to keep names in.  [default: RUN's and the served model's]")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=60.0, help="Seconds for one picture.")
def studio(
    run: Path | None,
    url: str | None,
    repository: Path | None,
    model: str,
    host: str,
    port: int,
    token: str | None,
    names: tuple[str, ...],
    catalog: Path | None,
    timeout: float,
) -> None:
    """Open the studio: sliders for every direction, in a web page, until Ctrl-C.

    With RUN, the run that the model was exported from, names that are given in the page go into RUN/catalog.yaml and
    to the served model, whose other clients then know them too; without it, to the served model alone.

    Server and model are asked before the page is served, and must be there; a server that is lost later may come back.

    \b
    Examples:
      latentclr studio outputs/faces
      latentclr studio --url 127.0.0.1:8001 --catalog faces.yaml
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ServerStartError(f"the studio needs {', '.join(missing)}: pip install 'latentclr[studio]'")
    from serving.contract.layout import encoder_of, preview_of
    from serving.studio.app import create_app
    from serving.studio.backend import Backend
    from serving.studio.places import names_for
    from serving.studio.runner import WebServer
    from serving.studio.security import SHORTEST_TOKEN, Policy
    from serving.studio.service import Service
    from serving.triton.ports import Ports
    from serving.triton.repository import check_repository
    from serving.triton.server import TritonServer
    from serving.triton.supervise import keep_alive

    policy = Policy(host, token or "", names)
    if policy.open and not policy.wants_token:
        raise InvalidEdit(f"--host {host} is open to the network, so it needs --token; 127.0.0.1 does not")
    if token and len(token) < SHORTEST_TOKEN:
        raise InvalidEdit(f"--token must have at least {SHORTEST_TOKEN} characters, got {len(token)}")
    if repository is None and not url:
        repository = Path("model_repository")
    triton = None
    if not url:
        assert repository is not None
        check_repository(repository, (model,))
        # It polls, so that the model's other clients learn names that are given in the page.
        beside = [name for name in (preview_of(model), encoder_of(model)) if (repository / name).is_dir()]
        triton = TritonServer(repository, ports=Ports(0, 0, 0), models=(model, *beside), poll_s=1, grpc_only=True)
    edits = names_for(run, catalog, repository, model)
    for line in edits.bring_up():
        click.echo(f"{model} learns {line}")

    try:
        with interruptible(), ExitStack() as stack:
            if triton is not None:
                click.echo("starting Triton ...")
                stack.callback(triton.stop)
                triton.start()
            backend = Backend(url or (triton.grpc_url if triton else ""), model, timeout)
            stack.callback(backend.close)
            web = WebServer(create_app(Service(backend, edits), policy), host, port)
            stack.callback(web.close)
            if triton is not None:
                triton.wait_ready()
            # A wrong address or model is told now, not in the page.
            manifest = backend.client.manifest
            takes = manifest.latent.input
            if takes != "z" and manifest.encoder is None:
                raise InvalidEdit(
                    f"the studio draws seeds and photos, and {model!r} takes {takes} codes and has no encoder: "
                    "export it with z, or --with-encoder"
                )
            stack.enter_context(web)
            shown = f"[{host}]" if ":" in host else host
            click.echo(edits.note)
            click.echo(f"studio: http://{shown}:{web.port}/ (Ctrl-C stops)")
            while True:
                if triton is not None:
                    keep_alive(triton, lambda text: click.echo(text, err=True))
                time.sleep(0.2)
    except KeyboardInterrupt:
        click.echo("stopping")


if __name__ == "__main__":
    studio()
