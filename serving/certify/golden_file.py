"""Finding the golden requests and photos that belong to a served model, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.client.description import Description
from serving.contract.files import sha256_of
from serving.contract.golden import GOLDEN_FILE, LARGEST_FILE, Golden, GoldenError, identity_of, read_golden
from serving.contract.golden_photos import GoldenPhotos, photos_identity_of, read_golden_photos
from serving.contract.layout import encoder_of, versions_of

_SHOWN = {"weights_sha256": "weights", "checkpoint_sha256": "checkpoint", "encoder_sha256": "encoder"}


def open_golden(description: Description, repository: Path, file: Path | None) -> tuple[Path, Golden]:
    """Read the golden requests of a served model; its manifest names their SHA-256.

    Args:
        description: What the server says of the model.
        repository: Model repository in which they are looked for, in every version of the model.
        file: The file itself, where the server's repository cannot be seen from here.

    Returns:
        The file and what it holds.

    Raises:
        GoldenError: There are none, or they are of another model or version, or were changed.
    """
    digest = description.manifest.files_sha256.get(GOLDEN_FILE)
    if digest is None:
        raise GoldenError(f"{description.name} was published without golden requests: export it again")
    path, same = _open(repository / description.name, digest, file, "--golden")
    golden = read_golden(path)
    _check_whose(path, golden.about, identity_of(description.manifest.as_dict()), same, description)
    return path, golden


def open_golden_photos(description: Description, repository: Path, file: Path | None) -> tuple[Path, GoldenPhotos]:
    """Read the golden photos of a served model's encoder, as `open_golden`.

    Args:
        description: What the server says of the editor, which was published with an encoder.
        repository: As there.
        file: As there.

    Raises:
        GoldenError: As there.
    """
    encoder, name = description.manifest.encoder, encoder_of(description.name)
    digest = None if encoder is None else encoder.files_sha256.get(GOLDEN_FILE)
    if encoder is None or digest is None:
        raise GoldenError(f"{name} was published without golden photos: export it again")
    path, same = _open(repository / name, digest, file, "--golden-photos")
    golden = read_golden_photos(path)
    served = photos_identity_of(description.manifest.as_dict(), encoder.sha256)
    _check_whose(path, golden.about, served, same, description)
    return path, golden


def _open(model: Path, digest: str, file: Path | None, option: str) -> tuple[Path, bool]:
    """Return the file to read, and whether it is the one with this SHA-256."""
    path = _find(model, digest, option) if file is None else file
    try:
        if (not path.is_file() and path.exists()) or (path.is_file() and path.stat().st_size > LARGEST_FILE):
            raise GoldenError(f"{path} is no file of at most {LARGEST_FILE >> 20} MiB")
        return path, sha256_of(path) == digest
    except OSError as error:
        raise GoldenError(f"{path} cannot be read: {error.strerror or error}") from None


def _check_whose(
    path: Path, about: Mapping[str, Any], served: Mapping[str, Any], same: bool, description: Description
) -> None:
    """Refuse what is another model's; what is of this one and has other bytes is another version's, or was changed."""
    for key, value in served.items():
        if (other := about.get(key)) != value:
            what = _SHOWN.get(key, key.replace("_", " "))
            raise GoldenError(
                f"{path} is of another model than {description.name}: its {what} is {_short(other)}, "
                f"the server's {_short(value)}"
            )
    if not same:
        version = ", ".join(description.versions) or "of the server"
        raise GoldenError(
            f"{path} is not the golden file of {description.name} version {version}: "
            "it is another version's, or was changed"
        )


def _find(model: Path, digest: str, option: str) -> Path:
    """Return the golden file of a model with this SHA-256; else the newest, to be refused with a reason."""
    files = [model / str(version) / GOLDEN_FILE for version in reversed(versions_of(model))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise GoldenError(
            f"there is no {model}/VERSION/{GOLDEN_FILE}: give --repository PATH, or {option} FILE where the "
            "server's repository is on another machine"
        )
    return next((file for file in files if sha256_of(file) == digest), files[0])


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
