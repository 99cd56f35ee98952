"""Finding the golden requests that belong to a served model, and no others."""

from __future__ import annotations

from pathlib import Path

from serving.client.description import Description
from serving.contract.files import sha256_of
from serving.contract.golden import GOLDEN_FILE, Golden, GoldenError, identity_of, read_golden
from serving.contract.layout import versions_of

_SHOWN = {"weights_sha256": "weights", "checkpoint_sha256": "checkpoint"}


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
    path = _find(repository / description.name, digest) if file is None else file
    try:
        same = sha256_of(path) == digest
    except OSError as error:
        raise GoldenError(f"{path} cannot be read: {error.strerror or error}") from None
    golden = read_golden(path)
    served = identity_of(description.manifest.as_dict())
    for key, value in served.items():
        if (other := golden.about.get(key)) != value:
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
    return path, golden


def _find(model: Path, digest: str) -> Path:
    """Return the golden file of a model with this SHA-256; else the newest, to be refused with a reason."""
    files = [model / str(version) / GOLDEN_FILE for version in reversed(versions_of(model))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise GoldenError(
            f"there is no {model}/VERSION/{GOLDEN_FILE}: give --repository PATH, or --golden FILE where the server's "
            "repository is on another machine"
        )
    return next((file for file in files if sha256_of(file) == digest), files[0])


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
