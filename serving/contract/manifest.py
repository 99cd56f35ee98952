"""The manifest: how a served editor describes itself.

The exporter writes it as JSON into `parameters.manifest.string_value` of `config.pbtxt`, and Triton hands it to any
client that asks for the model's configuration. A client therefore needs nothing but the server's address.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from serving.contract.documents import read_manifest
from serving.contract.named_edit import DEFAULT_ALPHA
from serving.contract.named_edit import NamedEdit as NamedEdit  # part of this module's names
from serving.contract.tensors import code_tensor
from serving.errors import ManifestError

FORMAT = 1
SAMPLERS = ("standard_normal", "truncated_normal")
LATENT_INPUTS = ("z", "w", "w+")
_LONGEST_NAME = 500
_MOST = 10_000_000
_LARGEST = 1e30  # what float32 still takes


@dataclass(frozen=True)
class Classes:
    """The classes of a conditional generator: `names[i]` belongs to `class_id` i."""

    names: tuple[str, ...]
    default: tuple[int, ...]


@dataclass(frozen=True)
class Generator:
    """The generator whose pictures are edited: `resolution` pixels high, and `width` wide if that differs.

    `random_weights` marks one that was never trained; `truncation` is what its latent noise was cut to, if it was.
    """

    name: str
    resolution: int
    weights_sha256: str
    random_weights: bool
    classes: Classes | None
    truncation: float | None = None
    width: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a picture in pixels."""
        return self.resolution, self.width or self.resolution


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
        return code_tensor(self.input)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one code: [D], or [L, D] for `w+`."""
        return (self.layers, self.dim) if self.input == "w+" else (self.dim,)


@dataclass(frozen=True)
class DirectionScore:
    """What `latentclr score` found of a direction.

    Attributes:
        range: (low, high), the strengths between which a picture is still one of the generator's.
        twin_of: A direction that does the same, and is to be kept in its place; None if there is none.
        name: What it might be called; empty if the evidence is not enough.
        top: Its largest effects: attribute, and effect in standard deviations of the attribute.
    """

    range: tuple[float, float]
    twin_of: int | None = None
    name: str = ""
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Directions:
    """`count` directions; `alpha_range` is a hint for sliders, not a limit; the hash is of their checkpoint's file.

    At most `max_edits` of them can be applied together; None if the model does not say. They act at `layers`, the
    latent inputs that they were trained on, unless a request says otherwise; empty for all. `iteration` and
    `feature_layer` say how they were trained. `scores` has an entry for each, or none if the run was not scored.
    """

    count: int
    model: str
    alpha_range: tuple[float, float]
    max_edits: int | None = None
    checkpoint_sha256: str = ""
    layers: tuple[int, ...] = ()
    iteration: int | None = None
    feature_layer: str = ""
    scores: tuple[DirectionScore, ...] = ()

    def range_of(self, direction: int) -> tuple[float, float]:
        """Return the range of a direction's slider: its own if it was scored."""
        return self.scores[direction].range if self.scores else self.alpha_range


@dataclass(frozen=True)
class Preview:
    """A model beside this one whose pictures have `size` (H, W) pixels; it is the one with these files and no other."""

    size: tuple[int, int]
    files_sha256: Mapping[str, str]


@dataclass(frozen=True)
class EncoderInfo:
    """The encoder beside a model, which finds the codes of photos; it is the one with these files and no other.

    Attributes:
        space: What its codes are: `z`, `w` or `w+`, the same as the model's `latent.input`.
        sha256: Of the file that it was exported from, `encoder.safetensors`.
        files_sha256: SHA-256 by name of the files of NAME_encoder.
        face: Where a face's five points lie in the generator's pictures, (x, y) in shares of width and height; None if
            it draws no faces.
        figures: What the encoder reached when it was trained, by name.
    """

    space: str
    sha256: str
    files_sha256: Mapping[str, str]
    face: tuple[tuple[float, float], ...] | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything a client has to know of a served editor.

    `parity` holds a certificate by engine, and `precision` is that of their arithmetic. `preview` tells of the model
    that draws smaller pictures while a slider moves, if there is one; in the manifest of that model `preview_of` names
    the full one, and `likeness` tells how much its pictures are like the full ones. `encoder` tells of the model that
    finds the codes of photos, if there is one; in its manifest `encoder_of` names the full model, and `photo_of` does
    in that of the ensemble which edits a photo in one request.
    """

    name: str
    generator: Generator
    latent: Latent
    directions: Directions
    edits: Mapping[str, NamedEdit]
    files_sha256: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    preview: Preview | None = None
    preview_of: str = ""
    likeness: Mapping[str, Any] = field(default_factory=dict)
    encoder: EncoderInfo | None = None
    encoder_of: str = ""
    photo_of: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what `parse_manifest` reads, as plain data for JSON."""
        classes, directions = self.generator.classes, self.directions
        return {
            "format": FORMAT,
            "name": self.name,
            "generator": {
                "name": self.generator.name,
                "resolution": self.generator.resolution,
                **({} if self.generator.width is None else {"width": self.generator.width}),
                "weights_sha256": self.generator.weights_sha256,
                "random_weights": self.generator.random_weights,
                "classes": classes and {"names": list(classes.names), "default": list(classes.default)},
                **({} if self.generator.truncation is None else {"truncation": self.generator.truncation}),
            },
            "latent": asdict(self.latent),
            "directions": {
                "count": directions.count,
                "model": directions.model,
                "alpha_range": list(directions.alpha_range),
                "max_edits": directions.max_edits,
                "layers": list(directions.layers) or None,
                "checkpoint_sha256": directions.checkpoint_sha256,
                "iteration": directions.iteration,
                "feature_layer": directions.feature_layer,
                **({"scores": [_score_entry(score) for score in directions.scores]} if directions.scores else {}),
            },
            "edits": {name: edit_entry(edit) for name, edit in self.edits.items()},
            "files_sha256": dict(self.files_sha256),
            "versions": dict(self.versions),
            "parity": dict(self.parity),
            "precision": self.precision,
            **({"preview": preview_entry(self.preview)} if self.preview else {}),
            **({"preview_of": self.preview_of, "likeness": dict(self.likeness)} if self.preview_of else {}),
            **({"encoder": encoder_entry(self.encoder)} if self.encoder else {}),
            **({"encoder_of": self.encoder_of} if self.encoder_of else {}),
            **({"photo_of": self.photo_of} if self.photo_of else {}),
        }


def preview_entry(preview: Preview) -> dict[str, Any]:
    """Write what a full model says of its preview as an entry of its manifest."""
    return {"size": list(preview.size), "files_sha256": dict(preview.files_sha256)}


def encoder_entry(encoder: EncoderInfo) -> dict[str, Any]:
    """Write what a model says of its encoder as an entry of its manifest."""
    return {
        "space": encoder.space,
        "sha256": encoder.sha256,
        "files_sha256": dict(encoder.files_sha256),
        "face": None if encoder.face is None else [list(point) for point in encoder.face],
        "figures": dict(encoder.figures),
    }


def edit_entry(edit: NamedEdit) -> dict[str, Any]:
    """Write a named edit as an entry of a manifest."""
    return {
        "direction": edit.direction,
        "layers": list(edit.layers),
        "alpha_range": [float(end) for end in edit.alpha],
        "note": edit.note,
        **({"reverse": True} if edit.reverse else {}),
    }


def _score_entry(score: DirectionScore) -> dict[str, Any]:
    return {
        "range": list(score.range),
        "twin_of": score.twin_of,
        "name": score.name,
        "top": [list(effect) for effect in score.top],
    }


def parse_manifest(text: str) -> Manifest:
    """Read a manifest from its JSON; keys that this version does not know are ignored.

    Args:
        text: The JSON text.

    Raises:
        ManifestError: It is not JSON, too large, of another format number, or a key is missing or out of range.
    """
    try:
        raw = read_manifest(text)
    except ValueError as error:
        raise ManifestError(f"the model's manifest {error}") from error
    try:
        str(raw).encode()  # a half of a surrogate pair cannot be printed or sent
    except ValueError as error:
        raise ManifestError(f"the model's manifest is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise ManifestError(f"the model's manifest must have format {FORMAT}, got {_shown(found)}")
    try:
        manifest = _build(raw)
    except KeyError as error:
        raise ManifestError(f"the model's manifest lacks the key {error}") from error
    except ValueError as error:
        raise ManifestError(f"the model's manifest is invalid: {error}") from error
    _check(manifest)
    return manifest


def _build(raw: Mapping[str, Any]) -> Manifest:
    generator, latent, directions = (_table(raw[key], key) for key in ("generator", "latent", "directions"))
    truncation = latent.get("truncation")
    most, iteration = directions.get("max_edits"), directions.get("iteration")
    slider = _range(directions.get("alpha_range", list(DEFAULT_ALPHA)), "directions.alpha_range")
    return Manifest(
        name=_name(raw["name"], "name"),
        generator=read_generator(generator),
        latent=Latent(
            input=_one_of(latent.get("input", "z"), "latent.input", LATENT_INPUTS),
            dim=_whole(latent["dim"], "latent.dim", 1, _MOST),
            layers=_whole(latent["layers"], "latent.layers", 1, _MOST),
            sampler=_one_of(latent["sampler"], "latent.sampler", SAMPLERS),
            truncation=None if truncation is None else _number(truncation, "latent.truncation"),
        ),
        directions=Directions(
            _whole(directions["count"], "directions.count", 1, _MOST),
            _word(directions.get("model", ""), "directions.model"),
            slider,
            max_edits=None if most is None else _whole(most, "directions.max_edits", 1, _MOST),
            checkpoint_sha256=_word(directions.get("checkpoint_sha256", ""), "directions.checkpoint_sha256"),
            layers=_layers(directions, "directions"),
            iteration=None if iteration is None else _whole(iteration, "directions.iteration"),
            feature_layer=_word(directions.get("feature_layer", ""), "directions.feature_layer"),
            scores=tuple(
                _score(entry, f"directions.scores[{number}]")
                for number, entry in enumerate(_list(directions.get("scores") or [], "directions.scores"))
            ),
        ),
        edits={
            name: NamedEdit(
                direction=_whole(edit["direction"], f"edits.{name}.direction"),
                layers=_layers(edit, f"edits.{name}"),
                alpha=_range(edit.get("alpha_range", list(slider)), f"edits.{name}.alpha_range"),
                note=_text(edit.get("note", ""), f"edits.{name}.note"),
                reverse=_truth(edit.get("reverse", False), f"edits.{name}.reverse"),
            )
            for name, edit in _tables(raw.get("edits") or {}, "edits")
        },
        files_sha256=_words(raw.get("files_sha256") or {}, "files_sha256"),
        versions=_words(raw.get("versions") or {}, "versions"),
        parity=dict(_table(raw.get("parity") or {}, "parity")),
        precision=_name(raw.get("precision", "fp32"), "precision"),
        preview=_preview(raw.get("preview")),
        preview_of=_word(raw.get("preview_of", ""), "preview_of"),
        likeness=dict(_table(raw.get("likeness") or {}, "likeness")),
        encoder=_encoder(raw.get("encoder")),
        encoder_of=_word(raw.get("encoder_of", ""), "encoder_of"),
        photo_of=_word(raw.get("photo_of", ""), "photo_of"),
    )


def _preview(value: object) -> Preview | None:
    if value is None:
        return None
    raw = _table(value, "preview")
    files = _words(raw.get("files_sha256") or {}, "preview.files_sha256")
    size = [_whole(side, "preview.size", 1, _MOST) for side in _list(raw["size"], "preview.size")]
    if len(size) != 2:
        raise ValueError(f"preview.size must be [height, width], got {_shown(raw['size'])}")
    return Preview((size[0], size[1]), files)


def _encoder(value: object) -> EncoderInfo | None:
    if value is None:
        return None
    raw = _table(value, "encoder")
    return EncoderInfo(
        space=_one_of(raw["space"], "encoder.space", LATENT_INPUTS),
        sha256=_word(raw.get("sha256", ""), "encoder.sha256"),
        files_sha256=_words(raw.get("files_sha256") or {}, "encoder.files_sha256"),
        face=_face(raw.get("face")),
        figures={
            _name(name, "encoder.figures"): _number(figure, f"encoder.figures.{name}")
            for name, figure in _table(raw.get("figures") or {}, "encoder.figures").items()
        },
    )


def _face(value: object) -> tuple[tuple[float, float], ...] | None:
    if value is None:
        return None
    points = [_list(point, "encoder.face") for point in _list(value, "encoder.face")]
    if len(points) != 5 or any(len(point) != 2 for point in points):
        raise ValueError(f"encoder.face must be five points [x, y], got {_shown(value)}")
    found = tuple((_number(x, "encoder.face"), _number(y, "encoder.face")) for x, y in points)
    if not all(-1 <= end <= 2 for point in found for end in point):
        raise ValueError(f"encoder.face must be five points of the picture, got {_shown(value)}")
    return found


def read_generator(raw: Mapping[str, Any]) -> Generator:
    """Read what a generator says of itself.

    Raises:
        KeyError: A key is missing.
        ValueError: A value is out of range.
    """
    classes, truncation, width = raw.get("classes"), raw.get("truncation"), raw.get("width")
    return Generator(
        name=_name(raw["name"], "generator.name"),
        resolution=_whole(raw["resolution"], "generator.resolution", 1, _MOST),
        weights_sha256=_word(raw.get("weights_sha256", ""), "generator.weights_sha256"),
        random_weights=_truth(raw.get("random_weights", False), "generator.random_weights"),
        classes=None if classes is None else _classes(_table(classes, "generator.classes")),
        truncation=None if truncation is None else _number(truncation, "generator.truncation"),
        width=None if width is None else _whole(width, "generator.width", 1, _MOST),
    )


def _classes(raw: Mapping[str, Any]) -> Classes:
    names = tuple(_name(name, "generator.classes.names") for name in _list(raw["names"], "generator.classes.names"))
    if not names:
        raise ValueError("generator.classes.names must not be empty")
    chosen = _list(raw.get("default") or [], "generator.classes.default")
    return Classes(names, tuple(_whole(number, "generator.classes.default", 0, len(names) - 1) for number in chosen))


def _score(value: object, key: str) -> DirectionScore:
    raw = _table(value, key)
    twin, top = raw.get("twin_of"), _list(raw.get("top") or [], f"{key}.top")
    pairs = [_list(pair, f"{key}.top") for pair in top]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{key}.top must be a list of [attribute, effect], got {_shown(top)}")
    return DirectionScore(
        range=_range(raw["range"], f"{key}.range"),
        twin_of=None if twin is None else _whole(twin, f"{key}.twin_of"),
        name=_word(raw.get("name", ""), f"{key}.name"),
        top=tuple((_name(name, f"{key}.top"), _number(effect, f"{key}.top")) for name, effect in pairs),
    )


def _table(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a table, got {_shown(value)}")
    return value


def _tables(value: object, key: str) -> list[tuple[str, dict[str, Any]]]:
    return [(_name(name, key), _table(entry, f"{key}.{name}")) for name, entry in _table(value, key).items()]


def _list(value: object, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list, got {_shown(value)}")
    return value


def _words(value: object, key: str) -> dict[str, str]:
    return {_name(name, key): _word(text, f"{key}.{name}") for name, text in _table(value, key).items()}


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text, got {_shown(value)}")
    return value


def _word(value: object, key: str) -> str:
    """A text that stands in messages, which are one line."""
    if not _text(value, key).isprintable():
        raise ValueError(f"{key} must be a printable text, got {_shown(value)}")
    return str(value)


def _name(value: object, key: str) -> str:
    if not 0 < len(_word(value, key)) <= _LONGEST_NAME:
        raise ValueError(f"{key} must be a text of 1 to {_LONGEST_NAME} characters, got {_shown(value)}")
    return str(value)


def _one_of(value: object, key: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}, got {_shown(value)}")
    return str(value)


def _truth(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, got {_shown(value)}")
    return value


def _whole(value: object, key: str, low: int = 0, high: int = _MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{key} must be a whole number in [{low}, {high}], got {_shown(value)}")
    return value


def _number(value: object, key: str) -> float:
    # A comparison, since an integer of 400 digits is no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ValueError(f"{key} must be a finite number, got {_shown(value)}")
    return float(value)


def _layers(table: Mapping[str, Any], key: str) -> tuple[int, ...]:
    layers = _list(table.get("layers") or [], f"{key}.layers")
    return tuple(_whole(layer, f"{key}.layers") for layer in layers)


def _range(value: object, key: str) -> tuple[float, float]:
    numbers = [_number(end, key) for end in _list(value, key)]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError(f"{key} must be [low, high] with low < high, got {_shown(value)}")
    return numbers[0], numbers[1]


def _shown(value: object) -> str:
    """A value for a message: on one line, and short even if somebody sends us a megabyte."""
    return reprlib.repr(value)


def _check(manifest: Manifest) -> None:
    """Refuse a manifest that would make later requests fail in obscure ways."""
    latent, count = manifest.latent, manifest.directions.count
    problem = ""
    if latent.sampler == "truncated_normal" and not (latent.truncation or 0) > 0:
        problem = f"latent.truncation must be above 0 for truncated_normal, got {latent.truncation}"
    if any(not 0 <= layer < latent.layers for layer in manifest.directions.layers):
        problem = f"directions.layers {list(manifest.directions.layers)} are not in [0, {latent.layers})"
    if manifest.encoder is not None and manifest.encoder.space != latent.input:
        problem = f"encoder.space must be latent.input, {latent.input}, got {manifest.encoder.space}"
    scores = manifest.directions.scores
    if scores and len(scores) != count:
        problem = f"directions.scores must have {count} entries, one for each direction, got {len(scores)}"
    for number, score in enumerate(scores):
        if score.twin_of is not None and (score.twin_of >= count or score.twin_of == number):
            problem = f"directions.scores[{number}].twin_of must be another direction, got {score.twin_of}"
    for name, edit in manifest.edits.items():
        if not 0 <= edit.direction < count:
            problem = f"edit {name!r} has direction {edit.direction}, not in [0, {count})"
        if any(not 0 <= layer < latent.layers for layer in edit.layers):
            problem = f"edit {name!r} has layers {list(edit.layers)}, not in [0, {latent.layers})"
    if problem:
        raise ManifestError(f"the model's manifest is invalid: {problem}")
