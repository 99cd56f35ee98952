"""What a client has to know of the served model before it can send anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from numpy.typing import NDArray

from serving.contract.layout import MAX_ROWS
from serving.contract.manifest import Manifest, parse_manifest
from serving.contract.tensors import OUTPUTS, find_output
from serving.errors import ManifestError


@dataclass(frozen=True)
class Description:
    """What a client has to know of the served model.

    Attributes:
        name: The name under which it is served.
        manifest: The model's own description.
        max_batch_size: Rows a request may have; 0 means that the server sets no limit.
        outputs: Names of the outputs that are asked for: an editor's pictures and the marks of good rows, or the codes
            of an encoder.
        image_bytes: Size of one picture, H * W * 3; 0 of an encoder, which draws none.
        versions: The model's versions that it describes; empty if the configuration leaves that to the server.
        backend: Triton's name for what runs it; empty if the configuration leaves that to the server.
        accelerators: What the backend is to use, such as `tensorrt fp16`.
    """

    name: str
    manifest: Manifest
    max_batch_size: int
    outputs: tuple[str, ...]
    image_bytes: int
    versions: tuple[str, ...] = ()
    backend: str = ""
    accelerators: tuple[str, ...] = ()

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
    """What a server sends back: the outputs that were asked for, in order, and the version they are of (empty: unsaid).

    Those of an editor are pictures [N, H, W, 3] and marks [N, 1]; that of an encoder is codes, [N, D] or [N, L, D].
    """

    outputs: tuple[NDArray[Any], ...]
    version: str


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
    its = parse_manifest(manifest)
    names = tuple(_output(outputs, output) for output in ([its.latent.tensor] if its.encoder_of else OUTPUTS))
    counted = max_rows is None or (max_rows.isdecimal() and max_rows.isascii() and len(max_rows) < 10)
    if max_batch_size == 0 and max_rows is not None and not counted:
        raise ManifestError(f"model {name!r}: parameter {MAX_ROWS} must be a number of rows, got {max_rows[:40]!r}")
    return Description(
        name=name,
        manifest=its,
        max_batch_size=max_batch_size or int(max_rows or 0),
        outputs=names,
        image_bytes=0 if its.encoder_of else math.prod(its.generator.size) * 3,
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
