"""Pre-trained weights by name: where they come from, the cache they go to, and the lock file that pins their hashes.

A file appears in the cache only when it is whole and its SHA-256 is the pinned one. The hash is pinned on first use in
`latentclr-weights.lock` in the working directory: commit that file, and everybody else gets the same bytes or an error.

Environment: LATENTCLR_CACHE (default ~/.cache/latentclr) is the cache, LATENTCLR_LOCK another lock file. Nothing goes
over the network for a file that is in the cache, so a copied cache folder works offline.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from latentclr.errors import GeneratorError, SaveError, nearest
from latentclr.files import sha256_of
from latentclr.generators.stylegan2.classes import CLASSES, address_of
from latentclr.generators.weights.cache import by_hand, cache_folder
from latentclr.generators.weights.transfer import Unreachable, is_page, transfer
from serving.contract.documents import read_json_file
from serving.contract.files import locked, write_whole

LOCK_FILE = "latentclr-weights.lock"
_BIGGAN = "https://s3.amazonaws.com/models.huggingface.co/biggan"  # what pytorch_pretrained_biggan 0.1.1 names
_NLTK = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora"


@dataclass(frozen=True)
class Weights:
    """Something that can be fetched.

    Attributes:
        name: What the user calls it.
        files: (name in the cache folder, address) of each of its files.
        about: One line.
        main: The file that holds the weights; None if the folder as a whole is what others read.
        by_hand: Only a browser can download it.
    """

    name: str
    files: tuple[tuple[str, str], ...]
    about: str
    main: str | None = None
    by_hand: bool = False

    @property
    def folder(self) -> Path:
        """Where it lies in the cache."""
        return cache_folder() / self.name

    @property
    def path(self) -> Path:
        """What to give to `generator.weights`."""
        return self.folder / self.main if self.main else self.folder

    def cached(self) -> bool:
        """Return whether all files are in the cache."""
        return all((self.folder / file).is_file() for file, _ in self.files)

    def how(self) -> str:
        """Say how to get what is not in the cache."""
        if not self.by_hand:
            return f"run `latentclr weights fetch {self.name}`"
        return "; ".join(by_hand(self.name, url, self.folder / file) for file, url in self.files)


def _biggan(resolution: int) -> Weights:
    name = f"biggan-deep-{resolution}"
    files = tuple((file, f"{_BIGGAN}/{name}-{file}") for file in ("config.json", "pytorch_model.bin"))
    return Weights(name, files, f"BigGAN-deep, ImageNet, {resolution} x {resolution} (DeepMind, Apache-2.0)")


def _stylegan2(class_name: str) -> Weights:
    about = f"StyleGAN2 {class_name}, {CLASSES[class_name][0]} x {CLASSES[class_name][0]} (the origin's)"
    file = f"{class_name}.pt"
    # Google Drive sends a page with a form instead of a file of this size, and has changed that form several times.
    return Weights(f"stylegan2-{class_name}", ((file, address_of(class_name)),), about, file, by_hand=True)


WEIGHTS = {
    weights.name: weights
    for weights in (
        *(_biggan(resolution) for resolution in (128, 256, 512)),
        *map(_stylegan2, CLASSES),
        Weights("wordnet", (("wordnet.zip", f"{_NLTK}/wordnet.zip"),), "WordNet 3.0 (Princeton)", "wordnet.zip"),
    )
}


def weights_named(name: str) -> Weights:
    """Return an entry of the registry.

    Raises:
        GeneratorError: There is none of that name; the message lists all.
    """
    if name not in WEIGHTS:
        raise GeneratorError(f"no weights named {name!r}{nearest(name, WEIGHTS)} (known: {', '.join(WEIGHTS)})")
    return WEIGHTS[name]


def lock_file() -> Path:
    """Return LATENTCLR_LOCK, or `latentclr-weights.lock` in the working directory."""
    return Path(os.environ.get("LATENTCLR_LOCK") or LOCK_FILE)


def fetch(weights: Weights) -> Path:
    """Download what is not in the cache yet, and check or pin every file.

    Returns:
        What to give to `generator.weights`.

    Raises:
        GeneratorError: The server cannot be reached, sends something else than the pinned bytes, or breaks off (what
            came is kept, and the next call goes on from there); or it is to be downloaded by hand, and has not been.
        SaveError: The cache or the lock file cannot be written.
    """
    if weights.by_hand and not weights.cached():
        _make_room(weights.folder)
        raise GeneratorError(f"{weights.name} comes by hand: {weights.how()}")
    for file, url in weights.files:
        target = weights.folder / file
        if not target.is_file():
            try:
                transfer(url, target, expected=_pinned(url))
            except Unreachable as error:
                raise Unreachable(f"{error} ({_offline(weights)})") from None
        _check_or_pin(url, target)
    return weights.path


def verify(weights: Weights) -> list[tuple[Path, str]]:
    """Compare the files in the cache with the lock file, pinning those that are not pinned yet.

    Returns:
        (path, SHA-256) of each file.

    Raises:
        GeneratorError: A file is missing or is not the pinned one.
    """
    for file, _ in weights.files:
        if not (weights.folder / file).is_file():
            missing = f"{weights.name} is not in the cache: no {weights.folder / file}"
            raise GeneratorError(f"{missing}; {weights.how()}")
    return [(weights.folder / file, _check_or_pin(url, weights.folder / file)) for file, url in weights.files]


def read_lock() -> dict[str, dict[str, str | int]]:
    """Read the lock file: address -> {sha256, size}; empty if there is none.

    Raises:
        GeneratorError: It is damaged. It is never ignored, for that would pin anew.
    """
    path = lock_file()
    try:
        content = read_json_file(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise GeneratorError(f"{path} cannot be read: {error}") from None
    except ValueError as error:
        raise GeneratorError(f"{path} cannot be read: it {error}") from None
    entries = content.get("files") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not all(_is_entry(entry) for entry in entries.values()):
        raise GeneratorError(f'{path} is not a lock file: expected {{"files": {{address: {{sha256, size}}}}}}')
    return entries


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    digest = entry.get("sha256")
    return isinstance(digest, str) and len(digest) == 64 and isinstance(entry.get("size"), int)


def _pinned(url: str) -> str | None:
    entry = read_lock().get(url)
    return None if entry is None else str(entry["sha256"])


def _check_or_pin(url: str, path: Path) -> str:
    digest, pinned = sha256_of(path), _pinned(url)
    if pinned is None and is_page(path):
        raise GeneratorError(f"{path} is a web page, not the file: open {url} in a browser and save what it downloads")
    if pinned is None:
        _pin(url, {"sha256": digest, "size": path.stat().st_size})
    elif digest != pinned:
        raise GeneratorError(
            f"{path} is not the file that {lock_file()} pins: expected SHA-256 {pinned}, got {digest};"
            " delete the file and fetch it again, or, if the change is meant, delete its entry in the lock file"
        )
    return digest


def _pin(url: str, entry: dict[str, str | int]) -> None:
    path = lock_file().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            entries = {**read_lock(), url: entry}
            write_whole(path, json.dumps({"files": dict(sorted(entries.items()))}, indent=2) + "\n")
    except OSError as error:
        raise SaveError(f"could not write {path}: {error.strerror or error}") from error


def _make_room(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)  # a browser saves into folders that are there
    except OSError as error:
        raise SaveError(f"could not make {folder}: {error.strerror or error}") from error


def _offline(weights: Weights) -> str:
    files = ", ".join(f"{url} as {file}" for file, url in weights.files)
    return f"offline: download elsewhere and put into {weights.folder}: {files}"
