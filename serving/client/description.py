"""What a client has to know of the served model before it can send anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.contract.layout import MAX_ROWS
from serving.contract.manifest import Manifest, parse_manifest
from serving.contract.tensors import IMAGE, VALID, find_output
from serving.errors import ManifestError


@dataclass(frozen=True)
class Description:
    """What a client has to know of the served model.

    Attributes:
        name: The name under which it is served.
        manifest: The model's own description.
        max_batch_size: Rows a request may have; 0 means that the server sets no limit.
        image: Name of the output that holds the pictures; of an encoder, the codes.
        valid: Name of the output that marks good rows; empty for an encoder, which has none.
        image_bytes: Size of one picture, H * W * 3; 0 if the configuration leaves it open, and for an encoder.
        versions: The model's versions that it describes; empty if the configuration leaves that to the server.
        backend: Triton's name for what runs it; empty if the configuration leaves that to the server.
        accelerators: What the backend is to use, such as `tensorrt fp16`.
    """

    name: str
    manifest: Manifest
    max_batch_size: int
    image: str
    valid: str
    image_bytes: int
    versions: tuple[str, ...] = ()
    backend: str = ""
    accelerators: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that a request asks for."""
        return (self.image, self.valid) if self.valid else (self.image,)

    def seen(self, version: str) -> Description | None:
        """Compare with the version that an answer came from.

        Args:
            version: As the server says it; empty if it says nothing.

        Returns:
            The description, which from now on is of this version, or None if it is of another one.
        """
        if not version or version in self.versions:
            return self
        return None if self.versions else replace(self, versions=(version,))


class Answer(NamedTuple):
    """What a server sends back: pictures [N, H, W, 3], marks [N, 1], and the version that drew them (empty: unsaid).

    An encoder's has codes [N, D] or [N, L, D] in place of pictures, and no marks.
    """

    images: NDArray[Any]
    valid: NDArray[np.bool_]
    version: str

    @staticmethod
    def of(description: Description, read: Callable[[str], NDArray[Any]], version: str) -> Answer:
        """Read the outputs by name.

        Args:
            description: The model.
            read: Returns an output.
            version: As the server says it.
        """
        valid = read(description.valid) if description.valid else np.ones(0, np.bool_)
        return Answer(read(description.image), valid, version)


def describe_model(
    name: str,
    max_batch_size: int,
    outputs: Mapping[str, Sequence[int]],
    manifest: str | None,
    versions: Sequence[int | str] = (),
    max_rows: str | None = None,
    backend: str = "",
    accelerators: Sequence[tuple[str, Mapping[str, str]]] = (),
) -> Description:
    """Make sense of a model's configuration, which each protocol brings in a form of its own.

    Args:
        name: The model's name.
        max_batch_size: As configured.
        outputs: Shape by output name, of one row unless the configured batch size is 0; -1 where it is open.
        manifest: The text of the parameter `manifest`, None if there is none.
        versions: Those of a specific `version_policy`, if that is the model's.
        max_rows: The text of the parameter `MAX_ROWS`: the batch size of a model that has none configured.
        backend: As configured.
        accelerators: Name and parameters of each execution accelerator.

    Raises:
        ManifestError: There is no manifest, it cannot be understood, or an output is missing.
    """
    if manifest is None:
        raise ManifestError(f"model {name!r} has no manifest; `latentclr export` writes one")
    said = parse_manifest(manifest)
    if said.encoder_of:
        image, valid = _output(outputs, said.latent.tensor), ""
    else:
        image, valid = (_output(outputs, output) for output in (IMAGE, VALID))
    shape = list(outputs[image])
    if max_batch_size == 0:
        shape = shape[1:]  # of one row
        if max_rows is not None and not (max_rows.isdecimal() and max_rows.isascii() and len(max_rows) < 10):
            raise ManifestError(f"model {name!r}: parameter {MAX_ROWS} must be a number of rows, got {max_rows[:40]!r}")
    return Description(
        name=name,
        manifest=said,
        max_batch_size=max_batch_size or int(max_rows or 0),
        image=image,
        valid=valid,
        image_bytes=math.prod(shape) if valid and min(shape, default=0) > 0 else 0,
        versions=tuple(str(version) for version in versions),
        backend=backend,
        accelerators=tuple(
            " ".join([accelerator, *parameters.get("precision_mode", "").lower().split()])
            for accelerator, parameters in accelerators
        ),
    )


def _output(names: Mapping[str, Sequence[int]], output: str) -> str:
    name = find_output(names, output)
    if name is None:
        raise ManifestError(f"the served model has no output {output!r}, only {', '.join(names)}")
    return name
