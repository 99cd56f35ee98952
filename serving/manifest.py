"""The manifest: how a served editor describes itself.

The exporter writes it as JSON into `parameters.manifest.string_value` of `config.pbtxt`, and Triton hands it to any
client that asks for the model's configuration. A client therefore needs nothing but the server's address.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.errors import ManifestError

FORMAT = 1
SAMPLERS = ("standard_normal", "truncated_normal")
LATENT_INPUTS = ("z", "w", "w+")


@dataclass(frozen=True)
class Classes:
    """The classes of a conditional generator: `names[i]` belongs to `class_id` i."""

    names: tuple[str, ...]
    default: tuple[int, ...]


@dataclass(frozen=True)
class Generator:
    """The generator whose pictures are edited; `random_weights` marks one that was never trained."""

    name: str
    resolution: int
    weights_sha256: str
    random_weights: bool
    classes: Classes | None


@dataclass(frozen=True)
class Latent:
    """The latent code: size `dim`, fed to the generator at `layers` places, drawn by `sampler`.

    `input` is what a request brings: `z`, which a seed can draw, or codes from GAN inversion, `w` or `w+`.
    """

    input: str
    dim: int
    layers: int
    sampler: str
    truncation: float | None

    @property
    def tensor(self) -> str:
        """Name of the model's latent input."""
        return self.input[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one code: [D], or [L, D] for `w+`."""
        return (self.layers, self.dim) if self.input == "w+" else (self.dim,)


@dataclass(frozen=True)
class Directions:
    """`count` directions; `alpha_range` is a hint for sliders, not a limit."""

    count: int
    model: str
    alpha_range: tuple[float, float]


@dataclass(frozen=True)
class NamedEdit:
    """A direction that somebody gave a name to, and the latent inputs at which it acts (empty: all)."""

    direction: int
    layers: tuple[int, ...]
    alpha_range: tuple[float, float]
    note: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything a client has to know of a served editor."""

    name: str
    generator: Generator
    latent: Latent
    directions: Directions
    edits: Mapping[str, NamedEdit]
    files_sha256: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)


def parse_manifest(text: str) -> Manifest:
    """Read a manifest from its JSON; keys that this version does not know are ignored.

    Args:
        text: The JSON text.

    Raises:
        ManifestError: It is not JSON, of another format number, or a key is missing or out of range.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"the model's manifest is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise ManifestError(f"the model's manifest must have format {FORMAT}, got {found!r}")
    try:
        manifest = _build(raw)
    except KeyError as error:
        raise ManifestError(f"the model's manifest lacks the key {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"the model's manifest is invalid: {error}") from error
    _check(manifest)
    return manifest


def _build(raw: Mapping[str, Any]) -> Manifest:
    generator, latent, directions = raw["generator"], raw["latent"], raw["directions"]
    classes = generator.get("classes")
    truncation = latent.get("truncation")
    slider = _pair(directions.get("alpha_range", (-6.0, 6.0)))
    return Manifest(
        name=str(raw["name"]),
        generator=Generator(
            name=str(generator["name"]),
            resolution=int(generator["resolution"]),
            weights_sha256=str(generator.get("weights_sha256", "")),
            random_weights=bool(generator.get("random_weights", False)),
            classes=None
            if classes is None
            else Classes(tuple(map(str, classes["names"])), tuple(map(int, classes.get("default") or ()))),
        ),
        latent=Latent(
            input=str(latent.get("input", "z")),
            dim=int(latent["dim"]),
            layers=int(latent["layers"]),
            sampler=str(latent["sampler"]),
            truncation=None if truncation is None else float(truncation),
        ),
        directions=Directions(int(directions["count"]), str(directions.get("model", "")), slider),
        edits={
            str(name): NamedEdit(
                direction=int(edit["direction"]),
                layers=tuple(int(layer) for layer in edit.get("layers") or ()),
                alpha_range=_pair(edit.get("alpha_range", slider)),
                note=str(edit.get("note", "")),
            )
            for name, edit in (raw.get("edits") or {}).items()
        },
        files_sha256=dict(raw.get("files_sha256") or {}),
        versions=dict(raw.get("versions") or {}),
        parity=dict(raw.get("parity") or {}),
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _check(manifest: Manifest) -> None:
    """Refuse a manifest that would make later requests fail in obscure ways."""
    sizes = {
        "generator.resolution": manifest.generator.resolution,
        "latent.dim": manifest.latent.dim,
        "latent.layers": manifest.latent.layers,
        "directions.count": manifest.directions.count,
    }
    for key, size in sizes.items():
        if size < 1:
            raise ManifestError(f"the model's manifest is invalid: {key} must be at least 1, got {size}")
    latent, count = manifest.latent, manifest.directions.count
    problem = ""
    if latent.input not in LATENT_INPUTS:
        problem = f"latent.input must be one of {', '.join(LATENT_INPUTS)}, got {latent.input!r}"
    if latent.sampler not in SAMPLERS:
        problem = f"latent.sampler must be one of {', '.join(SAMPLERS)}, got {latent.sampler!r}"
    if latent.sampler == "truncated_normal" and latent.truncation is None:
        problem = "latent.truncation is missing for truncated_normal"
    for name, edit in manifest.edits.items():
        if not 0 <= edit.direction < count:
            problem = f"edit {name!r} has direction {edit.direction}, not in [0, {count})"
        if any(not 0 <= layer < latent.layers for layer in edit.layers):
            problem = f"edit {name!r} has layers {list(edit.layers)}, not in [0, {latent.layers})"
    if problem:
        raise ManifestError(f"the model's manifest is invalid: {problem}")
