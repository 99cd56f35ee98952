"""What people look at: score.html, one self-contained page, and score.png, the effects as a heat-map.

`latentclr.scores.html` says what such a page may do.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latentclr.pictures.plots import RANDOM
from latentclr.scores.compare import MEASURES, Row
from latentclr.scores.html import STYLE, picture_data, whole_page
from latentclr.scores.html import escaped as _e
from latentclr.scores.report import MOVED, DirectionScores, RunScores
from latentclr.scores.subject import Pixels

BARS = 7
_COLOURS = ("c1", "c2", "c3")

_SCRIPT = """
"use strict";
const cards = document.getElementById("cards");
for (const button of document.querySelectorAll(".sort button")) {
  button.addEventListener("click", () => {
    const key = button.dataset.key, text = key === "name";
    const rising = text || key === "number";
    const sorted = [...cards.children].sort((a, b) => {
      const x = a.dataset[key], y = b.dataset[key];
      const order = text ? (x === "") - (y === "") || x.localeCompare(y) : Number(x) - Number(y);
      return (rising ? order : -order) || Number(a.dataset.number) - Number(b.dataset.number);
    });
    cards.append(...sorted);
    for (const other of document.querySelectorAll(".sort button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
  });
}
"""


def page(title: str, scores: RunScores, strips: Pixels, rows: Sequence[Row] = (), own: int = 0) -> str:
    """Return score.html.

    Args:
        title: What the run is called.
        scores: What was measured.
        strips: Pictures [K, N, 5, H, W, 3] at low, low / 2, 0, high / 2 and high of each range.
        rows: The comparison, if several runs were scored.
        own: The place of this run in it.
    """
    cards = "\n".join(_card(k, scores, strips[k]) for k in range(len(scores.directions)))
    keys = {"number": "number", "effect": "largest effect", "purity": "purity", "agreement": "sign agreement",
            "rca": "told apart", "reach": "width of the range", "name": "name"}  # fmt: skip
    buttons = "".join(
        f'<button type="button" data-key="{key}" aria-pressed="{"true" if key == "number" else "false"}">'
        f"{label}</button>"
        for key, label in keys.items()
    )
    body = f"""<h1>Directions of {_e(title)}</h1>
{_summary(scores)}
{_comparison(rows, own)}
<h2>{len(scores.directions)} directions</h2>
<div class="sort"><span class="soft">Sort by</span>{buttons}</div>
<div class="cards" id="cards">
{cards}
</div>
{_method(scores)}"""
    return whole_page(f"Directions of {title}", body, STYLE, _SCRIPT)


def _shown(attribute: str) -> str:
    return attribute.replace("_", " ")[:24]


def _summary(scores: RunScores) -> str:
    run, directions = scores.run, scores.directions
    twins = sum(direction.twin_of is not None for direction in directions)
    named = sum(bool(direction.name) for direction in directions)
    rca = scores.rca
    tiles = [
        (f"{np.mean([d.largest for d in directions]):.2f} sd", "mean largest effect"),
        (f"{np.mean([d.purity for d in directions]):.2f}", "mean purity, largest effect / sum"),
        (f"{sum(scores.moved)} of {len(scores.attributes)}", f"attributes moved > {MOVED:g} sd"),
        (str(twins), "directions repeat another"),
        (str(named), "names proposed"),
        (f"{rca.accuracy:.2f}", f"RCA, [{rca.low:.2f}, {rca.high:.2f}]; chance {rca.chance:.2f}"),
    ]
    classes = f", classes {', '.join(map(str, run.classes[:8]))}" if run.classes else ""
    lines = [
        f'<p class="soft">{_e(run.model)} model, {len(directions)} directions, seed {run.seed}, {run.iteration} steps; '
        f"generator {_e(run.generator)}{_e(classes)}; {scores.settings.codes} codes that no training saw</p>"
    ]
    if run.random_weights:
        lines.append('<p class="warn">The generator has random weights: everything here is noise.</p>')
    lines += [
        f'<p class="warn">{_e(scorer.name)} trusts only {scorer.trusted:.0%} of the unedited pictures: '
        "none of its attributes gives a name.</p>"
        for scorer in scores.mistrusted
    ]
    items = "".join(f"<li><b>{_e(value)}</b><span>{_e(label)}</span></li>" for value, label in tiles)
    return "\n".join(lines) + f'\n<ul class="tiles">{items}</ul>'


def _comparison(rows: Sequence[Row], own: int) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{_e(measure.title)}</th>" for measure in MEASURES)
    body = []
    for row in rows:
        cells = []
        for cell in row.cells:
            text = f"{cell.value:.2f} <small>[{cell.low:.2f}, {cell.high:.2f}]"
            if cell.difference is not None:
                text += (
                    f"</small><small>{cell.difference:+.2f} [{cell.difference_low:+.2f}, {cell.difference_high:+.2f}]"
                )
            text += "</small>"
            if cell.verdict:
                text += f' <span class="{_e(cell.verdict.split()[0])}">{_e(cell.verdict)}</span>'
            cells.append(f"<td>{text}</td>")
        name = f"<b>{_e(row.name)}</b>" if own in row.runs else _e(row.name)
        body.append(f"<tr><td>{name}</td>{''.join(cells)}</tr>")
    return f"""<h2>Compared with the others</h2>
<div class="scroll"><table><thead><tr><th>run</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>
<p class="soft">Signed numbers are differences from the first row. Intervals are 95 %:
Student's t over the runs of a row; a bootstrap over directions where it has one run, over attributes (how many are
moved) and over held-out codes (RCA). Better: the interval of the difference lies above 0, or below for twins.</p>"""


def _card(k: int, scores: RunScores, strip: Pixels) -> str:
    direction = scores.directions[k]
    top = direction.top(1)
    sign = -1 if direction.reverse else 1
    title = f'{_e(direction.name)} <span class="number">direction {k}</span>' if direction.name else f"Direction {k}"
    tags = []
    if direction.name:
        tags.append(f'<span class="tag">+ is {"against" if direction.reverse else "along"} the direction</span>')
    if direction.twin_of is not None:
        tags.append(f'<span class="tag twin">repeats {direction.twin_of}</span>')
    if direction.flips is not None:
        tags.append(
            f'<span class="tag flip">{_e(_shown(scores.attributes[direction.flips].name))} flips its sign</span>'
        )
    if direction.reason:
        tags.append(f'<span class="soft">no name: {_e(direction.reason)}</span>')
    low, high = direction.range if sign > 0 else (-direction.range[1], -direction.range[0])
    agreement = top[0][1].agreement if top else 0.0
    columns = strip if sign > 0 else strip[:, ::-1]
    picture = f'<img alt="{_e(_described(k, direction))}" src="{picture_data(columns)}">'
    ends = "".join(f"<span>{value:+.2g}</span>" if value else "<span>0</span>"
                   for value in (low, low / 2, 0.0, high / 2, high))  # fmt: skip
    return f"""<article class="card" data-number="{k}" data-effect="{direction.largest:.4f}"
 data-purity="{direction.purity:.4f}" data-agreement="{agreement:.4f}" data-rca="{direction.rca:.4f}"
 data-reach="{high - low:.4f}" data-name="{_e(direction.name)}">
<header><h3>{title}</h3>{"".join(tags)}</header>
<div class="strip">{picture}<div class="ends">{ends}</div></div>
<div class="plots">{_bars(direction, scores, sign)}{_curve(direction, scores, sign)}</div>
{_facts(k, direction, scores, agreement, sign)}
</article>"""


def _described(k: int, direction: DirectionScores) -> str:
    return f"{direction.name or f'direction {k}'}: three pictures at five strengths"


def _facts(k: int, direction: DirectionScores, scores: RunScores, agreement: float, sign: int) -> str:
    why = {"features": "features", "trust": "fewer trusted pictures", "cap": "cap"}
    (low, high), (down, up), ends = direction.range, direction.strength, direction.ends
    if sign < 0:  # in the sense of the name, as the strip and the bars are
        (low, high), (down, up), ends = (-high, -low), (up, down), (ends[1], ends[0])
    facts = [
        ("range", f"{low:.2f} ({why.get(ends[0], '')}) to {high:+.2f} ({why.get(ends[1], '')})"),
        ("equal change at", f"{-down:.2f} and {up:+.2f}" + _unlike(direction, scores.settings.change)),
        ("purity", f"{direction.purity:.2f} [{direction.purity_low:.2f}, {direction.purity_high:.2f}]"),
        ("signs agree", f"{agreement:.0%} of codes"),
        ("told apart", f"{direction.rca:.0%} of held-out pairs"),
    ]
    if twins := [pair for pair in scores.twins if k in (pair.first, pair.second)]:
        others = [
            f"{pair.first + pair.second - k}{' reversed' if pair.effects < 0 else ''}"
            f" (effects {pair.effects:+.2f}, features {pair.features:+.2f})"
            for pair in twins
        ]
        facts.append(("twins", ", ".join(others)))
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in facts)
        + "</dl>"
    )


def _unlike(direction: DirectionScores, wanted: float) -> str:
    """Say so if even the largest strength that was tried changes the picture too little."""
    reached = min(direction.change)
    return f", where it changes the picture by {reached * 255:.0f} of 255 only" if reached < 0.8 * wanted else ""


def _bars(direction: DirectionScores, scores: RunScores, sign: int) -> str:
    """Draw the largest effects with their intervals, in the sense of the name; weak where the interval holds 0."""
    top = direction.top(BARS)
    if not top:
        return '<p class="soft">No attribute could be measured.</p>'
    reach = max(0.5, max(max(abs(effect.low), abs(effect.high)) for _, effect in top))
    left, width, step = 150.0, 380.0, 21

    def x(value: float) -> float:
        return round(left + width / 2 + width / 2 * value / reach, 1)

    parts = []
    for row, (a, effect) in enumerate(top):
        mean, low, high = (sign * value for value in (effect.mean, effect.low, effect.high))
        y = row * step + 4
        kind = ("" if mean > 0 else " down") + (" weak" if low * high <= 0 else "")
        start, stop = sorted((x(0), x(mean)))
        ends = sorted((x(low), x(high)))
        parts.append(
            f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{_e(_shown(scores.attributes[a].name))}</text>'
            f'<rect class="bar{kind}" x="{start}" y="{y + 1}" width="{stop - start:.1f}" height="12" rx="2"/>'
            f'<path class="whisker" d="M{ends[0]} {y + 7}H{ends[1]}M{ends[0]} {y + 4}v6M{ends[1]} {y + 4}v6"/>'
            f'<text class="soft" x="{left + width + 8}" y="{y + 11}">{mean:+.2f} sd, {effect.agreement:.0%}</text>'
        )
    height = len(top) * step + 6
    return (
        f'<svg viewBox="0 0 640 {height}" role="img" aria-label="largest effects">'
        f'<line class="axis" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{height}"/>{"".join(parts)}</svg>'
    )


def _curve(direction: DirectionScores, scores: RunScores, sign: int) -> str:
    """Draw how the three largest effects grow over the range, in the sense of the name."""
    lines = []
    for a, _ in direction.top(len(_COLOURS)):
        points = [(sign * s, row[a]) for s, row in zip(direction.alphas, direction.curve, strict=True)]
        known = [(s, value) for s, value in points if value is not None]
        if len(known) > 1:
            lines.append((scores.attributes[a].name, sorted(known)))
    if not lines:
        return ""
    left, width, height = 150.0, 380.0, 92.0
    ends = [s for _, points in lines for s, _ in points]
    low, high = min(ends), max(ends)
    values = [value for _, points in lines for _, value in points]
    bottom, top = min(-0.25, *values), max(0.25, *values)

    def x(s: float) -> float:
        return round(left + width * (s - low) / (high - low), 1)

    def y(value: float) -> float:
        return round(6 + (height - 12) * (top - value) / (top - bottom), 1)

    drawn = "".join(
        f'<polyline class="curve {colour}" points="{" ".join(f"{x(s)},{y(value)}" for s, value in points)}"/>'
        f'<text class="{colour}" x="{left - 8}" y="{16 + 18 * i}" text-anchor="end">{_e(_shown(name))}</text>'
        for i, ((name, points), colour) in enumerate(zip(lines, _COLOURS, strict=False))
    )
    return (
        f'<svg viewBox="0 0 640 {height + 18}" role="img" aria-label="effects over the strength">'
        f'<path class="axis" d="M{left} {y(0)}H{left + width}M{x(0)} 2V{height}"/>{drawn}'
        f'<text class="soft" x="{left + width + 8}" y="{y(top) + 8}">{top:+.1f} sd</text>'
        f'<text class="soft" x="{left + width + 8}" y="{y(bottom)}">{bottom:+.1f} sd</text>'
        f'<text class="soft" x="{left}" y="{height + 13}">{low:+.1f}</text>'
        f'<text class="soft" x="{left + width}" y="{height + 13}" text-anchor="end">{high:+.1f}</text>'
        f'<text class="soft" x="{x(0)}" y="{height + 13}" text-anchor="middle">strength</text></svg>'
    )


def _method(scores: RunScores) -> str:
    s, limits = scores.settings, scores.settings.thresholds
    trusted = ", ".join(f"{scorer.name} {scorer.trusted:.0%}" for scorer in scores.scorers)
    versions = ", ".join(f"{name} {version}" for name, version in scores.versions.items())
    return f"""<h2>How this was measured</h2>
<p>Every direction was moved, both ways, until the pictures had changed by the same mean RMS,
{s.change * 255:.0f} of 255. An effect is half the difference of an attribute between the two sides, in standard
deviations (sd) of unedited pictures; whiskers are 95 % bootstrap intervals over {s.codes} codes, and pale bars have an
interval that holds 0. The percentage beside a bar is the share of codes on which the effect has that sign. Purity is
the largest effect divided by the sum of all.</p>
<p>A range ends where half of the pictures are as unusual as one unedited picture in a hundred, by the features of
{_e(" or ".join(s.layers))} (Hotelling's T and Q, quantile {s.quantile:g}), where fewer than 90 % as many pictures are
trusted as unedited, or at {s.most:g} times the larger of the training's strength ({s.trained:g}) and that of equal
change.</p>
<p>RCA: a fresh small network guesses the direction from the picture before and after (arXiv 2002.03754), on codes that
it never saw. A name is proposed where the largest effect is at least {limits.effect:g} sd (lower end of its interval),
purity at least {limits.purity:g} and the signs agree on {limits.agreement:.0%} of the codes.</p>
<p class="soft">Trusted pictures: {_e(trusted)}. {scores.pictures} pictures, seed {s.seed}. Checkpoint
{_e(scores.run.checkpoint)}, SHA-256 {_e(scores.run.checkpoint_sha256[:16])}. {_e(versions)}.</p>"""


def effect_map(scores: RunScores) -> bytes:
    """Return score.png: the effects of all directions on all attributes."""
    table = np.array([[np.nan if e is None else e.mean for e in d.effects] for d in scores.directions])  # [K, A]
    k, a = table.shape
    figure = Figure(figsize=(min(20.0, 3.2 + 0.48 * a), min(40.0, 2.4 + 0.3 * k)), layout="constrained")
    axes = figure.subplots()
    reach = max(MOVED, float(np.nanmax(np.abs(table), initial=0.0)))
    image = axes.imshow(table, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    labels = [f"{d.name or ''} {i}".strip() + (f" (= {d.twin_of})" if d.twin_of is not None else "")
              for i, d in enumerate(scores.directions)]  # fmt: skip
    ticks = range(0, k, max(1, k // 100))
    axes.set_yticks(list(ticks), [labels[i] for i in ticks], parse_math=False)
    axes.set_xticks(range(a), [t.name for t in scores.attributes], rotation=60, ha="right", parse_math=False)
    if k <= 64:
        for i, j in zip(*np.nonzero(np.abs(np.nan_to_num(table)) >= 0.3), strict=True):
            ink = "white" if abs(table[i, j]) > 0.6 * reach else "black"
            axes.text(j, i, f"{table[i, j]:+.1f}", ha="center", va="center", fontsize=7, color=ink)
    meaning = f"effect at equal change of the picture ({scores.settings.change * 255:.0f} of 255)"
    axes.set_title(f"{RANDOM}\n{meaning}" if scores.run.random_weights else meaning, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="standard deviations of unedited pictures")
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    return drawn.getvalue()
