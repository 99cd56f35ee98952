"""`latentclr train --multirun`, with real runs: finished, killed, failed, out of disk, by every launcher here."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from importlib.util import find_spec

import pytest
import yaml
from safetensors.torch import load_file
from test_score_page import read
from test_training import equal, without_place
from tiny_plugin import WORD

from latentclr.sweep.record import read_state
from latentclr.training.checkpoint import load_resume
from latentclr.training.trainer import Trainer
from serving.contract.lock import alone

SWEPT = ["k=2,3", "seed=7", "codes=24", "tensorboard=false"]
FILES = ["multirun.yaml", "sweep.html", "sweep.png", "sweep.yaml"]

KILLED = """
import os, signal
from latentclr.cli import main
from latentclr.training import trainer as training

one = training.Trainer._one

def _one(self, module):
    if self.run.name == "1" and self.iteration == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return one(self, module)

training.Trainer._one = _one
main()
"""
LITTLE = 200_000  # bytes that a file may have where the disk is nearly full


@pytest.fixture(scope="module")
def straight(short, tmp_path_factory):
    """A finished sweep of two runs, never disturbed."""
    from click.testing import CliRunner

    from latentclr.cli import cli

    folder = tmp_path_factory.mktemp("sweeps") / "straight"
    result = CliRunner().invoke(cli, ["train", "--multirun", *short, *SWEPT, f"output_dir={folder}"])
    assert result.exit_code == 0, result.output
    (folder / "output").write_text(result.stdout)
    return folder


@pytest.fixture
def swept(straight, tmp_path):
    """A copy of it."""
    return shutil.copytree(straight, tmp_path / "swept")


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.parent != folder}


def test_a_sweep_leaves_runs_and_their_comparison(straight):
    assert sorted(p.name for p in straight.iterdir() if p.name != "output") == ["0", "1", *FILES]
    record = yaml.safe_load((straight / "sweep.yaml").read_text())
    assert [run["words"] for run in record["runs"]] == [["k=2"], ["k=3"]]
    assert {run["state"] for run in record["runs"]} == {"done"}
    assert record["axes"] == {"k": "2,3"}
    for run in record["runs"]:
        folder = straight / str(run["run"])
        score = json.loads((folder / "score.json").read_text())
        assert (score["run"]["seed"], len(score["directions"])) == (7, 2 + run["run"])
        purity = sum(d["purity"] for d in score["directions"]) / len(score["directions"])
        assert run["purity"] == pytest.approx(purity, abs=1e-6)
        assert {"best.safetensors", "resume.pt", "grid.png", "score.html"} <= {path.name for path in folder.iterdir()}
    output = (straight / "output").read_text()
    assert "a sweep of 2 runs in" in output
    assert "against the first" in output
    winner = output.rpartition("latentclr export ")[2].strip()
    assert winner.rpartition("/")[0] == str(straight)
    page = (straight / "sweep.html").read_text()
    read(page)
    assert f"latentclr export {winner}" in page
    assert page.count("<figure>") == 5  # both settings


def test_a_finished_sweep_is_only_compared_again(swept, short, invoke):
    before = stamps(swept)
    (swept / "sweep.html").unlink()
    again = invoke("train", "-m", *short, *SWEPT[::-1], f"output_dir={swept}")
    assert again.exit_code == 0, again.output
    assert "2 finished before" in again.stdout
    assert stamps(swept) == before
    assert (swept / "sweep.html").is_file()


def test_a_killed_sweep_goes_on_bit_for_bit(start, straight, short, invoke, tmp_path):
    folder = tmp_path / "sweep"
    process = start(
        "train", "--multirun", *short, *SWEPT, f"output_dir={folder}",
        code=KILLED,
    )  # fmt: skip
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, stderr
    assert load_resume(folder / "1" / "resume.pt")["iteration"] == 5
    assert [read_state(folder / number).state for number in "01"] == ["done", "training"]
    finished = {path: stamp for path, stamp in stamps(folder).items() if path.parent.name == "0"}
    result = invoke("train", "--multirun", f"checkpoint={folder}")
    assert result.exit_code == 0, result.output
    assert "1 finished before" in result.stdout
    assert finished.items() <= stamps(folder).items()
    for number in "01":
        ours, theirs = (load_resume(place / number / "resume.pt") for place in (folder, straight))
        for key in set(theirs) - {"config"}:
            assert equal(without_place(ours)[key], without_place(theirs)[key]), (number, key)
        for name in ("best", "last"):
            ours, theirs = (load_file(place / number / f"{name}.safetensors") for place in (folder, straight))
            assert equal(ours, theirs)
    measured = [json.loads((place / "1" / "score.json").read_text()) for place in (folder, straight)]
    assert measured[0]["directions"] == measured[1]["directions"]


def test_ctrl_c_says_how_to_go_on(short, invoke, tmp_path, monkeypatch):
    one = Trainer._one

    def interrupted(self, module):
        if self.iteration == 3:
            signal.raise_signal(signal.SIGINT)
        return one(self, module)

    monkeypatch.setattr(Trainer, "_one", interrupted)
    folder = tmp_path / "my sweep"
    result = invoke("train", "-m", *short, *SWEPT, f"output_dir={folder}")
    assert result.exit_code == 130, result.output
    assert result.stderr.splitlines()[-1] == (
        f"interrupted: 0 finished runs kept; go on with: latentclr train --multirun 'checkpoint={folder}'"
    )
    assert read_state(folder / "0").state == "stopped"
    assert load_resume(folder / "0" / "resume.pt")["iteration"] == 4


def test_what_is_missing_is_made_again(swept, invoke):
    """A run that was killed before anything was saved begins again; with other codes the rest is only scored."""
    run = swept / "1"
    (run / "resume.pt").unlink()
    (run / "sweep_run.json").unlink()
    trained = (swept / "0" / "last.safetensors").stat().st_mtime_ns
    result = invoke("train", "-m", f"checkpoint={swept}", "codes=25")
    assert result.exit_code == 0, result.output
    assert load_resume(run / "resume.pt")["iteration"] == 12
    assert read_state(run).state == "done"
    for number in "01":
        assert json.loads((swept / number / "score.json").read_text())["settings"]["codes"] == 25
    assert (swept / "0" / "last.safetensors").stat().st_mtime_ns == trained


def test_a_damaged_run_is_made_again_and_stops_no_other(swept, straight, invoke):
    """Its best checkpoint is found again by the same training, bit for bit; the last one would be another."""
    best = swept / "0" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-100])
    other = {path: stamp for path, stamp in stamps(swept).items() if path.parent.name == "1"}
    result = invoke("train", "-m", f"checkpoint={swept}")
    assert result.exit_code == 0, result.output
    assert [read_state(swept / number).state for number in "01"] == ["done", "done"]
    assert equal(load_file(best), load_file(straight / "0" / "best.safetensors"))
    assert other.items() <= stamps(swept).items()


def test_a_failed_run_stops_no_other(short, invoke, tmp_path):
    folder = tmp_path / "sweep"
    words = ["k=2", "hparams.optimizer.lr=1e30,0.001", "codes=24", "tensorboard=false"]
    result = invoke("train", "--multirun", *short, *words, f"output_dir={folder}")
    assert result.exit_code == 2, result.output
    why = "failed: the loss became nan at step 2: lower hparams.optimizer.lr or set hparams.grad_clip_max_norm"
    assert f"run 0 (hparams.optimizer.lr=1e+30) {why}" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        f"Error: 1 of 2 runs failed, as listed above; 1 finished run kept; go on with: latentclr train --multirun"
        f" checkpoint={folder}"
    )
    assert (read_state(folder / "0").state, read_state(folder / "1").state) == ("failed", "done")
    assert "<h2>Failed</h2>" in (folder / "sweep.html").read_text()


def test_a_full_disk_is_one_line(short, invoke, tmp_path):
    """The second run's state has no room: 64 directions of three layers, their optimizer's numbers too."""
    folder = tmp_path / "sweep"
    words = ["k=2,64,65", "codes=24", "tensorboard=false", f"output_dir={folder}"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, before[1]))
    try:
        result = invoke("train", "-m", *short, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2, result.output
    finished, failed, line = result.stderr.splitlines()
    assert " run 0 (k=2): purity" in finished
    assert " run 1 (k=64) failed: could not write" in failed
    why, _, rest = line.partition("; ")
    assert why.startswith(f"Error: could not write {folder / '1'}/")
    assert "File too large" in why
    assert rest == f"1 finished run kept; go on with: latentclr train --multirun checkpoint={folder}"
    assert read_state(folder / "0").state == "done"
    assert not (folder / "2" / "resume.pt").exists()  # it was not even tried
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kk=2,3"], "unknown option 'kk'; did you mean 'k'"),
        (["k=choice()"], "empty choice is not legal"),
        (["k=2,3", "output_dir=a,b"], "numbered folders of one folder"),
        (["k=2,3", "hydra/launcher=fast"], "hydra/launcher must be one of basic, joblib"),
        (["k=2,3", "codes=3"], "codes must be in [24, 10000], got 3"),
        (["k=2,3", "scorers=[pixel]"], "no scorer 'pixel'; did you mean 'pixels'?"),
        (["output_dir=null", "checkpoint=nowhere"], "no sweep in nowhere: it has no sweep.yaml"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(short, invoke, refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(invoke("train", "--multirun", *short, "output_dir=out/sweep", *words))
    assert not list(tmp_path.iterdir())


def test_two_sweeps_into_one_folder(swept, short, invoke, refused, run):
    before = stamps(swept)
    for words, message in (
        (
            [*short, "k=2,4", "seed=7", f"output_dir={swept}"],
            "already holds another sweep: go on with it by checkpoint=",
        ),
        ([f"checkpoint={swept}", "k=2,4"], "k=2,4: a sweep goes on as it began"),
        ([f"checkpoint={swept}", "model=global"], "model=global: a sweep goes on as it began"),
        ([f"checkpoint={swept}", "output_dir=elsewhere"], "leave output_dir out"),
        ([*short, *SWEPT, f"output_dir={run}"], "already holds a run: choose another output_dir"),
    ):
        assert message in refused(invoke("train", "-m", *words))
    assert "already holds a run" in refused(invoke("train", *short, f"output_dir={swept / '0'}"))
    assert "is a sweep: name its runs" in refused(invoke("score", swept, "codes=24"))
    with alone(swept):
        assert "is in use by process" in refused(invoke("train", "-m", f"checkpoint={swept}"))
    assert stamps(swept) == before


def test_a_run_that_another_process_has(swept, invoke):
    (swept / "0" / "sweep_run.json").unlink()
    with alone(swept / "0"):
        result = invoke("train", "-m", f"checkpoint={swept}")
    assert result.exit_code == 2
    assert f"run 0 (k=2) failed: {swept / '0'} is in use by process" in result.stdout
    assert read_state(swept / "0") is None  # what stands there is the other process's


def test_torchrun_starts_no_sweep(short, invoke, refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "call it without torchrun" in refused(invoke("train", "-m", *short, *SWEPT))


@pytest.mark.slow
def test_no_file_makes_code_run(invoke, refused, tmp_path):
    """A sweep over a generator of the user's own asks for the word again."""
    folder = tmp_path / "sweep"
    words = ["generator.layers=1", "model=random", "k=2", "seed=0,1", "codes=24"]
    result = invoke("train", "-m", WORD, *words, f"output_dir={folder}")
    assert result.exit_code == 0, result.output
    assert f"name it again with {WORD}" in refused(invoke("train", "-m", f"checkpoint={folder}"))
    again = invoke("train", "-m", f"checkpoint={folder}", WORD)
    assert again.exit_code == 0, again.output
    assert "2 finished before" in again.stdout
    text = (folder / "sweep.yaml").read_text()
    (folder / "sweep.yaml").write_text(text.replace("- k=2", "- hydra/launcher=joblib"))
    assert "words that are none of a run's" in refused(invoke("train", "-m", f"checkpoint={folder}", WORD))


def installed(kind):
    return pytest.mark.skipif(
        not (find_spec("hydra_plugins") and find_spec(f"hydra_plugins.hydra_{kind}")), reason=kind
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "more"),
    [
        pytest.param("joblib", ["hydra.launcher.n_jobs=2"], marks=installed("joblib_launcher")),
        pytest.param("submitit_local", [], marks=[installed("submitit_launcher"), pytest.mark.full]),
        pytest.param(
            "ray", ["+hydra.launcher.ray.init.num_cpus=2"], marks=[installed("ray_launcher"), pytest.mark.full]
        ),
    ],
)
def test_launchers_make_the_same_runs(start, straight, short, tmp_path, launcher, more):
    """Each run in a process of its own, with one thread each as in the sweep that was never disturbed."""
    folder = tmp_path / "sweep"
    words = [*short, *SWEPT, f"hydra/launcher={launcher}", *more, f"output_dir={folder}"]
    process = start("-m", "latentclr", "train", "--multirun", *words)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert f"by hydra/launcher={launcher}, 1 CPU thread each" in stdout
    for number in "01":
        ours, theirs = (load_file(place / number / "last.safetensors") for place in (folder, straight))
        assert equal(ours, theirs)


@pytest.mark.full
@installed("optuna_sweeper")
def test_a_search_goes_on_where_it_was(start, short, tmp_path):
    folder = tmp_path / "sweep"
    words = [
        *short, "k=2,3", "hparams.optimizer.lr=interval(0.001,0.01)", "codes=24", "tensorboard=false",
        "hydra/sweeper=optuna", f"output_dir={folder}",
    ]  # fmt: skip
    for trials in (2, 3):
        process = start("-m", "latentclr", "train", "-m", *words, f"hydra.sweeper.n_trials={trials}")
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert f"a search of {trials} runs" in stdout
        assert ("2 finished before" in stdout) == (trials == 3)
    runs = yaml.safe_load((folder / "sweep.yaml").read_text())["runs"]
    assert [run["state"] for run in runs] == ["done"] * 3
    assert len({tuple(run["words"]) for run in runs}) == 3
    assert (folder / "optimization_results.yaml").is_file()
