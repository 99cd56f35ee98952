"""From a run's directions to everything that `score` tells of them: what is rendered, once, and what is made of it.

C codes, all drawn from the score's own seed and never seen by a training, give everything its size:

| what | codes | pictures |
|---|---|---|
| strengths of equal change | C / 3 | up to 7 for each side of a direction and code, mostly 3 |
| effects, and the pairs that RCA is measured on | C | 2 K for each code |
| the spread of unedited attributes | 4 C | 1 for each code |
| ranges, by features alone | C / 3, and 1,024 unedited | none |
| curves over the range, and trust along it | C / 3 | 6 K for each code |
| the pairs that RCA learns from | 4 C / 3 | 2 K for each code |
| strips to look at | 3 | 4 K for each code |
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentclr import __version__
from latentclr.errors import ScorerError
from latentclr.scores.effects import RESAMPLES, measure_effects, score_all, spread
from latentclr.scores.move import CHANGE, SIDES, Strengths, equal_strengths, rms_change
from latentclr.scores.rca import EPOCHS, Pairs, Rca, guess, small
from latentclr.scores.reach import MOST, QUANTILE, feature_reach, learn_usual, trusted_reach
from latentclr.scores.report import (
    AttributeInfo,
    DirectionScores,
    Effect,
    RcaScores,
    RunInfo,
    RunScores,
    ScorerInfo,
    Settings,
    Thresholds,
    Twin,
    with_names,
)
from latentclr.scores.scorer import Scorer
from latentclr.scores.subject import Codes, Pixels, Subject
from latentclr.scores.twins import feature_likeness, find_twins, keep

CODES, FEWEST_CODES = 96, 24
STRIP_CODES = 3
PARTS = (1 / 3, 2 / 3, 1.0)  # of a range's side, where the curve has its points
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What `measure` returns.

    Attributes:
        scores: Everything of score.json.
        strips: Pictures [K, 3, 5, H, W, 3] of three codes at low, low / 2, 0, high / 2 and high of each range.
    """

    scores: RunScores
    strips: Pixels


@dataclass(frozen=True)
class _Curve:
    """A direction's curve: strengths [S] around 0, values [C, S, A], and each scorer's share of trusted pictures [S].

    A scorer that mistrusts most of what is unedited ends no range, and is left out.
    """

    alphas: Numbers
    values: Numbers
    trusted: tuple[Numbers, ...]


def steps_of(k: int, codes: int) -> int:
    """Return how many steps of a progress bar `measure` takes at most: pictures, and pairs that RCA learns from / 8."""
    few, learned = codes // 3, 4 * codes // 3
    pictures = codes * (2 * k + 1) + 4 * codes + few * 6 * k + learned * (2 * k + 1) + STRIP_CODES * (4 * k + 1)
    return pictures + few * 2 * k * 4 + EPOCHS * 2 * k * learned // 8


@torch.no_grad()
def measure(
    subject: Subject, scorers: Sequence[Scorer], run: RunInfo, *, seed: int, codes: int, trained: float, bar: Any
) -> Measured:
    """Measure every direction.

    Args:
        subject: The generator and its directions.
        scorers: What looks at the pictures.
        run: What is scored.
        seed: Of the codes and of all resampling.
        codes: C, at least 24.
        trained: The largest strength of the training.
        bar: A progress bar.

    Raises:
        ScorerError: The scorers trust too few of the unedited pictures.
    """
    unedited = _unedited(subject, scorers, 4 * codes, seed)  # [4 C, A]
    sd, trusted = spread(unedited), _trusted_shares(scorers, unedited)
    if np.isnan(sd).all():
        bar.close()
        told = ", ".join(f"{s.name} trusts {share:.0%}" for s, share in zip(scorers, trusted, strict=True))
        raise ScorerError(
            f"nothing can be measured: of the unedited pictures {told}, and no attribute differs between those;"
            " other scorers may see more: scorers=[pixels]"
        )
    many, few = subject.codes(codes, seed, "score"), codes // 3
    before = subject.render(many.still(), many.class_id)  # [C, H, W, 3]
    middle = score_all(scorers, before[:few])  # of every curve
    strengths = equal_strengths(subject, many.first(few), before[:few], trained)
    each, change, held_out = _pairs(subject, scorers, many, before, strengths)
    effects = measure_effects(each / sd, seed)
    likeness = feature_likeness(subject, many.first(few), strengths.alpha)
    twins = find_twins(effects.mean, likeness)
    largest = np.nan_to_num(np.abs(effects.mean)).max(axis=1)
    repeats = keep(twins, largest * np.nan_to_num(effects.purity))
    reach, capped = feature_reach(subject, many.first(few), learn_usual(subject, seed), strengths.alpha, trained)
    rca = _rca(subject, strengths.alpha, held_out, 4 * codes // 3, seed, bar)
    directions = []
    for k in range(subject.directions.k):
        curve = _curve(subject, scorers, many.first(few), middle, k, reach[k])
        ends = ["cap" if at_cap else "features" for at_cap in capped[k]]
        for side, sign in enumerate(SIDES):
            outwards = np.argsort(sign * curve.alphas)[len(PARTS) :]  # from 0 on
            strengths_out = (sign * curve.alphas[outwards]).tolist()
            ends_of = [trusted_reach(strengths_out, shares[outwards].tolist()) for shares in curve.trusted]
            far = min(ends_of, default=np.inf)
            if far < reach[k, side]:
                reach[k, side], ends[side] = max(far, 0.05 * reach[k, side]), "trust"
        directions.append(
            DirectionScores(
                strength=_pair(strengths.alpha[k]),
                change=_pair(change[k]),
                effects=tuple(
                    None if np.isnan(effects.mean[k, a]) else Effect(*(
                        _short(part[k, a])
                        for part in (effects.mean, effects.low, effects.high, effects.agreement, effects.size)
                    ))
                    for a in range(len(sd))
                ),
                purity=_short(effects.purity[k]),
                purity_low=_short(effects.purity_low[k]),
                purity_high=_short(effects.purity_high[k]),
                alphas=tuple(_short(a) for a in curve.alphas),
                curve=_rows(curve, sd),
                range=(-_short(reach[k, 0]), _short(reach[k, 1])),
                ends=(ends[0], ends[1]),
                twin_of=repeats[k],
                name="",
                reverse=False,
                reason="",
                rca=_short(rca.by_direction[k]),
            )
        )  # fmt: skip
    strips = _strips(subject, many.first(STRIP_CODES), before[:STRIP_CODES], directions)
    scores = RunScores(
        run=run,
        settings=Settings(
            seed, codes, CHANGE, RESAMPLES, trained, subject.layers, QUANTILE, MOST, Thresholds()
        ),
        versions={"latentclr": __version__, "torch": torch.__version__, "numpy": np.__version__,
                  "python": platform.python_version()},
        scorers=tuple(ScorerInfo(s.name, _short(share)) for s, share in zip(scorers, trusted, strict=True)),
        attributes=_attributes(scorers, sd),
        directions=tuple(directions),
        twins=tuple(Twin(t.first, t.second, _short(t.effects), _short(t.features)) for t in twins),
        rca=RcaScores(
            _short(rca.accuracy), _short(rca.low), _short(rca.high), _short(1 / subject.directions.k),
            tuple(_short(part) for part in rca.by_code),
        ),
        pictures=subject.pictures,
    )  # fmt: skip
    return Measured(with_names(scores), strips)


def _unedited(subject: Subject, scorers: Sequence[Scorer], count: int, seed: int) -> Numbers:
    codes = subject.codes(count, seed, "score unedited")
    parts = codes.p.split(64)
    classes = [None] * len(parts) if codes.class_id is None else codes.class_id.split(64)
    layers = len(codes.fed)
    return np.concatenate([
        score_all(scorers, subject.render(p[:, None].expand(-1, layers, -1), c))
        for p, c in zip(parts, classes, strict=True)
    ])  # fmt: skip


def _pairs(
    subject: Subject, scorers: Sequence[Scorer], codes: Codes, before: Pixels, strengths: Strengths
) -> tuple[Numbers, Numbers, Pairs]:
    """Render both sides of every direction at equal change.

    Returns:
        Half the difference of the sides [K, C, A] in each attribute's own unit, the change of the picture [K, 2], and
        the pictures as RCA sees them.
    """
    each, change, after = [], [], []
    for k, alphas in enumerate(strengths.alpha):
        sides = []
        for sign, alpha in zip(SIDES, alphas, strict=True):
            images = subject.render(codes.moved(k, sign * alpha), codes.class_id)
            sides.append(score_all(scorers, images))
            change.append(rms_change(before, images))
            after.append(small(images))
        each.append((sides[1] - sides[0]) / 2)
    pairs = _as_pairs(before, after, len(strengths.alpha))
    return np.stack(each), np.array(change).reshape(-1, 2), pairs


def _as_pairs(before: Pixels, after: Sequence[torch.Tensor], k: int) -> Pairs:
    count = len(before)
    return Pairs(
        small(before), torch.cat(list(after)), torch.arange(count).repeat(2 * k),
        torch.arange(k).repeat_interleave(2 * count),
    )  # fmt: skip


def _rca(subject: Subject, alpha: Numbers, held_out: Pairs, count: int, seed: int, bar: Any) -> Rca:
    codes = subject.codes(count, seed, "score rca codes")
    before = subject.render(codes.still(), codes.class_id)
    after = [
        small(subject.render(codes.moved(k, sign * a), codes.class_id))
        for k in range(len(alpha))
        for sign, a in zip(SIDES, alpha[k], strict=True)
    ]
    with torch.enable_grad():
        return guess(_as_pairs(before, after, len(alpha)), held_out, len(alpha), seed, lambda n: bar.update(n / 8))


def _curve(
    subject: Subject, scorers: Sequence[Scorer], codes: Codes, middle: Numbers, k: int, reach: Numbers
) -> _Curve:
    """Measure a curve of which the unedited pictures' values [C, A] are known."""
    alphas = np.array([-reach[0] * part for part in PARTS[::-1]] + [0.0] + [reach[1] * part for part in PARTS])
    values = []
    for alpha in alphas:
        if alpha == 0:
            values.append(middle)
        else:
            values.append(score_all(scorers, subject.render(codes.moved(k, float(alpha)), codes.class_id)))
    table = np.stack(values, axis=1)  # [C, S, A]
    shares = [np.isfinite(table[:, :, own[0]]).mean(axis=0) for own in _columns_of(scorers)]
    usable = tuple(share for share in shares if share[len(PARTS)] >= 0.5)
    return _Curve(alphas, table - table[:, len(PARTS) : len(PARTS) + 1], usable)


def _columns_of(scorers: Sequence[Scorer]) -> list[range]:
    ends = np.cumsum([0, *(len(scorer.attributes) for scorer in scorers)]).tolist()
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def _trusted_shares(scorers: Sequence[Scorer], unedited: Numbers) -> list[float]:
    return [float(np.isfinite(unedited[:, own[0]]).mean()) for own in _columns_of(scorers)]


def _attributes(scorers: Sequence[Scorer], sd: Numbers) -> tuple[AttributeInfo, ...]:
    names = [(attribute, scorer.name) for scorer in scorers for attribute in scorer.attributes]
    return tuple(
        AttributeInfo(name, scorer, None if np.isnan(value) else _short(value))
        for (name, scorer), value in zip(names, sd, strict=True)
    )


def _rows(curve: _Curve, sd: Numbers) -> tuple[tuple[float | None, ...], ...]:
    known = np.isfinite(curve.values)
    count = known.sum(axis=0)  # [S, A]
    means = np.where(known, curve.values, 0.0).sum(axis=0) / np.maximum(count, 1) / sd
    return tuple(
        tuple(None if count[s, a] < 8 or np.isnan(means[s, a]) else _short(means[s, a]) for a in range(len(sd)))
        for s in range(len(curve.alphas))
    )


@torch.no_grad()
def draw_strips(subject: Subject, scores: RunScores) -> Pixels:
    """Draw the strips of a run that was measured before, as `Measured` has them.

    Args:
        subject: The generator and its directions.
        scores: What was measured of them.
    """
    codes = subject.codes(scores.settings.codes, scores.settings.seed, "score").first(STRIP_CODES)
    return _strips(subject, codes, subject.render(codes.still(), codes.class_id), scores.directions)


def _strips(subject: Subject, codes: Codes, before: Pixels, directions: Sequence[DirectionScores]) -> Pixels:
    count = len(codes)
    strips = np.empty((len(directions), count, 5, *before.shape[1:]), np.uint8)
    strips[:, :, 2] = before
    for k, direction in enumerate(directions):
        low, high = direction.range
        for column, alpha in ((0, low), (1, low / 2), (3, high / 2), (4, high)):
            strips[k, :, column] = subject.render(codes.moved(k, alpha), codes.class_id)
    return strips


def _pair(values: Numbers) -> tuple[float, float]:
    return _short(values[0]), _short(values[1])


def _short(value: Any) -> float:
    """Return a number with five digits: no more are known, and files stay small. What is not known is 0."""
    return float(f"{float(np.nan_to_num(value)):.5g}")
