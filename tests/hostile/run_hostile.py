"""Put hostile files before the commands that read them.

`python tests/hostile/run_hostile.py --seed 0 --count 3000` prints the number of tries, and a line of JSON for each as
it ends. There are the attacks that somebody thought of, about 1,500, and files with random damage; a small count takes
some of either, and always those that once got through.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "latentclr" / "generators"), str(ROOT / "tests" / "serving")]
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch and numpy are there: a fork inherits no threads

import hostile_photos  # noqa: E402
import hostile_runs  # noqa: E402
import hostile_served  # noqa: E402
import hostile_weights  # noqa: E402
import torch  # noqa: E402
from hostile_base import Base  # noqa: E402
from hostile_trial import Outcome, Trial, attempt  # noqa: E402

# What the commands import when they run, so that no try pays for it again.
_AHEAD = (
    "export.cli", "export.pipeline", "latentclr.commands.evaluate", "latentclr.commands.gen",
    "latentclr.commands.import_run", "latentclr.commands.invert", "latentclr.commands.invert_pictures",
    "latentclr.commands.names", "latentclr.commands.score", "latentclr.commands.sweep", "latentclr.commands.train",
    "latentclr.commands.weights", "latentclr.generators.weights.convert", "latentclr.generators.biggan.biggan",
    "latentclr.generators.stylegan2.stylegan2",
    "latentclr.origin.run", "serving.cli", "serving.client.images", "serving.client.replay", "serving.doctor.command",
    "serving.doctor.repository_checks", "serving.triton.server", "matplotlib.pyplot", "PIL.PngImagePlugin",
    "torch.optim", "tritonclient.grpc", "yaml", "hydra",
)  # fmt: skip

_trials: list[Trial] = []
_scratch = Path()
_seed = 0


# What once got through, or ended in a stack trace, a page of text or without memory.
FOUND = {
    "a weight that is not a number", "stylegan2: a number as key", "stylegan2: bytes as key", "a megabyte of name",
    "a weight that is float8", "a weight that is complex", "large", "many keys", "two thousand other files",
    "an endless configuration", "projector.net.linear_1.weight that is no axes",
    "projector.net.linear_1.weight that is empty", "digits of a network", "a long name", "iteration of -1",
    "format of tensor([0., 0., 0.])", "loss of []", "accuracy of {}", "digits in a name", "deep lists",
    "a version of digits", "edits of numbers", "no latent", "half a surrogate in an edit", "odd version numbers",
    "one storage under many names",
    "one text encoded over and over", "nested class name", "expanded", "a bomb as its pickle", "aliases",
    "escaped secret", "unicode secret", "a recipe: thousands of edits in many rows", "complex", "dates",
}  # fmt: skip


def everything(base: Base) -> list[Trial]:
    """Return all tries that somebody thought of."""
    written = [
        hostile_weights.of_torch, hostile_weights.of_safetensors, hostile_weights.of_nvidia, hostile_weights.of_biggan,
        hostile_runs.of_checkpoints, hostile_runs.of_origin, hostile_runs.of_states, hostile_runs.of_catalogs,
        hostile_runs.of_codes, hostile_runs.of_galleries, hostile_served.of_pictures, hostile_served.of_repositories,
        hostile_photos.of_photos, hostile_photos.of_encoders,
    ]  # fmt: skip
    return [trial for family in written for trial in family(base)]


def corpus(base: Base, count: int, seed: int) -> list[Trial]:
    """Return `count` tries, of which at least a fifth are of random damage."""
    trials, room = everything(base), int(0.8 * count)
    if room < len(trials):
        Random(seed).shuffle(trials)
        once = {(trial.format, trial.words[0]): trial.name for trial in trials}  # each kind of file with each command
        trials.sort(key=lambda t: t.name not in FOUND and once[t.format, t.words[0]] != t.name)
        trials = trials[:room]
    drawn = (hostile_weights.spoilt_weights, hostile_runs.spoilt_runs, hostile_served.spoilt_served,
             hostile_photos.spoilt_photos)  # fmt: skip
    for number in range(count - len(trials)):
        trials.append(drawn[number % len(drawn)](base, number // len(drawn)))
    return trials


def _one(index: int) -> Outcome:
    return attempt(_trials[index], _seed, _scratch)


def run(seed: int, count: int, workers: int, only: str = "") -> Iterator[Outcome]:
    """Yield what came of each try.

    Args:
        seed: Of the damage.
        count: Of tries.
        workers: How many at a time.
        only: A part of the names of those to run, for looking at one.
    """
    global _scratch, _seed
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch, on the odd tensors that are written here
    for name in _AHEAD:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="latentclr-hostile-") as folder:
        with contextlib.redirect_stdout(sys.stderr):
            base = Base(Path(folder))
        chosen = corpus(base, count, seed) if count else everything(base)
        _trials[:] = [t for t in chosen if only in f"{t.format}: {t.name}: {' '.join(t.words)}"]
        _seed, _scratch = seed, Path(folder)
        print(json.dumps({"tries": len(_trials)}), flush=True)
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            yield from pool.imap_unordered(_one, range(len(_trials)))


def main() -> None:
    """Print one line of JSON for the number of tries, then one for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=0, help="0 for all that somebody thought of")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    for outcome in run(arguments.seed, arguments.count, arguments.workers, arguments.only):
        print(json.dumps(outcome.plain()), flush=True)


if __name__ == "__main__":
    main()
