"""How much more of one attribute than the best unsupervised direction a single direction can move, at equal change.

    python benchmarks/attributes_limit.py outputs/directions/* --output benchmarks/results/attributes_limit.json

Directions from three sources are measured on the same codes, which none of them has seen, each at the strength that
changes the picture by 25/255:

- the best of all directions of unsupervised RUNS, chosen by their score.json, which saw other codes;
- `model=attributes`, with several seeds;
- the best that direct optimisation finds. A network learns the score from the code (the scorer has no gradient), also
  far out along the direction that is looked for. Through it and through the generator the direction climbs the mean
  effect, over fresh codes at every step, while the change of the picture is held. Then the scorer looks around what was
  found, the network learns again, and so on. It is told the very thing that it is measured by, and nothing else: not to
  leave other attributes alone, nor to stay among likely codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, finish
from common.timing import table
from numpy.typing import NDArray
from torch import Tensor, nn

from latentclr.generators.base import Generator
from latentclr.generators.dcgan import load_dcgan
from latentclr.method.attributes import SAMPLES, fit_attributes
from latentclr.method.directions import Directions, GlobalDirections
from latentclr.pictures.pixels import to_uint8
from latentclr.scores.effects import score_all, spread
from latentclr.scores.move import CHANGE, SIDES, equal_strengths
from latentclr.scores.report import SCORE_FILE, load_scores
from latentclr.scores.scorer import Scorer, build_scorers, find_attributes
from latentclr.scores.subject import Codes, Subject
from latentclr.training.checkpoint import find_checkpoint, load_checkpoint
from latentclr.training.rng import stream

UNSEEN = 1  # seed of the codes that are measured on; a score's is 0
WIDTH, PASSES, TOGETHER = 256, 60, 256  # of the network that learns the score
FAR, NEAR = 7.0, 0.45  # how far along a direction the network learns, and how far beside it
RESAMPLES = 2000
COLUMNS = ("attribute", "direction", "effect, sd", "interval", "times the best unsupervised", "ratio, interval")
Numbers = NDArray[np.float64]


@dataclass
class Faces:
    """The generator, who scores its pictures, and what an attribute's standard deviation is."""

    generator: Generator
    scorers: Sequence[Scorer]
    sd: Numbers = field(default_factory=lambda: np.ones(0))

    @torch.no_grad()
    def scores(self, p: Tensor) -> Numbers:
        """Return all attributes of the pictures of codes p [N, D]: [N, A], nan where they are not trusted."""
        parts = (to_uint8(self.generator.synthesize(part[:, None])).numpy() for part in p.split(64))
        return np.concatenate([score_all(self.scorers, pixels) for pixels in parts])

    @torch.no_grad()
    def effects(self, directions: Directions, chosen: Sequence[int], count: int) -> Numbers:
        """Return effects on all attributes at equal change, for each unseen code: [len(chosen), C, A]."""
        subject = Subject(self.generator, directions.eval(), torch.ones(1), ("main.2",))
        drawn = subject.codes(count, UNSEEN, "score")
        codes = Codes(drawn.p, drawn.d[list(chosen)], None, drawn.fed)
        before = subject.render(codes.still(), None)
        subject.directions = vectors(torch.ones(len(chosen), codes.p.shape[1]))  # how many there are
        strengths = equal_strengths(subject, codes, before, 3.0)
        effects = []
        for k, alphas in enumerate(strengths.alpha):
            low, high = (
                score_all(self.scorers, subject.render(codes.moved(k, sign * alpha), None))
                for sign, alpha in zip(SIDES, alphas, strict=True)
            )
            effects.append((high - low) / 2 / self.sd)
        return np.stack(effects)


def vectors(rows: Tensor) -> Directions:
    """Return rows [K, D] as directions."""
    directions = GlobalDirections(len(rows), rows.shape[1], torch.Generator())
    directions.params.data = rows.float()
    return directions.eval()


class Climber:
    """Looks for the direction that moves one attribute most at equal change."""

    def __init__(self, faces: Faces, column: int, start: Tensor, samples: int, rng: torch.Generator) -> None:
        """Score the first samples: half as codes are drawn, half around `start` [D]."""
        self.faces, self.column, self.rng = faces, column, rng
        self.v = 5.0 * F.normalize(start, dim=0)
        self.codes, self.told = torch.empty(0, len(start)), torch.empty(0)
        self._learn_from(torch.randn(samples // 2, len(start), generator=rng))
        self._learn_from(self._around(samples // 2))

    def climb(self, steps: int, samples: int) -> Tensor:
        """Fit the network, climb, score what is around the new direction; return it [D], of unit length."""
        self._ascend(self._network(), steps)
        self._learn_from(self._around(samples))
        return F.normalize(self.v, dim=0)

    def _around(self, count: int) -> Tensor:
        noise = torch.randn(count, len(self.v), generator=self.rng) / len(self.v) ** 0.5
        d = F.normalize(F.normalize(self.v, dim=0) + NEAR * noise, dim=1)
        alpha = (2 * torch.rand(count, 1, generator=self.rng) - 1) * FAR
        return torch.randn(count, len(self.v), generator=self.rng) + alpha * d

    def _learn_from(self, codes: Tensor) -> None:
        told = torch.from_numpy(self.faces.scores(codes)[:, self.column] / self.faces.sd[self.column]).float()
        seen = told.isfinite()
        self.codes, self.told = torch.cat([self.codes, codes[seen]]), torch.cat([self.told, told[seen]])

    def _network(self) -> Callable[[Tensor], Tensor]:
        x, mean, sd = self.codes, self.told.mean(), self.told.std()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Linear(x.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1)
            )
        steps = PASSES * -(-len(x) // TOGETHER)
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(PASSES):
            for rows in torch.randperm(len(x), generator=self.rng).split(TOGETHER):
                loss = ((net(x[rows])[:, 0] - (self.told[rows] - mean) / sd) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        net.requires_grad_(False)
        return lambda p: net(p)[:, 0] * sd

    def _change(self, v: Tensor, count: int = 24) -> Tensor:
        """Return the mean RMS change of the picture by +-v, differentiable."""
        p = torch.randn(count, len(v), generator=self.rng)
        synthesize = self.faces.generator.synthesize
        base = synthesize(p[:, None])
        changes = [(synthesize((p + sign * v)[:, None]) - base) / 2 for sign in SIDES]
        return torch.cat(changes).square().mean(dim=(1, 2, 3)).sqrt().mean()

    def _ascend(self, score: Callable[[Tensor], Tensor], steps: int) -> None:
        v, change_slope = self.v.clone().requires_grad_(True), None
        for i in range(steps):
            change = self._change(v)
            (slope,) = torch.autograd.grad(change, v)
            change_slope = slope if change_slope is None else 0.8 * change_slope + 0.2 * slope
            p = torch.randn(4096, len(v), generator=self.rng)
            effect = (score(p + v) - score(p - v)).mean() / 2
            (effect_slope,) = torch.autograd.grad(effect, v)
            with torch.no_grad():  # along d(log effect - log change), which does not ask for length
                step = effect_slope / effect - change_slope / change
                step -= (step @ v) / (v @ v) * v
                v += (0.15 if i > steps / 2 else 0.3) * 0.6 * v.norm() * step / step.norm().clamp_min(0.3)
                v *= (CHANGE / self._change(v)) ** 0.7
        self.v = v.detach()


@click.command(cls=Benchmark)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--attributes", "asked", default="happy,yaw", show_default=True, help="What is moved.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Fits of model=attributes.")
@click.option("--codes", type=click.IntRange(24), default=192, show_default=True, help="Codes to measure on.")
@click.option("--samples", type=click.IntRange(100), default=5000, show_default=True,
              help="Pictures that a climb begins with; each further round scores 2/5 of them.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True, help="Of learning and climbing.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Of each climb.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    runs: tuple[Path, ...], asked: str, seeds: int, codes: int, samples: int, rounds: int, steps: int,
    note: str | None, output: Path | None,
) -> None:  # fmt: skip
    """Measure the best directions of unsupervised RUNS that are scored, sliders for attributes, and the limit."""
    start = describe_machine()
    names = asked.split(",")
    faces = Faces(load_dcgan(None), build_scorers(["faces"]))
    columns = [j for _, j in find_attributes(faces.scorers, names)]
    faces.sd = spread(faces.scores(torch.randn(4 * codes, 100, generator=stream(UNSEEN, "score unedited"))))
    fits = [
        fit_attributes(faces.generator, faces.scorers, names, SAMPLES, torch.ones(1), stream(seed, "attributes"))
        for seed in range(seeds)
    ]
    results: list[dict[str, Any]] = []
    for a, (name, column) in enumerate(zip(names, columns, strict=True)):
        run, k = _best(runs, name)
        own = load_checkpoint(find_checkpoint(run)).directions
        (best,) = _forwards(faces.effects(own, [k], codes)[:, :, column])
        results.append(_row(name, f"{run.name}, direction {k}", best, best))
        fitted = torch.stack([fit.vectors[a] for fit in fits])
        for seed, effects in enumerate(faces.effects(vectors(fitted), range(seeds), codes)[:, :, column]):
            results.append(_row(name, f"attributes, seed {seed}", effects, best))
        climber = Climber(faces, column, fitted[0].float(), samples, stream(0, "limit", a))
        for i in range(rounds):
            found = climber.climb(steps, 2 * samples // 5)
            (effects,) = faces.effects(vectors(found[None]), [0], codes)[:, :, column]
            results.append(_row(name, f"climbed, round {i + 1}", effects, best))
    click.echo(table(results, COLUMNS))
    finish(
        "attributes_limit", start=start,
        settings={"attributes": names, "seeds": seeds, "codes": codes, "samples": samples, "rounds": rounds,
                  "steps": steps, "change": CHANGE, "runs": [run.name for run in runs]},
        results=results, targets=[], random_weights=False, note=note, output=output,
    )  # fmt: skip


def _best(runs: Sequence[Path], attribute: str) -> tuple[Path, int]:
    """Return the run and direction whose score.json tells the largest effect on an attribute."""
    found = []
    for run in runs:
        scores = load_scores(run / SCORE_FILE)
        column = [entry.name for entry in scores.attributes].index(attribute)
        found += [
            (abs(effect.mean), run, k)
            for k, direction in enumerate(scores.directions)
            if (effect := direction.effects[column]) is not None
        ]
    if not found:
        raise BenchmarkError(f"no run tells an effect on {attribute}")
    _, run, k = max(found, key=lambda entry: entry[0])
    return run, k


def _forwards(effects: Numbers) -> Numbers:
    """Turn effects [K, C] so that each mean is above 0."""
    turned: Numbers = effects * np.sign(np.nanmean(effects, axis=1, keepdims=True))
    return turned


def _row(attribute: str, direction: str, effects: Numbers, best: Numbers) -> dict[str, Any]:
    """Sum up effects at each code [C], and their ratio to the best at the same, with 95 % bootstrap intervals."""
    drawn = np.random.default_rng(0).integers(len(effects), size=(RESAMPLES, len(effects)))
    means, bests = np.nanmean(effects[drawn], axis=1), np.nanmean(best[drawn], axis=1)
    return {
        "attribute": attribute,
        "direction": direction,
        COLUMNS[2]: round(float(np.nanmean(effects)), 4),
        COLUMNS[3]: np.percentile(means, (2.5, 97.5)).round(4).tolist(),
        COLUMNS[4]: round(float(np.nanmean(effects) / np.nanmean(best)), 4),
        COLUMNS[5]: np.percentile(means / bests, (2.5, 97.5)).round(4).tolist(),
    }


if __name__ == "__main__":
    main()
