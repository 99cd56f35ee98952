"""The doctor's look at a model repository: do the files match what their configurations say of them?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.contract.files import sha256_of
from serving.contract.golden import GOLDEN_FILE
from serving.contract.journal import JOURNAL, leftovers
from serving.contract.layout import (
    CONFIG_FILE,
    ENGINES,
    ENSEMBLE,
    LayoutError,
    encoder_of,
    files_of,
    models_in,
    original_of,
    photo_of,
    preview_of,
    read_config,
    served_versions,
    steps_of,
    versions_of,
)
from serving.contract.lock import holder
from serving.contract.manifest import Manifest, parse_manifest
from serving.contract.openvino_engine import OpenVINOError, OpenVINOMissing, compile_model
from serving.doctor.findings import BAD, OK, WARN, Finding
from serving.doctor.running import Running
from serving.errors import ManifestError

DEFAULT = Path("model_repository")


def check_models(repository: Path | None, running: Running | None = None) -> Iterator[Finding]:
    """Check each model: its configuration, the version that it names, and that version's files.

    Args:
        repository: Folder with one folder per model; None for `model_repository`, which need not be there.
        running: A server whose models may be these, to be compared with them.
    """
    yield from _readable("model repository", _check_models(repository, running))


def _readable(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Pass findings on; what cannot be read on the way is one too, and the last."""
    try:
        yield from findings
    except OSError as error:
        yield Finding(BAD, subject, f"cannot read {error.filename or 'it'}: {error.strerror or error}")


def _check_models(repository: Path | None, running: Running | None) -> Iterator[Finding]:
    folder = repository or DEFAULT
    if not folder.is_dir():
        missing = f"there is no {folder}; `latentclr export` writes one"
        yield Finding(WARN if repository is None else BAD, "model repository", missing)
        return
    models = sorted(path for path in folder.iterdir() if path.is_dir())
    if not models:
        yield Finding(WARN, "model repository", f"{folder} is empty; `latentclr export` fills it")
    yield from _unfinished(folder)
    yield from _apart(folder)
    yield from _beside(folder)
    for model in models:
        if model.name.startswith(".tmp-"):
            text = (
                f"{model} was left by an export that died (or is one under way); Triton takes it for a model: remove it"
            )
            yield Finding(WARN, "model repository", text)
        else:
            findings = list(_readable(f"model {model.name}", _check_model(model)))
            yield from findings
            if not any(finding.status == BAD for finding in findings):
                yield from _compare(model, running)


def _unfinished(repository: Path) -> Iterator[Finding]:
    """Tell what a command that was killed left, if none is at work."""
    if at_work := holder(repository):
        yield Finding(OK, "model repository", f"is being changed by {at_work}")
        return
    if (repository / JOURNAL).exists():
        text = f"a command was killed between its renames ({repository / JOURNAL}): the next export, rollback or serve"
        yield Finding(BAD, "model repository", f"{text} takes them back")
    # Folders inside are told among the models, for Triton takes them for some.
    left = [path for path in leftovers(repository) if path.is_file() or path.parent != repository.resolve()]
    if left:
        names = ", ".join(map(str, left[:5])) + ", ..." * (len(left) > 5)
        text = f"left by a command that was killed, removed by the next export or rollback: {names}"
        yield Finding(WARN, "model repository", text)


def _apart(repository: Path) -> Iterator[Finding]:
    """Tell which models serve another version than their twins for other engines."""
    for twin in models_in(repository):
        model = repository / original_of(repository, twin.name)
        if model == twin:
            continue
        try:
            versions = [(served_versions(folder) or [0])[-1] for folder in (model, twin)]
        except LayoutError:  # told of the model itself
            continue
        if versions[0] != versions[1]:
            text = f"serves version {versions[0]}, its twin {twin.name} version {versions[1]}"
            command = f"latentclr rollback --repository {repository} --name {model.name} --to {min(versions)}"
            yield Finding(BAD, f"model {model.name}", f"{text}: {command}")


def _beside(repository: Path) -> Iterator[Finding]:
    """Tell which previews and encoders are missing or of another version than their models, or of use to no model.

    An ensemble has no files that could be of another version; it is to be there with the encoder.
    """
    for model in models_in(repository):
        manifest = _manifest_of(model)
        if manifest is None or manifest.preview_of or manifest.encoder_of or manifest.photo_of:
            continue
        wanted = {
            "preview": (preview_of(model.name), manifest.preview),
            "encoder": (encoder_of(model.name), manifest.encoder),
        }
        for what, (name, info) in wanted.items():
            its = _manifest_of(repository / name)
            text = ""
            if info is None:
                if its is not None and getattr(its, f"{what}_of"):
                    text = f"is of an older export than {model.name}, which has no {what} now: nobody asks for it"
                    yield Finding(WARN, f"model {name}", text)
                continue
            if its is None:
                text = f"its {what} {name} is not there: export again"
            elif its.files_sha256 != info.files_sha256:
                original = original_of(repository, model.name)
                command = f"latentclr rollback --repository {repository} --name {original} --to VERSION"
                text = f"its {what} {name} serves another version: {command}"
            if text:
                yield Finding(BAD, f"model {model.name}", text)
        photo = photo_of(model.name)
        if manifest.encoder is not None and _manifest_of(repository / photo) is None:
            yield Finding(WARN, f"model {model.name}", f"the ensemble {photo} of it and its encoder is not there")


def _manifest_of(model: Path) -> Manifest | None:
    """Read a model's manifest; None without one, or if it cannot be read, which is told of the model itself."""
    try:
        return parse_manifest(read_config(model / CONFIG_FILE).parameters["manifest"].string_value)
    except (LayoutError, ManifestError):
        return None


def _check_model(model: Path) -> Iterator[Finding]:
    subject = f"model {model.name}"
    try:
        config = read_config(model / CONFIG_FILE)
    except LayoutError as error:
        yield Finding(BAD, subject, str(error))
        return
    if config.name and config.name != model.name:
        yield Finding(BAD, subject, f"its configuration is of {config.name!r}; Triton wants the folder's name")
    if config.platform == ENSEMBLE:  # which has no files
        steps = steps_of(config)
        missing = [step for step in steps if not (model.parent / step / CONFIG_FILE).is_file()]
        for step in missing:
            yield Finding(BAD, subject, f"asks {step}, which is not there: export it again")
        if steps and not missing:
            yield Finding(OK, subject, f"asks {' and '.join(steps)}, which are there")
    elif config.backend not in ENGINES:
        known = ", ".join(ENGINES)
        yield Finding(WARN, subject, f"has backend {config.backend!r}, which this doctor does not know ({known})")
        return
    versions = versions_of(model)
    wanted = list(config.version_policy.specific.versions) or versions[-1:]
    if not wanted:
        yield Finding(BAD, subject, "has no version folder: export it")
    for version in wanted:
        if version not in versions:
            there = ", ".join(map(str, versions)) or "none"
            text = f"its configuration names version {version}, there is {there}: latentclr rollback --to ..."
            yield Finding(BAD, subject, text)
            continue
        if config.platform != ENSEMBLE:
            yield from _check_files(subject, model / str(version), config)


def _check_files(subject: str, folder: Path, config: Any) -> Iterator[Finding]:
    """Compare a version's files with the SHA-256 that the manifest has of them; say that they match if they do."""
    main = ENGINES[config.backend].file
    if not (folder / main).is_file():
        yield Finding(BAD, subject, f"{folder / main} is missing")
        return
    if "manifest" not in config.parameters:
        yield Finding(WARN, subject, "does not describe itself (no manifest), so its files cannot be checked")
        return
    try:
        listed = parse_manifest(config.parameters["manifest"].string_value).files_sha256
    except ManifestError as error:
        yield Finding(BAD, subject, f"its manifest cannot be read: {error}")
        return
    expected = {name: digest for name, digest in listed.items() if "/" not in name and name not in (".", "..")}
    for name in sorted(set(listed) - set(expected)):  # a path could lead to any file of this machine
        yield Finding(BAD, subject, f"its manifest names {name[:80]!r}, which is no file of a version's folder")
    if main not in expected:
        yield Finding(WARN, subject, f"its manifest does not know {main}, so it cannot be checked")
    mine = files_of(config.backend, expected) | {name for name in expected if (folder / name).exists()}
    if GOLDEN_FILE in set(expected) - mine:
        text = f"{folder / GOLDEN_FILE} is missing: `latentclr certify` then needs --golden FILE"
        yield Finding(WARN, subject, text)
    whole = len(expected) == len(listed)
    for name in sorted(mine & set(expected)):
        path = folder / name
        if not path.is_file():
            whole = False
            yield Finding(BAD, subject, f"{path} is missing")
        elif (found := sha256_of(path)) != expected[name]:
            whole = False
            short = f"its SHA-256 begins {found[:12]}, the manifest says {expected[name][:12]}"
            yield Finding(BAD, subject, f"{path} is not the file that was published: {short}; export or roll back")
    if config.backend == "openvino" and whole:
        yield from _check_openvino(subject, folder / main)
    if whole and main in expected:
        yield Finding(OK, subject, f"version {folder.name}, files match their manifest")


def _check_openvino(subject: str, path: Path) -> Iterator[Finding]:
    """Let OpenVINO load a version's model, where it is installed."""
    try:
        compile_model(path)
    except OpenVINOMissing:
        yield Finding(WARN, subject, "is for OpenVINO, which is not installed here: pip install 'latentclr[openvino]'")
    except OpenVINOError as error:
        yield Finding(BAD, subject, str(error))


def _compare(model: Path, running: Running | None) -> Iterator[Finding]:
    """Say so if a running server has another version than the repository, or other files under its number."""
    served = None if running is None else running.models.get(model.name)
    if running is None or served is None:
        return
    versions = served_versions(model)
    mine, theirs = (", ".join(map(str, numbers)) for numbers in (versions, served.versions))
    its = _manifest_of(model)
    files = its.files_sha256 if its else {}
    if tuple(versions) == served.versions and files == served.files:
        if its and GOLDEN_FILE in files and not its.encoder_of:  # which is certified with its editor
            command = f"latentclr certify --url {running.url} --model {model.name} --repository {model.parent}"
            yield Finding(OK, f"model {model.name}", f"served; what that Triton really draws is proven by {command}")
        return
    if tuple(versions) != served.versions:
        said = f"the repository holds version {mine}, the Triton at {running.url} serves version {theirs}"
    else:
        said = f"the Triton at {running.url} serves other files as version {theirs} than the repository holds"
    restart = "restart it, or serve with --poll, which follows by itself (unless it serves another repository)"
    yield Finding(WARN, f"model {model.name}", f"{said}: {restart}")
