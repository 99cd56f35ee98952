"""The command `certify`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.contract.layout import DEFAULT_MODEL

# Whatever is slow to import (numpy, gRPC) is imported inside the commands: `--help` must be instant.
if TYPE_CHECKING:
    from serving.client.description import Description
    from serving.contract.certificate import Gate


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--url", default="127.0.0.1:8001", help="The server: host:port for gRPC, or http://host:port.")
@click.option("--model", default=DEFAULT_MODEL, help="The served model.")
@click.option("--repository", type=click.Path(path_type=Path), default="model_repository",
              help="The model repository that the model was published to, for its golden requests.")  # fmt: skip
@click.option("--golden", type=click.Path(path_type=Path),
              help="The golden.npz itself, where the repository is on another machine.")  # fmt: skip
@click.option("--golden-photos", type=click.Path(path_type=Path),
              help="The golden.npz of the model's encoder, likewise.")  # fmt: skip
@click.option("--quality", metavar="exact|certified|NUMBERS",
              help="Hold it against this gate; numbers as in psnr=38,ssim=0.97,mean=1,fidelity=0.95,worst=8.  "
              "[default: the gate that the model was published with]")  # fmt: skip
@click.option("--requests", type=click.IntRange(0, 1_000_000), default=100, help="Single edits to time.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=30.0, help="Seconds to wait for an answer.")
@click.option("--json", "output", type=click.Path(path_type=Path, dir_okay=False),
              help="Write what was measured here too, whether the gate holds or not.")  # fmt: skip
def certify(
    url: str,
    model: str,
    repository: Path,
    golden: Path | None,
    golden_photos: Path | None,
    quality: str | None,
    requests: int,
    timeout: float,
    output: Path | None,
) -> None:
    """Prove that a running server draws what eager PyTorch drew when the model was published.

    Export keeps golden requests and their float32 pictures beside the model. They are sent to the server, whatever
    engine, container or GPU it has, each alone and in the largest batches. Outside the gate the exit code is 2. A model
    that was published with an encoder is asked for the codes of golden photos, too.

    \b
    Examples:
      latentclr certify
      latentclr certify --url gpu-node:8001 --golden golden.npz --quality certified --json certificate.json
    """
    from serving.certify.golden_file import open_golden, open_golden_photos
    from serving.certify.proof import prove, prove_photos, work
    from serving.client.client import EditClient
    from serving.contract.certificate import CertificateError, Gate
    from serving.contract.layout import preview_of

    chosen = None if quality is None else Gate.parse(quality)
    with EditClient(url, model, timeout) as client:
        description = client.description
        its = description.manifest
        if editor := its.encoder_of or its.photo_of:
            raise CertificateError(f"{model} is certified with the model that it was published with: {editor}")
        engine, precision, gate = published(description)
        gate = chosen or gate
        path, requested = open_golden(description, repository, golden)
        versions = ", ".join(description.versions) or "unknown"
        click.echo(f"{model} version {versions} at {url}; {len(requested)} golden requests of {path}")
        photos = None
        if its.encoder is not None and (golden is None or golden_photos is not None):
            photos_path, photos = open_golden_photos(description, repository, golden_photos)
        with _bar(work(requested, requests)) as done:
            proof = prove(client, requested, requests, done)
        certificate = proof.comparison.certificate(engine, precision, gate)
        failing = [] if certificate.passed else proof.comparison.failing(gate)
        latency = proof.latency()
        click.echo(str(certificate))
        if latency is not None:
            click.echo(
                f"one edit takes p50 {latency['p50_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms "
                f"({latency['requests']} requests after {latency['warm_up']} to warm up)"
            )
        record = {"model": model, "version": versions, "url": url, **certificate.as_dict(),
                  "failing_directions": failing, "latency": latency}  # fmt: skip
        found = None
        try:
            if photos is not None:
                with _bar(len(photos)) as done:
                    found = prove_photos(client, photos, done)
                seen = found.certificate(engine, precision, gate)
                click.echo(f"its encoder, {len(photos)} golden photos of {photos_path}")
                click.echo(f"{seen}; codes within {found.apart:.2g} standard deviations")
                click.echo(f"one photo takes p50 {found.p50_ms():.1f} ms ({len(found.seconds)} photos)")
                record["encoder"] = {**seen.as_dict(), "codes_apart": found.apart, "p50_ms": round(found.p50_ms(), 3)}
            elif its.encoder is not None:
                click.echo("its encoder is not asked: that takes --golden-photos FILE, the golden.npz beside it")
            if its.preview is not None:
                click.echo(f"its preview is certified by itself: --model {preview_of(model)}")
        finally:  # an encoder that does not answer takes nothing from what is known of the editor
            if output is not None:
                _write(output, record)
    if not certificate.passed:
        misses = "; ".join(gate.misses(certificate.as_dict()))
        which = f"directions {', '.join(map(str, failing))}" if failing else "the unedited pictures"
        raise CertificateError(f"{model} misses {gate.name}: {misses}; it fails for {which}")
    if found is not None and (missed := found.misses(gate)):
        raise CertificateError(f"the encoder of {model} misses {gate.name}: {'; '.join(missed)}")


def published(description: Description) -> tuple[str, str, Gate]:
    """Return what a model was published as: engine and precision, and the gate that it held.

    float32 and `exact` where the manifest does not say.

    Raises:
        CertificateError: It names a gate that this version does not know.
    """
    from serving.contract.certificate import Gate
    from serving.contract.layout import ENGINES

    backend = description.backend
    engine = ENGINES[backend].name if backend in ENGINES else backend or "engine unknown"
    said = description.manifest.parity.get(engine)
    said = said if isinstance(said, dict) else {}
    precision, gate = said.get("precision", "fp32"), said.get("gate", "exact")
    return " + ".join([engine, *description.accelerators]), str(precision), Gate.parse(str(gate))


def _write(path: Path, record: dict[str, Any]) -> None:
    import json

    from serving.contract.certificate import CertificateError
    from serving.contract.files import write_whole

    try:
        write_whole(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise CertificateError(f"could not write {path}: {error.strerror or error}") from error


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """Show how far it is, on a screen only."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    with click.progressbar(length=total, label="certifying", file=sys.stderr) as bar:
        yield bar.update
