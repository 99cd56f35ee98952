"""What a client has to know of the served model before it can send anything."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.errors import ManifestError
from serving.manifest import Manifest, parse_manifest


@dataclass(frozen=True)
class Description:
    """What a client has to know of the served model.

    Attributes:
        name: The name under which it is served.
        manifest: The model's own description.
        max_batch_size: Rows a request may have; 0 means that the server sets no limit.
        image: Name of the output that holds the pictures.
        valid: Name of the output that marks good rows.
        image_bytes: Size of one picture, H * W * 3; 0 if the configuration leaves it open.
    """

    name: str
    manifest: Manifest
    max_batch_size: int
    image: str
    valid: str
    image_bytes: int


def describe_model(
    name: str, max_batch_size: int, outputs: Mapping[str, Sequence[int]], manifest: str | None
) -> Description:
    """Make sense of a model's configuration, which each protocol brings in a form of its own.

    Args:
        name: The model's name.
        max_batch_size: As configured.
        outputs: Shape of one row by output name; -1 where it is open.
        manifest: The text of the parameter `manifest`, None if there is none.

    Raises:
        ManifestError: There is no manifest, it cannot be understood, or an output is missing.
    """
    if manifest is None:
        raise ManifestError(f"model {name!r} has no manifest; `latentclr export` writes one")
    image = _output(outputs, "image")
    return Description(
        name=name,
        manifest=parse_manifest(manifest),
        max_batch_size=max_batch_size,
        image=image,
        valid=_output(outputs, "valid"),
        image_bytes=max(0, math.prod(outputs[image])) if min(outputs[image], default=0) > 0 else 0,
    )


def _output(names: Mapping[str, Sequence[int]], base: str) -> str:
    """Find an output by its plain name or by LibTorch's `<name>__<index>`."""
    for name in names:
        if name == base or name.startswith(f"{base}__"):
            return name
    raise ManifestError(f"the served model has no output {base!r}, only {', '.join(names)}")
