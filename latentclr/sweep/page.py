"""What a sweep leaves to look at: sweep.html, one self-contained page, and sweep.png, the leaderboard as a figure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latentclr.pictures.plots import RANDOM
from latentclr.scores.compare import units_of
from latentclr.scores.html import STYLE, picture_data, whole_page
from latentclr.scores.html import escaped as _e
from latentclr.scores.report import DirectionScores, RunScores
from latentclr.scores.subject import Pixels
from latentclr.sweep.board import COLUMNS, Place
from latentclr.sweep.record import DONE, FAILED, RunState

MOST_SHOWN = 24  # directions of a grid
MOST_ROWS = 24  # settings of the figure
_MORE_STYLE = """
.best td:first-child, .best td:nth-child(2) { font-weight: 600; }
code, pre { font: 14px/1.5 ui-monospace, monospace; } pre { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px; overflow-x: auto; margin: 8px 0 16px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 14px 18px; margin: 10px 0; }
.grid figure { margin: 0; } .grid img { width: 100%; display: block; border-radius: 4px; }
.grid figcaption { font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; margin-top: 2px; }
.grid figcaption b { color: var(--ink); } .failed td { color: var(--bad); }
"""


@dataclass(frozen=True)
class Shown:
    """A run whose directions are shown.

    Attributes:
        number: Its number.
        scores: What was measured of it.
        strips: Its pictures, as `latentclr.scores.measure.Measured` has them.
    """

    number: int
    scores: RunScores
    strips: Pixels


def sweep_page(
    title: str,
    places: Sequence[Place],
    states: Mapping[int, RunState],
    shown: Sequence[Shown],
    commands: Sequence[str],
    scores: Mapping[int, RunScores],
) -> str:
    """Return sweep.html.

    Args:
        title: What the sweep is called.
        places: The leaderboard.
        states: Of all runs.
        shown: The best runs of the first places.
        commands: What takes the winner on.
        scores: Of the finished runs.
    """
    first = scores[places[0].best]
    random = '<p class="warn">The generator has random weights: everything here is noise.</p>'
    failed = {number: state for number, state in states.items() if state.state == FAILED}
    done = sum(state.state == DONE for state in states.values())
    told = ", ".join(scorer.name for scorer in first.scorers)
    settings = f"{len(places)} setting{'' if len(places) == 1 else 's'}"
    body = f"""<h1>Sweep {_e(title)}</h1>
<p class="soft">{done} of {len(states)} runs finished, {settings}; generator {_e(first.run.generator)};
scored by {_e(told)} on {first.settings.codes} codes that no training saw</p>
{random if first.run.random_weights else ""}
<h2>The winner: {_e(places[0].label)}</h2>
<pre>{_e(chr(10).join(commands))}</pre>
<h2>Leaderboard</h2>
{_leaderboard(places)}
{_grids(places, shown)}
{_failed(failed)}
{_runs(states)}
<h2>How this was ranked</h2>
<p>Settings stand in the order of purity times reach, averaged over their seeds. Purity is the largest effect of a
direction divided by the sum of all its effects. Reach is the width of its range divided by the width of equal change,
where it has changed the picture by {first.settings.change * 255:.0f} of 255. Better and worse, against the first
place, are said only where the 95 % interval of the difference leaves out 0: Student's t over the seeds of a setting, a
bootstrap over directions where it has one seed. Each run's own page has the evidence for each of its directions.</p>"""
    return whole_page(f"Sweep {title}", body, STYLE + _MORE_STYLE)


def _leaderboard(places: Sequence[Place]) -> str:
    head = "".join(f"<th>{_e(measure.title)}</th>" for measure in COLUMNS)
    body = []
    for number, place in enumerate(places, 1):
        cells = []
        for cell in place.row.cells:
            text = f"{cell.value:.2f} <small>[{cell.low:.2f}, {cell.high:.2f}]</small>"
            if cell.verdict:
                text += f'<span class="{_e(cell.verdict.split()[0])}">{_e(cell.verdict)}</span>'
            cells.append(f"<td>{text}</td>")
        runs = ", ".join(f'<a href="{run}/score.html">{run}</a>' for run in sorted(place.runs))
        kind = ' class="best"' if number == 1 else ""
        body.append(
            f"<tr{kind}><td>{number}</td><td>{_e(place.label)}</td><td>{runs}</td>{''.join(cells)}"
            f"<td>{place.seconds:.0f} s</td></tr>"
        )
    return f"""<div class="scroll"><table><thead><tr><th>place</th><th>setting</th><th>runs</th>{head}
<th>a run takes</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>"""


def _grids(places: Sequence[Place], shown: Sequence[Shown]) -> str:
    labels = {place.best: place.label for place in places}
    parts = []
    for place, entry in enumerate(shown, 1):
        directions = entry.scores.directions
        best = sorted(range(len(directions)), key=lambda k: -directions[k].purity * directions[k].largest)
        figures = "".join(_figure(k, directions[k], entry) for k in best[:MOST_SHOWN])
        more = f", the best {MOST_SHOWN} of {len(directions)} directions" if len(directions) > MOST_SHOWN else ""
        parts.append(
            f"<h2>Place {place}: {_e(labels[entry.number])}</h2>"
            f'<p class="soft">run {entry.number}{more}; strips reach from end to end of a direction\'s range</p>'
            f'<div class="grid">{figures}</div>'
        )
    return "\n".join(parts)


def _figure(k: int, direction: DirectionScores, entry: Shown) -> str:
    top, sign = direction.top(1), -1 if direction.reverse else 1
    does = f"{entry.scores.attributes[top[0][0]].name.replace('_', ' ')} {sign * top[0][1].mean:+.1f} sd" if top else ""
    name = f"<b>{_e(direction.name)}</b>, direction {k}" if direction.name else f"<b>direction {k}</b>"
    twin = f", repeats {direction.twin_of}" if direction.twin_of is not None else ""
    low, high = direction.range
    strip = entry.strips[k][:2]
    if direction.reverse:
        strip, low, high = strip[:, ::-1], -high, -low
    return (
        f'<figure><img alt="direction {k} of run {entry.number}: two pictures at five strengths"'
        f' src="{picture_data(strip)}"><figcaption>{name}{_e(twin)}: {low:+.1f} to {high:+.1f}, purity'
        f" {direction.purity:.2f}<br>{_e(does)}</figcaption></figure>"
    )


def _failed(failed: Mapping[int, RunState]) -> str:
    if not failed:
        return ""
    rows = "".join(
        f"<tr><td>{number}</td><td>{_e(', '.join(state.own))}</td><td>{_e(state.error)}</td></tr>"
        for number, state in failed.items()
    )
    return f"""<h2>Failed</h2>
<div class="scroll"><table class="failed"><thead><tr><th>run</th><th>options</th><th>why</th></tr></thead>
<tbody>{rows}</tbody></table></div>"""


def _runs(states: Mapping[int, RunState]) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{_e(', '.join(state.own))}</td><td>{_e(state.state)}</td>"
        f"<td>{'' if state.purity is None else f'{state.purity:.2f}'}</td>"
        f"<td>{'' if state.reach is None else f'{state.reach:.2f}'}</td><td>{state.seconds:.0f} s</td></tr>"
        for number, state in states.items()
    )
    return f"""<h2>All runs</h2>
<div class="scroll"><table><thead><tr><th>run</th><th>options</th><th>state</th><th>purity</th><th>reach</th>
<th>time</th></tr></thead><tbody>{rows}</tbody></table></div>"""


def sweep_figure(places: Sequence[Place], scores: Mapping[int, RunScores]) -> bytes:
    """Return sweep.png: every setting under every measure, its single runs as rings, their mean and its interval."""
    rows = places[:MOST_ROWS]
    figure = Figure(figsize=(2.1 + 2.05 * len(COLUMNS), 1.5 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(COLUMNS), sharey=True, squeeze=False)[0]
    for column, (axis, measure) in enumerate(zip(axes, COLUMNS, strict=True)):
        values: list[float] = []
        for y, place in enumerate(rows):
            cell = place.row.cells[column]
            colour = "#1f77b4" if y == 0 else "#5b6470"
            axis.plot([cell.low, cell.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
            single = [float(units_of(scores[run], measure).mean()) for run in place.runs]
            axis.plot(single, [y] * len(single), "o", color="none", markeredgecolor=colour, markersize=5)
            axis.plot([cell.value], [y], "o", color=colour, markersize=4)
            values += single
        axis.set_title(measure.title.replace(" > ", "\n> ").replace(", ", "\n", 1), fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="#e3e6ea", linewidth=0.8)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        room = max(0.6 * (max(values) - min(values)), 0.1 * max(values), 0.02)
        axis.set_xlim(
            max(-0.05 * room, min(values) - room), max(values) + room
        )  # an interval of two seeds is very wide
    axes[0].set_yticks(range(len(rows)), [place.label for place in rows], parse_math=False)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    first = scores[places[0].best]
    if first.run.random_weights:
        figure.suptitle(RANDOM, fontsize=10)
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    return drawn.getvalue()
