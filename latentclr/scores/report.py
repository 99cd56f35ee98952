"""RUN/score.json: what was measured of a run's directions, as plain data, and the names that it proposes.

The file belongs to a checkpoint by its SHA-256. It holds no time and no path, so that scoring again writes the same.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import types
import typing
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentclr.errors import CheckpointError
from serving.contract.documents import read_json_file
from serving.contract.manifest import DirectionScore
from serving.contract.named_edit import check_name

logger = logging.getLogger(__name__)

FORMAT = 1
SCORE_FILE, PAGE_FILE, MAP_FILE = "score.json", "score.html", "score.png"
MOVED = 0.8
"""Standard deviations from which on an attribute counts as moved by a direction."""
FLIPS_SIZE, FLIPS_AGREEMENT = 0.5, 0.7
"""A direction flips its sign if an attribute moves by this size, but not the same way at this share of codes."""
ASKED_FOR, NEARLY = ("happy",), 0.75
"""Which direction is the smile is what users of all such tools ask first: where this attribute moves at least this part
of what moves most (the mouth's width, as a rule), it gives the name."""
UNNAMED = ("presence",)
"""Whether there is a face at all is no slider."""
_LARGEST, _MOST_VALUES = 64_000_000, 4_000_000


@dataclass(frozen=True)
class Thresholds:
    """What a direction must reach to be proposed a name.

    Attributes:
        effect: Standard deviations of the attribute at equal change; the lower end of the interval counts.
        purity: Largest effect / sum of all, in [0, 1].
        agreement: Share of codes with the effect's sign, in [0, 1].
    """

    effect: float = 0.5
    purity: float = 0.15
    agreement: float = 0.9


@dataclass(frozen=True)
class Effect:
    """What a direction does to an attribute at equal change, in standard deviations of unedited pictures.

    Attributes:
        mean: Mean over codes.
        low: Lower end of the 95 % bootstrap interval over codes.
        high: Upper end.
        agreement: Share of codes whose effect has the mean's sign, in [0, 1].
        size: Mean absolute effect of a code.
    """

    mean: float
    low: float
    high: float
    agreement: float
    size: float


@dataclass(frozen=True)
class DirectionScores:
    """What was measured of one direction.

    Attributes:
        strength: The strengths of equal change, down and up, both above 0.
        change: The mean RMS change of the picture there, in [0, 1].
        effects: For each attribute; None where too few pictures are trusted.
        purity: Largest effect / sum of all effects, in (0, 1]; 0 if there is none.
        purity_low: Lower end of its 95 % interval.
        purity_high: Upper end.
        alphas: Strengths of the curve, rising.
        curve: For each of them the mean change of each attribute, in standard deviations; None as above.
        range: How far a slider should reach: [low, high] with low < 0 < high.
        ends: What ends the range, down and up: `features`, `trust` or `cap`.
        twin_of: The better direction that this one repeats; None for one to keep.
        name: The attribute that it is proposed to be named after; empty if none.
        reverse: Whether more of that attribute is against the direction.
        reason: Why there is no name; empty if there is one.
        rca: Share of right guesses of the network for this direction.
    """

    strength: tuple[float, float]
    change: tuple[float, float]
    effects: tuple[Effect | None, ...]
    purity: float
    purity_low: float
    purity_high: float
    alphas: tuple[float, ...]
    curve: tuple[tuple[float | None, ...], ...]
    range: tuple[float, float]
    ends: tuple[str, str]
    twin_of: int | None
    name: str
    reverse: bool
    reason: str
    rca: float

    def top(self, most: int = 3) -> list[tuple[int, Effect]]:
        """Return the largest effects, with the indices of their attributes."""
        known = [(a, effect) for a, effect in enumerate(self.effects) if effect is not None]
        return sorted(known, key=lambda entry: -abs(entry[1].mean))[:most]

    @property
    def largest(self) -> float:
        """Largest absolute effect; 0 if there is none."""
        return max((abs(effect.mean) for _, effect in self.top(1)), default=0.0)

    @property
    def slider(self) -> tuple[float, float]:
        """`range` with two digits, for people."""
        return float(f"{self.range[0]:.2g}"), float(f"{self.range[1]:.2g}")

    @property
    def flips(self) -> int | None:
        """The attribute that moves at most codes, but not the same way at all; None if there is none."""
        wavering = [
            (effect.size, a)
            for a, effect in enumerate(self.effects)
            if effect is not None and effect.size >= FLIPS_SIZE and effect.agreement < FLIPS_AGREEMENT
        ]
        strongest = max((effect.size for effect in self.effects if effect is not None), default=0.0)
        return next((a for size, a in sorted(wavering, reverse=True) if size >= 0.9 * strongest), None)


@dataclass(frozen=True)
class Twin:
    """Two directions that do the same.

    Attributes:
        first: The smaller index.
        second: The larger one.
        effects: Cosine of their rows of effects, in [-1, 1]; below 0 where one is the other reversed.
        features: Mean cosine of their changes of features at the same code, in [-1, 1], of the same sign.
    """

    first: int
    second: int
    effects: float
    features: float


@dataclass(frozen=True)
class RcaScores:
    """How well a fresh network guesses the direction from two pictures (arXiv 2002.03754), on held-out codes.

    `accuracy` in [0, 1] with its 95 % interval `low` to `high`; `chance` is 1 / K; `by_code` the share of right guesses
    at each code.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    by_code: tuple[float, ...]


@dataclass(frozen=True)
class AttributeInfo:
    """An attribute: its name, its scorer, and its standard deviation over unedited pictures; None if not known."""

    name: str
    scorer: str
    sd: float | None


@dataclass(frozen=True)
class ScorerInfo:
    """A scorer, and the share of unedited pictures that it trusts, in [0, 1]."""

    name: str
    trusted: float


@dataclass(frozen=True)
class Settings:
    """What a score depends on besides the run.

    `change` is the mean RMS change of the picture, in [0, 1]; `trained` the largest strength of the training; `layers`,
    `quantile` and `most` say how ranges end, see `latentclr.scores.reach`.
    """

    seed: int
    codes: int
    change: float
    resamples: int
    trained: float
    layers: tuple[str, ...]
    quantile: float
    most: float
    thresholds: Thresholds


@dataclass(frozen=True)
class RunInfo:
    """What was scored.

    `method` tells runs that differ by their seed only from others; `classes` are those that were drawn.
    """

    checkpoint: str
    checkpoint_sha256: str
    iteration: int
    model: str
    seed: int
    method: str
    generator: str
    weights_sha256: str
    random_weights: bool
    classes: tuple[int, ...]


@dataclass(frozen=True)
class RunScores:
    """Everything that was measured of one run.

    Attributes:
        run: What was scored.
        settings: How.
        versions: Of the packages that computed.
        scorers: What looked at the pictures.
        attributes: A of them.
        directions: K of them.
        twins: Pairs that do the same.
        rca: How well directions are told apart.
        pictures: How many were rendered.
    """

    run: RunInfo
    settings: Settings
    versions: dict[str, str]
    scorers: tuple[ScorerInfo, ...]
    attributes: tuple[AttributeInfo, ...]
    directions: tuple[DirectionScores, ...]
    twins: tuple[Twin, ...]
    rca: RcaScores
    pictures: int

    @property
    def moved(self) -> list[bool]:
        """For each attribute whether some direction moves it by more than 0.8 standard deviations."""
        columns = zip(*(direction.effects for direction in self.directions), strict=True)
        return [any(e is not None and abs(e.mean) > MOVED for e in column) for column in columns]

    def naming(self, direction: DirectionScores) -> tuple[int, Effect] | None:
        """Return the attribute that a direction is to be named after, and its effect; None if there is none."""
        most = [
            (a, effect)
            for a, effect in direction.top(len(self.attributes))
            if abs(effect.mean) >= NEARLY * direction.largest and self.attributes[a].name not in UNNAMED
        ]
        asked = [(a, effect) for a, effect in most if self.attributes[a].name in ASKED_FOR]
        return next(iter(asked or most), None)

    @property
    def mistrusted(self) -> list[ScorerInfo]:
        """Scorers that trust less than half of the unedited pictures: none of their attributes gives a name."""
        return [scorer for scorer in self.scorers if scorer.trusted < 0.5]


def with_names(scores: RunScores) -> RunScores:
    """Propose a name for every direction that reaches the thresholds, or say why it gets none.

    A direction is named after the attribute that it moves most (see `RunScores.naming`), and each attribute names one
    direction at most: the one whose effect times purity is largest. A twin is left to the one that is kept.
    """
    limits, mistrusted = scores.settings.thresholds, {scorer.name for scorer in scores.mistrusted}
    chosen: dict[str, int] = {}
    found: list[tuple[str, bool, str]] = []
    for k, direction in enumerate(scores.directions):
        best = scores.naming(direction)
        if best is None:
            measured = any(effect is not None for effect in direction.effects)
            reason = "moves presence most, which is no slider" if measured else "no attribute could be measured"
            found.append(("", False, reason))
            continue
        (a, effect), name = best, _name_after(scores.attributes[best[0]].name)
        weakest = effect.low if effect.mean > 0 else -effect.high
        reason = ""
        if direction.twin_of is not None:
            reason = f"does the same as {direction.twin_of}"
        elif scores.attributes[a].scorer in mistrusted:
            reason = f"{scores.attributes[a].scorer} trusts too few pictures"
        elif direction.flips is not None and effect.agreement < limits.agreement:
            reason = "its sign flips from code to code"
        elif weakest < limits.effect:
            interval = f"[{weakest:.2f}, {max(-effect.low, effect.high):.2f}]"
            reason = f"effect {abs(effect.mean):.2f} sd {interval} is not surely above {limits.effect:g}"
        elif direction.purity < limits.purity:
            reason = f"purity {direction.purity:.2f} is below {limits.purity:g}"
        elif effect.agreement < limits.agreement:
            reason = f"sign agreement {effect.agreement:.0%} is below {limits.agreement:.0%}"
        elif not name:
            reason = f"{scores.attributes[a].name!r} cannot be a name"
        if not reason:
            other = chosen.get(name)
            if other is None or _quality(scores.directions[other]) < _quality(direction):
                chosen[name] = k
        found.append((name, effect.mean < 0, reason))
    named = []
    for k, (direction, (name, reverse, reason)) in enumerate(zip(scores.directions, found, strict=True)):
        if not reason and chosen[name] != k:
            reason = f"{chosen[name]} moves {name} more clearly"
        named.append(
            dataclasses.replace(direction, name="" if reason else name, reverse=not reason and reverse, reason=reason)
        )
    return dataclasses.replace(scores, directions=tuple(named))


def _quality(direction: DirectionScores) -> float:
    return direction.largest * direction.purity


def _name_after(attribute: str) -> str:
    words = re.sub(r"[^\w -]+", " ", unicodedata.normalize("NFC", attribute).replace("_", " ")).split()
    try:
        return check_name(" ".join(words))
    except ValueError:
        return ""


def scores_text(scores: RunScores) -> str:
    """Return score.json, which `load_scores` reads."""
    text = json.dumps({"format": FORMAT, **dataclasses.asdict(scores)}, indent=1, allow_nan=False)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    return text + "\n"


def load_scores(path: Path) -> RunScores:
    """Read score.json.

    Raises:
        CheckpointError: It is missing, damaged, or of another format; the message says what to do.
    """
    again = f"score the run again: latentclr score {path.parent}"
    try:
        raw = read_json_file(path, _LARGEST, _MOST_VALUES)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} was not scored yet: latentclr score {path.parent}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} {error}; {again}") from None
    if not isinstance(raw, dict) or type(raw.get("format")) is not int or raw["format"] != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else None
        shown = found if isinstance(found, int) else "none"
        raise CheckpointError(f"{path} has format {shown}, this version reads {FORMAT}; {again}")
    try:
        scores: RunScores = _read(RunScores, {key: value for key, value in raw.items() if key != "format"}, "score")
        _check(scores)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}; {again}") from None
    return scores


def read_scores(run: Path, checkpoint_sha256: str) -> RunScores | None:
    """Return what was measured of a checkpoint; None, and one warning, if the file there is not of it.

    Args:
        run: The run folder.
        checkpoint_sha256: SHA-256 of the checkpoint's file.
    """
    path = run / SCORE_FILE
    if not path.is_file():
        return None
    try:
        scores = load_scores(path)
    except CheckpointError as error:
        logger.warning("%s; it is not used", error)
        return None
    if scores.run.checkpoint_sha256 != checkpoint_sha256:
        logger.warning("%s is of another checkpoint and is not used: latentclr score %s", path, run)
        return None
    return scores


def _check(scores: RunScores) -> None:
    k, a = len(scores.directions), len(scores.attributes)
    for i, direction in enumerate(scores.directions):
        if len(direction.effects) != a or any(len(row) != a for row in direction.curve):
            raise ValueError(f"direction {i} has not {a} attributes")
        if len(direction.curve) != len(direction.alphas):
            raise ValueError(f"the curve of direction {i} has {len(direction.curve)} points, not its alphas'")
        if not direction.range[0] < 0 < direction.range[1]:
            raise ValueError(f"the range of direction {i} must have low < 0 < high, got {list(direction.range)}")
        if direction.twin_of is not None and not 0 <= direction.twin_of < k:
            raise ValueError(f"direction {i} repeats {direction.twin_of}, which is not in [0, {k})")
        if direction.name and _name_after(direction.name) != direction.name:
            raise ValueError(f"direction {i} has the name {direction.name[:40]!r}")
    for attribute in scores.attributes:
        if not 0 < len(attribute.name) <= 100 or not attribute.name.isprintable():
            raise ValueError(f"an attribute must be a printable text, got {attribute.name[:40]!r}")
    if k == 0 or any(not 0 <= index < k for pair in scores.twins for index in (pair.first, pair.second)):
        raise ValueError(f"twins must be in [0, {k})")


def _read(kind: Any, value: Any, where: str) -> Any:
    """Build what a type says from plain data; what does not fit is named."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a table")
        kinds = typing.get_type_hints(kind)
        if missing := [name for name in kinds if name not in value]:
            raise ValueError(f"{where} lacks {missing[0]}")
        return kind(**{name: _read(of, value[name], f"{where}.{name}") for name, of in kinds.items()})
    if origin is types.UnionType:
        return None if value is None else _read(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise ValueError(f"{where} must be a list" + ("" if inner[-1] is Ellipsis else f" of {len(inner)}"))
        return tuple(_read(inner[0], part, where) for part in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a table")
        return {str(key): _read(inner[1], part, where) for key, part in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise ValueError(f"{where} must be a {'finite number' if kind is float else kind.__name__}")


def manifest_scores(scores: RunScores) -> tuple[DirectionScore, ...]:
    """Return what a served model tells of each direction: range, kept twin, proposed name, three largest effects."""
    return tuple(
        DirectionScore(
            direction.range,
            direction.twin_of,
            direction.name,
            tuple((scores.attributes[a].name, round(effect.mean, 2)) for a, effect in direction.top()),
        )
        for direction in scores.directions
    )
