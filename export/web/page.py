"""The files of a page: the studio's parts, an engine in place of its server, the graph, the runtime, the licences."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.web.markup import page_html
from export.web.runtime import PACKAGE, VARIANTS, VERSION
from export.web.smallest import WebGraph
from latentclr.errors import SaveError
from serving.contract.certificate import Gate
from serving.contract.documents import read_json_file
from serving.contract.golden import Golden

INDEX, DESCRIPTION, MANIFEST = "index.html", "page.json", "manifest.json"
LARGEST_FILE = 64 << 20
"""Bytes of one file: hosts that keep a page in git take no more than a hundred million."""
GOLDEN_ROWS = 3
RUNTIME_FOLDER, LICENCE = "onnxruntime", "onnxruntime_licence.txt"
README = f"""A page that edits pictures of a generator in the browser, written by `latentclr export --target web`.

Put this folder on any web server as it is; nothing is computed there, and the page asks no other server for anything.
Look at it here:  python -m http.server --directory THIS_FOLDER

manifest.json   what the model is, and its certificate
graph-*.bin     the model: ONNX, under gzip
golden.bin      pictures that PyTorch drew; the page draws them too before it shows anything
onnxruntime/    {PACKAGE} {VERSION}: MIT, see LICENSE.txt and ThirdPartyNotices.txt there
the rest        latentclr: Apache-2.0

The generator's weights have a licence of their own: you publish them with this folder.
"""
_ENTRY = ("app.js", "theme.js", "style.css", "icon.svg")  # of the studio; what they import comes along
_IMPORT = re.compile(r"(?:import|from) '\./([\w-]+\.js)'")


def page_files(
    graph: WebGraph,
    manifest: Mapping[str, Any],
    golden: Golden,
    gate: Gate,
    runtime: Mapping[str, bytes],
    title: str,
    needed: int,
) -> dict[str, bytes]:
    """Return all files of a page by name.

    Args:
        graph: The model.
        manifest: What it says of itself.
        golden: Requests with the pictures that eager PyTorch draws, some of which the page draws when it is opened.
        gate: What these pictures must hold.
        runtime: ONNX Runtime Web's files.
        title: Of the page.
        needed: Bytes that the model takes in a browser.
    """
    studio, own = (_static(package) for package in ("serving.studio", "export.web"))
    made = {**_parts(studio, own), INDEX: page_html(studio[INDEX].decode(), title).encode()}
    made[MANIFEST] = json.dumps(manifest).encode()  # named edits are in their order
    parts = {
        f"graph-{number}.bin": graph.packed[start : start + LARGEST_FILE]
        for number, start in enumerate(range(0, len(graph.packed), LARGEST_FILE))
    }
    rows = _first_rows(golden)
    pictures = {"golden.bin": golden.images[rows].tobytes()}
    made |= {**parts, **pictures, **{f"{RUNTIME_FOLDER}/{name}": data for name, data in runtime.items()}}
    variants = {
        name: {
            "script": f"{RUNTIME_FOLDER}/{one.script}",
            "module": f"{RUNTIME_FOLDER}/{one.module}",
            "binary": _described({f"{RUNTIME_FOLDER}/{one.binary}": runtime[one.binary]}, one.unpacked),
        }
        for name, one in VARIANTS.items()
    }
    limits = {key: getattr(gate, key) for key in ("worst_step", "mean_step", "psnr_db")}
    described = {
        "graph": {**_described(parts, graph.size), "weights": graph.weights, "memory": needed},
        "runtime": {"package": PACKAGE, "version": VERSION, **variants},
        "golden": {
            "pictures": _described(pictures),
            "rows": [_request(golden, row) for row in rows],
            "gate": {key: value for key, value in limits.items() if value is not None},
        },
    }
    made |= {**_texts(), ".nojekyll": b""}
    made[DESCRIPTION] = json.dumps({**described, "files": sorted({*made, DESCRIPTION})}).encode()
    return made


def visitor_bytes(made: Mapping[str, bytes]) -> dict[str, int]:
    """Return what a visitor loads, in bytes, by variant of the runtime."""
    kept = {f"{RUNTIME_FOLDER}/{name}": variant for variant, one in VARIANTS.items() for name in one.files}
    common = sum(len(data) for name, data in made.items() if name not in kept and not name.endswith(".txt"))
    return {
        variant: common + sum(len(made[name]) for name, other in kept.items() if other == variant)
        for variant in VARIANTS
    }


def check_folder(folder: Path) -> None:
    """Check that a page may be written there: nothing is there yet, or a page and nothing beside it.

    Raises:
        ExportError: Something else is there, such as the `.git` of a folder that is published by it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExportError(f"{folder} must be a folder for the page, or not there yet")
    own = _written(folder)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in own and (path.is_symlink() or not path.is_dir()):
            raise ExportError(f"{folder} holds {name}, which is of no page: take another folder with --output")


def _written(folder: Path) -> set[str]:
    """Return the names of the files of the page in a folder; none where there is no page."""
    try:
        return set(read_json_file(folder / DESCRIPTION)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_page(folder: Path, made: Mapping[str, bytes]) -> None:
    """Write a page, whole or not at all; one that is there already is replaced.

    Raises:
        ExportError: Something else is there.
        SaveError: The disk is full, or the folder cannot be written.
    """
    check_folder(folder)
    target = folder.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as new, _beside(target) as old:
            for name, data in made.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with open(new / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            if target.exists():
                os.rename(target, old)
            try:
                os.rename(new, target)
            except OSError:
                if old.exists():
                    os.rename(old, target)
                raise
    except OSError as error:
        raise SaveError(f"could not write {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield the name of a folder beside another, which is removed in the end."""
    path = target.with_name(f".tmp-{target.name}-{secrets.token_hex(6)}")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _static(package: str) -> dict[str, bytes]:
    """Return the files of a package's folder `static` by name: they are data, and nothing of the package is run."""
    return {one.name: one.read_bytes() for one in (files(package) / "static").iterdir() if one.is_file()}


def _parts(studio: Mapping[str, bytes], own: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the page's scripts and styles: its own, and of the studio's those that are imported."""
    made: dict[str, bytes] = {}
    wanted = [*_ENTRY, *own]
    while wanted:
        name = wanted.pop()
        if name not in made:
            made[name] = own[name] if name in own else studio[name]
            wanted += _IMPORT.findall(made[name].decode()) if name.endswith(".js") else []
    return dict(sorted(made.items()))


def _described(parts: Mapping[str, bytes], unpacked: int | None = None) -> dict[str, Any]:
    """Describe one thing that lies in several files, under gzip if its size `unpacked` is given."""
    entries = [
        {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in parts.items()
    ]
    size = sum(map(len, parts.values())) if unpacked is None else unpacked
    return {"files": entries, "unpacked": size, "packed": unpacked is not None}


def _first_rows(golden: Golden) -> list[int]:
    """Return a few rows with different numbers of edits, most first: of a slow model the page draws only the first."""
    counts = golden.edits.tolist()
    order = sorted(range(len(golden)), key=lambda row: (counts[:row].count(counts[row]), -counts[row]))
    return order[:GOLDEN_ROWS]


def _request(golden: Golden, row: int) -> dict[str, Any]:
    code, direction, alpha, *classes = golden.request([row])
    return {
        "code": code[0].tolist(),
        "direction": direction[0].tolist(),
        "alpha": alpha[0].tolist(),
        "class_id": int(classes[0][0]) if classes else None,
    }


def _texts() -> dict[str, bytes]:
    """Return what is to be said about the page, ONNX Runtime's licence, and those of what is compiled into it."""
    import onnxruntime

    found = {
        "README.txt": README.encode(),
        f"{RUNTIME_FOLDER}/LICENSE.txt": (files("export.web") / LICENCE).read_bytes(),
    }
    notices = Path(onnxruntime.__file__).with_name("ThirdPartyNotices.txt")  # a few builds of it bring none
    with contextlib.suppress(OSError):
        found[f"{RUNTIME_FOLDER}/{notices.name}"] = notices.read_bytes()
    return found
