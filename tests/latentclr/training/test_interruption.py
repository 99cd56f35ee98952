"""Kills, Ctrl-C and several processes, with real processes and real signals."""

from __future__ import annotations

import signal
import time

import pytest
from PIL import Image
from test_training import equal, trainer, without_place

from latentclr.commands import run_eval, run_train
from latentclr.training.checkpoint import load_resume

KILLED = """
import importlib.abc, os, signal, sys, time
from latentclr.training import trainer as training
from latentclr.cli import main

def die():
    os.kill(os.getpid(), signal.{signal})
    time.sleep(0.3)  # another thread may take the signal; the handler then runs a moment later

where, at = "{where}", {at}
one, save, evaluate = training.Trainer._one, training.save_resume, training.Trainer._evaluate

def _one(self, module):
    if where == "step" and self.iteration == at:
        die()
    return one(self, module)

def save_resume(path, state):
    if where == "save" and state["iteration"] == at:
        die()
    save(path, state)

def _evaluate(self, *arguments):
    done = evaluate(self, *arguments)
    if where == "evaluated" and self.iteration == at:
        die()
    return done

class Importing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if where == name:
            die()

sys.meta_path.insert(0, Importing())
measure = training.held_out

def held_out(*arguments, **options):
    if where == "evaluating":
        die()
    return measure(*arguments, **options)

training.held_out = held_out
training.Trainer._one, training.save_resume, training.Trainer._evaluate = _one, save_resume, _evaluate
main()
"""


INTERRUPTED_IMPORT = """
import importlib.abc, signal, sys
from latentclr.cli import main

class Importing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Importing())
main()
"""


def slow(*cases):
    """Each case is a process that imports torch; one of a kind is enough for `make test-fast`."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture
def words(short):
    return [*short, "hparams.iterations=24", "eval_freq=6", "save_freq=5", "projector=linear"]


@pytest.fixture
def straight(words, tmp_path):
    """The state of the same run, never disturbed."""
    return without_place(trainer(words, tmp_path / "straight").state())


def disturbed(start, words, run, **how):
    process = start("train", *words, f"output_dir={run}", code=KILLED.format(**how))
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize(
    ("where", "at", "saved"),
    [("step", 17, 15), *slow(("save", 15, 10), ("evaluated", 12, 10), ("step", 5, 5))],
    ids=["between saves", "while saving", "after the best was written", "right after the first save"],
)
def test_resume_after_a_kill_is_exact(start, words, straight, tmp_path, where, at, saved):
    run = tmp_path / "run"
    code, _, stderr = disturbed(start, words, run, signal="SIGKILL", where=where, at=at)
    assert code == -signal.SIGKILL, stderr
    assert load_resume(run / "resume.pt")["iteration"] == saved
    assert run_train([f"checkpoint={run}"])
    resumed = without_place(load_resume(run / "resume.pt"))
    resumed["config"]["tensorboard"] = straight["config"]["tensorboard"]
    for key in straight:  # weights, optimizer, scheduler, counters, best loss, history
        assert equal(resumed[key], straight[key]), key
    assert len(resumed["loss"]) == 24
    for name in ("best", "last"):
        ours, theirs = run / f"{name}.safetensors", tmp_path / "straight" / f"{name}.safetensors"
        from safetensors.torch import load_file

        assert equal(load_file(ours), load_file(theirs))
    assert not list(run.rglob(".tmp-*")) or where == "save"


@pytest.mark.parametrize(
    ("where", "at", "stopped"),
    [
        ("step", 8, 9),
        *slow(("step", 5, 6), ("evaluating", 6, 6), ("torch.utils.tensorboard", 0, 0), ("tensorboard", 0, 0)),
    ],
)
def test_ctrl_c_saves_and_resumes_exactly(start, words, straight, tmp_path, where, at, stopped):
    run = tmp_path / "run"
    code, stdout, stderr = disturbed(start, words, run, signal="SIGINT", where=where, at=at)
    assert code == 130, stderr
    assert f"interrupted at step {stopped}; go on with: latentclr train checkpoint={run}" in stdout
    assert "Traceback" not in stderr
    assert load_resume(run / "resume.pt")["iteration"] == stopped
    assert run_eval(run, ["eval_iters=2"]).samples == 8  # usable, even before the first held-out evaluation
    assert run_train([f"checkpoint={run}"])
    resumed = without_place(load_resume(run / "resume.pt"))
    for key in set(straight) - {"config"}:  # at step 6 the evaluation was due and is made up for
        assert equal(resumed[key], straight[key]), key


@pytest.mark.parametrize("module", ["torch", *slow(("hydra",), ("latentclr.generators.dcgan",))])
def test_ctrl_c_before_there_is_a_run(start, words, tmp_path, module):
    """While anything is imported: one line, no folder, and the exit code of every interrupted command."""
    code = INTERRUPTED_IMPORT.format(module=module)
    process = start("train", *words, f"output_dir={tmp_path / 'run'}", code=code)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ctrl_c_from_outside(start, short, tmp_path):
    run = tmp_path / "run"
    process = start("-m", "latentclr", "train", *short, f"output_dir={run}", "hparams.iterations=1000000",
                    "eval_freq=1000000")  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run / "resume.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted at step" in stdout
    assert "Traceback" not in stderr
    assert {p.name for p in run.iterdir()} >= {"last.safetensors", "resume.pt", "loss.png", "grid.png"}
    assert not list(run.rglob(".tmp-*"))


DRAWING = """
import signal, sys
import {module} as module
from latentclr.cli import main

draw, calls = module.{function}, []

def interrupted(*arguments, **options):
    calls.append(1)
    if len(calls) == {call}:
        signal.raise_signal(signal.SIGINT)
    return draw(*arguments, **options)

module.{function} = interrupted
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("function", ["edited_images", *slow(("seconds_a_picture",), ("save_picture",))])
def test_ctrl_c_skips_the_picture_of_a_finished_run(start, words, straight, tmp_path, function):
    run = tmp_path / "run"
    process = start(
        "train",
        *words,
        f"output_dir={run}",
        code=DRAWING.format(module="latentclr.pictures.overview", function=function, call=1),
    )
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stdout.startswith("best held-out loss")
    assert stdout.endswith(f"; the run is saved in {run}, without a new grid.png\n")
    assert "Traceback" not in stderr
    state = without_place(load_resume(run / "resume.pt"))
    assert all(equal(state[key], straight[key]) for key in set(straight) - {"config"})
    assert not (run / "grid.png").exists()
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.parametrize(("function", "call"), [("save_picture", 2), *slow(("grid", 3))])
def test_ctrl_c_in_gen_leaves_whole_files(start, run, function, call):
    code = DRAWING.format(module="latentclr.commands.gen", function=function, call=call)
    process = start("gen", run, "n_samples=4", "n_dirs=2", code=code)
    stdout, stderr = process.communicate(timeout=120)
    whole = [f"sample_{i}.png" for i in range(call - 1)]
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.splitlines()[-1] == f"interrupted: wrote {len(whole)} files to {run / 'gen'}"
    assert sorted(path.name for path in (run / "gen").iterdir()) == ["gen.json", *whole]
    for name in whole:
        with Image.open(run / "gen" / name) as picture:
            picture.load()
