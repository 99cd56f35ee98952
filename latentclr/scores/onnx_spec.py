"""The JSON beside an ONNX scorer: what the network wants to see, and what its outputs are called.

A classifier, in `smile.json` beside `smile.onnx`:

    {"input": {"size": 224, "mean": [0.485, 0.456, 0.406], "scale": [0.229, 0.224, 0.225]},
     "outputs": {"logits": ["smiling", null, "glasses"]},
     "activation": "none"}

CLIP, with texts instead of classes:

    {"input": {"size": 224, "fit": "crop", "mean": [0.4815, 0.4578, 0.4082], "scale": [0.2686, 0.2613, 0.2758]},
     "output": "image_embeds", "text": "texts.npy", "labels": ["smiling", "old"]}

| key | default | meaning |
|---|---|---|
| input.size | | pixels: one number, or [height, width] |
| input.layout | NCHW | or NHWC |
| input.channels | RGB | or BGR, or gray: 0.299 R + 0.587 G + 0.114 B |
| input.mean, input.scale | 0, 1 | the network sees (byte / 255 - mean) / scale; one number, or one for each channel |
| input.fit | stretch | or crop: the shorter side is fitted, and the middle of the longer one seen |
| outputs | | for each output of the network that is used, the name of each of its numbers; null leaves one out |
| activation | none | the numbers are scores as they are; softmax: they are logits of classes that exclude each other; |
| | | probabilities: they lie in [0, 1]. Of the latter two the score is the log-odds of each class |
| output | | CLIP: the one output that is the picture's embedding [N, D] |
| text | | CLIP: `.npy` in the same folder, embeddings of texts [A, D], or of texts and their opposites [A, 2, D] |
| labels | | CLIP: the A names |

A name is one as edits have (`serving.contract.named_edit.check_name`), so that a direction can get it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentclr.errors import nearest
from serving.contract.documents import read_json_file
from serving.contract.named_edit import check_name

LARGEST_SIDE, MOST_NAMES = 4096, 1000
_LAYOUTS, _CHANNELS, _FITS = ("NCHW", "NHWC"), ("RGB", "BGR", "gray"), ("stretch", "crop")
_ACTIVATIONS = ("none", "softmax", "probabilities")


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What the network wants to see; the module's table says what the fields mean."""

    size: tuple[int, int]
    layout: str = "NCHW"
    channels: str = "RGB"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    fit: str = "stretch"

    @property
    def depth(self) -> int:
        """Return the number of channels."""
        return 1 if self.channels == "gray" else 3


@dataclasses.dataclass(frozen=True)
class OnnxSpec:
    """How to run a network, and what comes out.

    Attributes:
        input: What it wants to see.
        outputs: Output -> names of its numbers, None for those that are left out. Of CLIP: the embedding -> labels.
        activation: `none`, `softmax` or `probabilities`.
        text: CLIP's file of text embeddings; None of a classifier.
    """

    input: InputSpec
    outputs: dict[str, tuple[str | None, ...]]
    activation: str = "none"
    text: Path | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """Return the names that are used, in the order of the outputs."""
        return tuple(name for names in self.outputs.values() for name in names if name is not None)


def read_spec(path: Path) -> OnnxSpec:
    """Read the JSON beside a network.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not such a description; the message is one short line, a verb first.
    """
    content = _table(read_json_file(path), "the file")
    if "text" in content or "labels" in content or "output" in content:
        _only(content, ("input", "output", "text", "labels"), "the file")
        text = content.get("text")
        if not isinstance(text, str) or Path(text).name != text:
            raise ValueError(f"must name a file of its own folder under text, got {_shown(text)}")
        if not isinstance(content.get("output"), str):
            raise ValueError(f"must name the picture's embedding under output, got {_shown(content.get('output'))}")
        labels = _names(content.get("labels"), "labels", holes=False)
        return _checked(OnnxSpec(_input(content.get("input")), {content["output"]: labels}, text=path.parent / text))
    _only(content, ("input", "outputs", "activation"), "the file")
    outputs = {
        name: _names(names, f"outputs.{name}"[:60], holes=True)
        for name, names in _table(content.get("outputs"), "outputs").items()
    }
    activation = _choice(content, "activation", _ACTIVATIONS)
    return _checked(OnnxSpec(_input(content.get("input")), outputs, activation))


def _checked(spec: OnnxSpec) -> OnnxSpec:
    names = spec.attributes
    twice = {name for name in names if names.count(name) > 1} if len(names) <= MOST_NAMES else set()
    if not 1 <= len(names) <= MOST_NAMES or twice:
        found = f"{sorted(twice)[0]!r} twice" if twice else str(len(names))
        raise ValueError(f"must name 1 to {MOST_NAMES} different numbers, got {found}")
    if spec.activation == "softmax" and any(len(names) < 2 for names in spec.outputs.values()):
        raise ValueError("must have outputs of two classes or more where activation is softmax")
    return spec


def _input(content: Any) -> InputSpec:
    table = _table(content, "input")
    _only(table, [field.name for field in dataclasses.fields(InputSpec)], "input")
    size = table.get("size")
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides):
        raise ValueError(f"must have pixels in [1, {LARGEST_SIDE}] under input.size, got {_shown(size)}")
    channels = _choice(table, "input.channels", _CHANNELS)
    counts = (1,) if channels == "gray" else (1, 3)
    mean, scale = (
        _numbers(table.get(key, default), f"input.{key}", counts) for key, default in (("mean", 0), ("scale", 1))
    )
    if any(abs(number) < 1e-9 for number in scale):
        raise ValueError("must have no zero under input.scale")
    return InputSpec(
        (sides[0], sides[1]),
        _choice(table, "input.layout", _LAYOUTS),
        channels,
        mean,
        scale,
        _choice(table, "input.fit", _FITS),
    )


def _numbers(value: Any, key: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) not in counts or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        raise ValueError(f"must have {' or '.join(map(str, counts))} finite numbers under {key}, got {_shown(value)}")
    return tuple(map(float, numbers))


def _names(value: Any, key: str, holes: bool) -> tuple[str | None, ...]:
    if not isinstance(value, list) or len(value) > 100 * MOST_NAMES:
        raise ValueError(f"must have a list of names under {key}, got {_shown(value)}")
    if not all(isinstance(name, str) or (holes and name is None) for name in value):
        raise ValueError(f"must have names{' or null' if holes else ''} under {key}")
    try:
        return tuple(None if name is None else check_name(name) for name in value)
    except ValueError as error:
        raise ValueError(f"has no name under {key}: {error}") from None


def _choice(table: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = table.get(key.rpartition(".")[2], known[0])
    if value not in known:
        raise ValueError(f"must have one of {', '.join(known)} under {key}, got {_shown(value)}")
    return str(value)


def _table(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"must have a table in {key}, got {_shown(value)}")
    return value


def _only(table: Mapping[str, Any], known: tuple[str, ...] | list[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise ValueError(
                f"has an unknown key {key[:40]!r} in {where}{nearest(key, known)} (known: {', '.join(known)})"
            )


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
