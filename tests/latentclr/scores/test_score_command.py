"""`latentclr score` and `latentclr name --auto`, from words to files."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from export.manifest import slider_ranges
from latentclr.catalog import NamedEdit, read_catalog, write_catalog
from latentclr.commands import run_train
from latentclr.commands import score as command
from latentclr.config import ScoreConfig
from latentclr.files import sha256_of
from latentclr.generators.dcgan import load_dcgan
from latentclr.pictures.pixels import to_uint8
from latentclr.scores.report import load_scores, read_scores
from latentclr.scores.scorer import Scored, build_scorers
from latentclr.training.checkpoint import load_checkpoint, write_checkpoint
from latentclr.training.experiment import open_run

FILES = ["score.html", "score.json", "score.png"]


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """The short run, scored once by its pixels."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "faces")
    command.run_score([folder], ["codes=24"])
    return folder


@pytest.fixture
def named(scored, tmp_path):
    """A copy of the scored run, so sure of itself that every direction with an effect gets a name."""
    folder = shutil.copytree(scored, tmp_path / "run")
    return folder


def test_a_run_is_scored(run, invoke):
    before = {path.name for path in run.iterdir()}
    result = invoke("score", run, "codes=24")
    assert result.exit_code == 0, result.output
    assert {path.name for path in run.iterdir()} == before | set(FILES)
    scores = read_scores(run, sha256_of(run / "best.safetensors"))
    assert scores is not None
    assert len(scores.directions) == 4
    assert scores.settings.seed == 0
    assert f"({scores.pictures} pictures" in result.stdout
    for k in range(4):
        assert f"\n{k}  " in result.stdout
    written = (run / "score.json").read_bytes()
    assert invoke("score", run, "codes=24").exit_code == 0
    assert (run / "score.json").read_bytes() == written  # and so on every machine like this


def test_a_score_is_of_the_checkpoint_that_was_read(run, scored, invoke, refused):
    """A run that trains while it is scored has another `best.safetensors` by the time that its score is written."""
    config, checkpoint = open_run(run, ["codes=24"], ScoreConfig)
    last = load_checkpoint(run / "last.safetensors")
    write_checkpoint(run / "best.safetensors", dataclasses.replace(last, iteration=99))
    assert slider_ranges(checkpoint) == [(-6.0, 6.0)] * 4
    command.score_run("run", config, checkpoint, build_scorers(["pixels"]), 0, run)
    assert load_scores(run / "score.json").run.checkpoint_sha256 == sha256_of(scored / "best.safetensors")
    assert read_scores(run, load_checkpoint(run / "best.safetensors").sha256) is None
    assert "is of another checkpoint" in refused(invoke("name", run, "--auto"))


def test_other_codes_and_another_place(run, invoke, tmp_path):
    result = invoke("score", run, "codes=24", "seed=5", f"output_dir={tmp_path / 'out'}")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert not (run / "score.json").exists()
    assert load_scores(tmp_path / "out" / "score.json").settings.seed == 5


@pytest.fixture
def measured_before(scored, monkeypatch):
    """Say of every run what was measured of one, which is tested above."""
    scores, strips = load_scores(scored / "score.json"), np.zeros((4, 3, 5, 8, 8, 3), np.uint8)

    def known(subject, scorers, info, **options):
        return command.Measured(dataclasses.replace(scores, run=info), strips)

    monkeypatch.setattr(command, "measure", known)


def methods_of(*folders):
    return len({load_scores(folder / "score.json").run.method for folder in folders})


def test_runs_are_compared(run, short, invoke, measured_before, tmp_path):
    other = tmp_path / "other"
    assert run_train([*short, "seed=1", f"output_dir={other}"])
    result = invoke("score", run, other, "codes=24")
    assert result.exit_code == 0, result.output
    assert "purity" in result.stdout
    assert methods_of(run, other) == 1
    for folder in (run, other):
        assert "Compared with the others" in (folder / "score.html").read_text()


def test_a_run_that_was_stopped_is_no_seed_of_a_complete_one(run, short, invoke, measured_before, tmp_path):
    other = tmp_path / "other"
    assert run_train([*short, "seed=1", "hparams.iterations=6", f"output_dir={other}"])
    for name in ("best", "last"):  # as an interrupted run of 12 steps leaves them
        checkpoint = load_checkpoint(other / f"{name}.safetensors")
        checkpoint.config["hparams"]["iterations"] = 12
        write_checkpoint(checkpoint.path, checkpoint)
    assert invoke("score", run, other, "codes=24").exit_code == 0
    assert methods_of(run, other) == 2


def test_one_training_is_no_two_seeds(run, short, invoke, refused, tmp_path):
    """Neither a copy nor the same words in another folder says anything of other seeds."""
    copy, again = shutil.copytree(run, tmp_path / "copy"), tmp_path / "again"
    assert run_train([*short, f"output_dir={again}"])
    for other in (copy, again):
        assert f"{run} and {other} are one training" in refused(invoke("score", run, other, "codes=24"))
        assert not (run / "score.json").exists()


def test_ctrl_c_says_what_is_written(run, invoke, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    before = {path.name for path in run.iterdir()}
    monkeypatch.setattr(command, "measure", interrupted)
    result = invoke("score", run, "codes=24")
    assert result.exit_code == 130
    assert "interrupted: 0 of 1 runs are scored and written" in result.stderr
    assert {path.name for path in run.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["codes=23"], "codes must be in [24, 10000], got 23"),
        (["codes=10001"], "codes must be in [24, 10000], got 10001"),
        (["scorers=[pixel]"], "no scorer 'pixel'; did you mean 'pixels'?"),
        (["scorers=[]"], "expected one or more scorers"),
        (["code=30"], "'codes'"),
        (["seed=-1"], "seed must be at least 0"),
    ],
)
def test_bad_words_are_refused(run, invoke, refused, words, message):
    assert message in refused(invoke("score", run, *words))
    assert not (run / "score.json").exists()


def test_runs_must_be_named_once(run, invoke, refused):
    assert "expected a run folder" in refused(invoke("score", "codes=24"))
    assert "each run can be named once" in refused(invoke("score", run, run / "best.safetensors", "codes=24"))
    other = shutil.copytree(run, run.parent / "other")
    assert "output_dir takes the files of one run" in refused(invoke("score", run, other, "output_dir=x"))
    assert "no run folder" in refused(invoke("score", run, run / "missing"))


class Blind:
    """Trusts a few pictures, as a scorer of faces does where there are none: the first of each call, of up to 16."""

    name = "faces"
    attributes: tuple[str, ...] = ("happy", "yaw")

    def __call__(self, images):
        values = np.random.default_rng(0).normal(size=(len(images), 2))
        return Scored(values, np.arange(len(images)) == 0)


def test_a_generator_without_faces(run, invoke, refused, monkeypatch):
    monkeypatch.setattr(command, "build_scorers", lambda words: [Blind()])
    message = refused(invoke("score", run, "codes=24"))
    assert "nothing can be measured: of the unedited pictures faces trusts 6%" in message
    assert not (run / "score.json").exists()


def test_names_by_the_score(named, invoke):
    result = invoke("name", named, "--auto", "--min-effect", "0", "--min-purity", "0", "--min-agreement", "0")
    assert result.exit_code == 0, result.output
    scores = load_scores(named / "score.json")
    edits = read_catalog(named)
    assert edits
    for name, edit in edits.items():
        direction = scores.directions[edit.direction]
        _, effect = direction.top(1)[0]
        low, high = (-direction.range[1], -direction.range[0]) if edit.reverse else direction.range
        assert edit.reverse == (effect.mean < 0)
        assert edit.alpha == (float(f"{low:.2g}"), float(f"{high:.2g}"))
        assert edit.note.startswith(f"auto {edit.direction} {edit.alpha[0]:g}..{edit.alpha[1]:g}: ")
        assert f"purity {direction.purity:.2f}" in edit.note
        assert f"{name}: {edit.note}" in result.stdout
    assert f"of {len(scores.directions)} directions are clear enough" in result.stdout
    again = invoke("name", named, "--auto", "--min-effect", "0", "--min-purity", "0", "--min-agreement", "0")
    assert again.stdout == result.stdout
    assert read_catalog(named) == edits
    # Under thresholds that nothing reaches all of them go again.
    assert invoke("name", named, "--auto", "--min-effect", "99").exit_code == 0
    assert read_catalog(named) == {}


def test_what_was_named_by_hand_stays(named, invoke):
    limits = ("--min-effect", "0", "--min-purity", "0", "--min-agreement", "0")
    assert invoke("name", named, "--auto", *limits).exit_code == 0
    (name, edit), *others = read_catalog(named).items()
    mine = NamedEdit(edit.direction, (), (-1.0, 1.0), edit.note, edit.reverse)  # its range was changed by hand
    write_catalog(named, {name: mine, **dict(others)})
    result = invoke("name", named, "--auto", *limits)
    assert read_catalog(named)[name] == mine
    assert f"direction {edit.direction} stays {name}: it was named by hand" in result.stdout
    # A name that somebody gave to another direction, one without a proposal or not.
    taken = NamedEdit((edit.direction + 1) % 4, (), (-2.0, 2.0), "my own")
    write_catalog(named, {name.upper(): taken})
    result = invoke("name", named, "--auto", *limits)
    after = read_catalog(named)
    assert after[name.upper()] == taken
    assert name not in after
    assert f"{name} stays what it is" in result.stdout
    assert "# mine" in (named / "catalog.yaml").read_text() or yaml.safe_load((named / "catalog.yaml").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--auto", "smile"], "--auto takes no name"),
        (["--auto", "--direction", "2"], "--auto takes no name, and no option but"),
        ([], "expected a name, or --auto"),
        (["smile", "--direction", "1", "--min-purity", "0.5"], "need --auto"),
    ],
)
def test_auto_stands_alone(named, invoke, refused, words, message):
    assert message in refused(invoke("name", named, *words))


def test_a_score_of_another_version_or_checkpoint_names_nothing(named, invoke, refused):
    raw = json.loads((named / "score.json").read_text())
    (named / "score.json").write_text(json.dumps({**raw, "format": 2}))
    assert "has format 2, this version reads 1; score the run again" in refused(invoke("name", named, "--auto"))
    raw["run"]["checkpoint_sha256"] = "b" * 64
    (named / "score.json").write_text(json.dumps(raw))
    assert "is of another checkpoint" in refused(invoke("name", named, "--auto"))
    (named / "score.json").unlink()
    assert "was not scored yet: latentclr score" in refused(invoke("name", named, "--auto"))
    assert not (named / "catalog.yaml").exists()


def test_mistrust_is_told_and_names_nothing(named, invoke, refused):
    raw = json.loads((named / "score.json").read_text())
    raw["scorers"][0]["trusted"] = 0.03
    (named / "score.json").write_text(json.dumps(raw))
    message = refused(invoke("name", named, "--auto", "--min-effect", "0"))
    assert "pixels trusts 3% of the unedited pictures and names nothing" in message
    assert not (named / "catalog.yaml").exists()


def test_a_name_by_hand_gets_the_measured_range(named, invoke):
    scores = load_scores(named / "score.json")
    assert invoke("name", named, "smile", "--direction", "2").exit_code == 0
    assert invoke("name", named, "frown", "--direction", "1", "--reverse").exit_code == 0
    edits = read_catalog(named)
    assert edits["smile"].alpha == tuple(float(f"{end:.2g}") for end in scores.directions[2].range)
    low, high = scores.directions[1].range
    assert edits["frown"].alpha == (float(f"{-high:.2g}"), float(f"{-low:.2g}"))


def test_gen_draws_a_scored_run_over_its_ranges(named, invoke):
    """Directly, each row ends at what was measured for it."""
    scores, checkpoint = load_scores(named / "score.json"), load_checkpoint(named / "best.safetensors")
    words = ("gen", named, "n_samples=1", "n_dirs=-1", "image_size=null", "iterative=false")
    assert invoke(*words).exit_code == 0
    with Image.open(named / "gen" / "sample_0.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    tiles = pixels[-4 * 18 :, -5 * 18 :].reshape(4, 18, 5, 18, 3)[:, :16, :, :16].transpose(0, 2, 1, 3, 4)
    generator = load_dcgan(checkpoint.config["generator"]["weights"])
    z = generator.sample_seeds(0, 1)
    with torch.no_grad():
        for k, column in ((0, 0), (3, 4)):
            alpha = scores.directions[k].slider[0 if column == 0 else 1]
            expected = to_uint8(generator.synthesize((z + alpha * checkpoint.directions(z)[k])[:, None]))[0].numpy()
            assert np.abs(tiles[k, column] - expected).max() <= 1
    before = (named / "gen" / "sample_0.png").read_bytes()
    assert invoke(*words, "alphas=[-6,6]").exit_code == 0
    assert (named / "gen" / "sample_0.png").read_bytes() != before
