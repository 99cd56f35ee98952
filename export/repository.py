"""A Triton model repository: version folders, published whole or not at all, and the way back to an older version.

Each model's config.pbtxt names the one version that it describes and that is served. To publish is therefore to put a
version folder there, which no server looks at yet, and then to replace config.pbtxt; to roll back is to replace
config.pbtxt by the copy that lies in the older version's folder. Both are one rename, so a server that polls goes from
one version to the other with configuration, manifest and weights always of the same version. A model, its twins for
other engines and its preview change together or not at all (see `serving.contract.journal`), one command at a time.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from export.options import TritonOptions
from export.triton_config import config_of
from latentclr.errors import SaveError
from latentclr.files import sha256_of
from serving.contract.documents import read_manifest
from serving.contract.golden import GOLDEN_FILE
from serving.contract.journal import changing, rename_together
from serving.contract.layout import (
    CONFIG_FILE,
    ENGINES,
    ENSEMBLE,
    LayoutError,
    encoder_of,
    files_of,
    photo_of,
    preview_of,
    served_versions,
    twin_of,
    twins_of,
    versions_of,
)
from serving.contract.layout import read_config as read_layout


def publish(
    repository: Path,
    name: str,
    graphs: Mapping[str, Path | None],
    manifest: Mapping[str, Any],
    options: TritonOptions | None = None,
    beside: Mapping[str, tuple[Mapping[str, Path | None], Mapping[str, Any]]] | None = None,
) -> list[Path]:
    """Put exported files where Triton looks for them.

    A name that exists already gets the next version number (the same for all its models); older versions stay.
    Everything is written to a temporary folder first, and renamed when whole, all models or none.

    Args:
        repository: The model repository; made if missing.
        name: Of the first backend's model; each further one is a twin, `<name>_<engine>`.
        graphs: backend -> exported file, None of an ensemble; the engine's weights beside it go with it, and a
            `golden.npz` with each, one file on the disk for all of them.
        manifest: See `manifest.build_manifest`.
        options: See `model_config`.
        beside: name -> (graphs, manifest) of what is published together with it: its preview, its encoder and the
            ensemble of both.

    Returns:
        The new version folders.

    Raises:
        ExportError: The repository holds a twin that these graphs would leave behind at its older version.
        SaveError: The disk is full or the repository cannot be written; what stood there is untouched.
        Busy: Another process changes the repository.
    """
    new = not repository.exists()
    published: list[Path] = []
    try:
        repository.mkdir(parents=True, exist_ok=True)
        bases = {name: (graphs, manifest), **(beside or {})}
        parts = [(base, backend, model) for base in bases for backend, model in models_of(base, bases[base][0]).items()]
        models = [model for *_, model in parts]
        with changing(repository) as staging:
            if photo_of(name) not in bases:
                check_no_ensemble(repository, name, "export --with-encoder as well, under another --name")
            for base, (files, _) in bases.items():
                check_left_behind(repository, base, files)
            version = max(next_version(repository / model) for model in models)
            for base, backend, model in parts:
                graph, described = bases[base][0][backend], bases[base][1]
                if (repository / model).exists() and not (repository / model).is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, f"{repository / model} is not a folder")
                folder = staging / model / str(version)
                folder.mkdir(parents=True)
                engine = ENGINES[backend]
                if graph is not None:
                    shutil.copyfile(graph, folder / engine.file)
                    if engine.weights and (weights := graph.with_name(engine.weights)).exists():
                        _share(weights, repository / model, folder / engine.weights)
                    if (golden := graph.with_name(GOLDEN_FILE)).exists():
                        _share(golden, staging / base, folder / GOLDEN_FILE)
                (folder / "parity.json").write_text(json.dumps(described["parity"], indent=1))
                config = config_of(name, base, backend, {**described, "name": model}, options, version)
                for place in (folder, folder.parent):
                    (place / CONFIG_FILE).write_text(text_format.MessageToString(config))
            published = _move_all(staging, repository, models, version)
    except OSError as error:
        raise SaveError(f"could not publish to {repository}: {error.strerror or error}") from error
    finally:
        if new and not published:
            with contextlib.suppress(OSError):
                repository.rmdir()
    return published


def models_of(name: str, backends: Iterable[str]) -> dict[str, str]:
    """Return what each backend's model is called: the first by the name itself, the others by twins' names."""
    models: dict[str, str] = {}
    for backend in backends:
        models[backend] = twin_of(name, backend) if models else name
    return models


def check_left_behind(repository: Path, name: str, backends: Iterable[str]) -> None:
    """Check that all published twins of a model get a new version when it does.

    Raises:
        ExportError: One would not.
    """
    lost = sorted({*twins_of(repository, name)} - {*models_of(name, backends).values()})
    if lost:
        engines = " ".join(f"--engine {twin.removeprefix(name + '_')}" for twin in lost)
        raise ExportError(
            f"{repository} also holds {', '.join(lost)}, which would go on serving the older version: export with "
            f"{engines} as well, under another --name, or remove {'it' if len(lost) == 1 else 'them'}"
        )


def check_no_ensemble(repository: Path, name: str, instead: str) -> None:
    """Check that no ensemble would ask a version of an editor that does not fit it: Triton would then load no model.

    Args:
        repository: The model repository.
        name: Of the editor.
        instead: What to do, beside removing the ensemble.

    Raises:
        ExportError: There is one.
    """
    left = [photo_of(model) for model in (name, *twins_of(repository, name))]
    left = [model for model in left if (repository / model / CONFIG_FILE).is_file()]
    if left:
        it = "it" if len(left) == 1 else "them"
        raise ExportError(
            f"{repository} also holds {', '.join(left)}, which would ask a version without an encoder: {instead}, or"
            f" remove {it}"
        )


def rollback(repository: Path, name: str, to: int | None = None) -> dict[str, tuple[int, int]]:
    """Serve an older version again (or a newer one): its configuration becomes the model's.

    Its twins for other engines go along, and so does the preview, if that version has one: all or none. A server that
    polls follows by itself.

    Args:
        repository: The model repository.
        name: Of the model, not of a twin.
        to: The version; None for the one before the version that is served now.

    Returns:
        (version before, version now) by model.

    Raises:
        ExportError: There is no such model or version, or its files are not those of its manifest; nothing has changed.
        SaveError: A configuration cannot be written; nothing has changed.
        Busy: Another process changes the repository.
    """
    if not (repository / name / CONFIG_FILE).is_file():
        raise ExportError(f"{repository} has no model {name!r}")
    try:
        with changing(repository) as staging:
            models = [name, *twins_of(repository, name)]
            before = {model: served_version(repository / model) for model in models}
            if to is None:
                older = [version for version in versions_of(repository / name) if version < before[name]]
                if not older:
                    raise ExportError(f"{name} serves version {before[name]} and there is no older one")
                to = older[-1]
            together = _published_with(repository / name, to)
            if photo_of not in together:
                check_no_ensemble(repository, name, f"roll back to a version with one, for {to} has none")
            for beside in together:
                for model in models:
                    if model == name or (repository / beside(model) / CONFIG_FILE).is_file():
                        before[beside(model)] = served_version(repository / beside(model))
            models = list(before)
            for model in models:
                (staging / model).mkdir()
                (staging / model / CONFIG_FILE).write_text(_check_version(repository / model, to))
            top = repository.resolve()
            rename_together(repository, staging, [_config_of(staging, top, model) for model in models])
    except OSError as error:
        raise SaveError(f"could not write to {repository}: {error.strerror or error}") from error
    return {model: (before[model], to) for model in models}


def next_version(model: Path) -> int:
    """Return one more than the highest version number in a model's folder, 1 if there is none."""
    return max(versions_of(model), default=0) + 1


def served_version(model: Path) -> int:
    """Return the version that a model's configuration names; without one, Triton serves the newest.

    Raises:
        ExportError: The configuration cannot be read, or there is no version.
    """
    try:
        versions = served_versions(model)
    except LayoutError as error:
        raise ExportError(str(error)) from None
    if not versions:
        raise ExportError(f"{model} has no version folder")
    return versions[-1]


def read_config(path: Path) -> pb.ModelConfig:
    """Read a config.pbtxt.

    Raises:
        ExportError: It is missing, or no configuration of Triton's.
    """
    try:
        config: pb.ModelConfig = read_layout(path)
        return config
    except LayoutError as error:
        raise ExportError(str(error)) from None


def _check_version(model: Path, version: int) -> str:
    """Return the saved configuration of a version that can be served."""
    folder = model / str(version)
    if not folder.is_dir():
        there = ", ".join(map(str, versions_of(model))) or "none"
        raise ExportError(f"{model.name} has no version {version}; it has {there}")
    config = read_config(folder / CONFIG_FILE)
    if list(config.version_policy.specific.versions) != [version]:
        raise ExportError(f"{folder / 'config.pbtxt'} does not describe version {version}")
    files = _files_of(config, folder)
    if config.platform == ENSEMBLE:
        return (folder / CONFIG_FILE).read_text()
    if config.backend not in ENGINES:
        raise ExportError(f"{folder / 'config.pbtxt'} is of the backend {config.backend!r}, not of ours")
    wanted = files_of(config.backend, files) | {file for file in files if (folder / file).exists()}
    for file in sorted(wanted):
        if not (folder / file).is_file():
            raise ExportError(f"{folder / file} is missing")
        if file in files and sha256_of(folder / file) != files[file]:
            raise ExportError(f"{folder / file} is not the file that its manifest describes")
    return (folder / CONFIG_FILE).read_text()


def _published_with(model: Path, version: int) -> list[Callable[[str], str]]:
    """Return how what a version was published with is called: its preview; its encoder and their ensemble."""
    try:
        config = read_layout(model / str(version) / CONFIG_FILE)
        manifest = read_manifest(config.parameters["manifest"].string_value)
        named = {"preview": [preview_of], "encoder": [encoder_of, photo_of]}
        return [name for key, names in named.items() if manifest.get(key) for name in names]
    except (LayoutError, ValueError, AttributeError):
        return []  # whatever is wrong with the version is told where it is checked


def _files_of(config: pb.ModelConfig, folder: Path) -> dict[str, str]:
    """Return the SHA-256 by file name that a version's manifest has of its files."""
    try:
        files = read_manifest(config.parameters["manifest"].string_value).get("files_sha256") or {}
        if not all(isinstance(digest, str) for digest in files.values()):
            raise ValueError
    except (ValueError, AttributeError):
        raise ExportError(
            f"{folder / 'config.pbtxt'} has no manifest of its files, so they cannot be checked: "
            "`latentclr export` did not write it"
        ) from None
    return dict(files)


def _move_all(staging: Path, repository: Path, models: list[str], version: int) -> list[Path]:
    """Rename all models into place, the configurations last: versions that none names are not served yet."""
    top = repository.resolve()
    known = [model for model in models if (repository / model).exists()]
    new = [(staging / model, top / model) for model in models if model not in known]
    versions = [(staging / model / str(version), top / model / str(version)) for model in known]
    configs = [_config_of(staging, top, model) for model in known]
    rename_together(repository, staging, [*new, *versions, *configs])
    return [repository / model / str(version) for model in models]


def _config_of(staging: Path, repository: Path, model: str) -> tuple[Path, Path]:
    return staging / model / CONFIG_FILE, repository / model / CONFIG_FILE


def _share(file: Path, model: Path, target: Path) -> None:
    """Give a version the same file as another version in a model's folder where the bytes are the same, else a copy."""
    for version in reversed(versions_of(model)):
        known = model / str(version) / file.name
        if known.is_file() and filecmp.cmp(known, file, shallow=False):
            with contextlib.suppress(OSError):  # not all file systems have hard links
                os.link(known, target)
                return
    shutil.copyfile(file, target)
