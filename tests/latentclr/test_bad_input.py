"""Bad input: exit code 2, one line on standard error, nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_generators import dcgan_tensors

from latentclr.errors import of_the_machine


def everything(folder: Path) -> dict[str, bytes | None]:
    """All files and folders below, with their content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


TRAIN = [
    (["k=1"], "k must be at least 2"),
    (["hparams.batch_size=1"], "hparams.batch_size must be at least 2"),
    (["model.alpha=nan"], "model.alpha must be a nonzero finite number"),
    (["model.alpha=[-inf,inf]"], "model.alpha must be"),
    (["modle=linear"], "did you mean 'model"),
    (["generator=biggn"], "generator must be one of"),
    (["hparams/optimizer=adm"], "did you mean 'adam'"),
    (["generator.feature_layer=main.22"], "layers: main.0, main.1, main.2, main.3, main.4, main.5, main.6, main.7"),
    (["generator.feature_layer=main"], "no layer 'main'"),
    (["generator.weights=nowhere.pt"], "no weights file at nowhere.pt"),
    (["generator.weights=."], "no weights file at ."),
    (["feed_layers=[1]"], "feed_layers must name layers in [0, 1), got [1]"),
    (["feed_layers=[]"], "feed_layers must name layers"),
    (["device=tpu"], "device must be cpu, cuda or cuda:N"),
    (["device=mps"], "device must be cpu, cuda or cuda:N"),
    (["mixed_precision=fp16"], "fp16 needs a GPU"),
    (["hparams.optimizer.name=Adan"], "did you mean 'Adam'"),
    (["hparams.optimizer.speed=3"], "Adam takes no 'speed'"),
    (["hparams.optimizer.lr=-1"], "hparams.optimizer: Adam: Invalid learning rate"),
    (["hparams.scheduler.name=Step"], "did you mean 'StepLR'"),
    (["hparams.scheduler.gama=3"], "did you mean 'gamma'"),
    (["checkpoint=nowhere"], "nothing to resume: no nowhere/resume.pt"),
    (["rubbish"], "expected key=value, got 'rubbish'"),
    (["seed=99999999999"], "seed must be in"),
]


@pytest.mark.parametrize(("words", "message"), TRAIN, ids=[" ".join(words) for words, _ in TRAIN])
def test_train(short, invoke, refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    out = [] if words[0].startswith("checkpoint") else ["output_dir=new/run"]
    assert message in refused(invoke("train", *short, *out, *words))
    assert everything(tmp_path) == {}


def test_train_where_no_gpu_is(short, invoke, refused, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = ["device=cuda:0", "auto_cpu_if_no_gpu=false", f"output_dir={tmp_path / 'run'}"]
    assert "there is no GPU here; use device=cpu or auto_cpu_if_no_gpu=true" in refused(invoke("train", *short, *words))
    assert everything(tmp_path) == {}


def test_train_into_a_place_that_is_none(short, invoke, refused, tmp_path):
    (tmp_path / "file").write_text("precious")
    line = refused(invoke("train", *short, f"output_dir={tmp_path / 'file'}"))
    assert "file" in line
    line = refused(invoke("train", *short, f"output_dir={tmp_path / 'file' / 'run'}"))
    assert "file" in line
    assert everything(tmp_path) == {"file": b"precious"}


def test_train_with_weights_that_are_none(short, invoke, refused, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"netG_state_dict": Hostile()}, tmp_path / "hostile.pt")
    save_file(dcgan_tensors(), tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    refusals = {
        "raw.pt": "plain tensors",
        "hostile.pt": "asks for posix.system",
        "cut.safetensors": "not a whole safetensors file",
        "other.safetensors": "DCGAN",
    }
    for name, message in refusals.items():
        weights = f"generator.weights={tmp_path / name}"
        assert message in refused(invoke("train", *short, weights, f"output_dir={tmp_path / 'run'}"))
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_the_machine_forbids_is_told(number):
    reason = os.strerror(number)
    assert of_the_machine(OSError(number, reason, "outputs/run")) == f"{reason}: 'outputs/run'"


def test_a_folder_that_may_not_be_looked_into(short, invoke, refused, tmp_path):
    """`Path.exists` says no for what is missing, and raises for what may not be seen."""
    if os.geteuid() == 0:
        pytest.skip("root may look into everything")
    run = tmp_path / "locked" / "run"
    run.parent.mkdir()
    run.parent.chmod(0)
    try:
        for words in (["train", *short, f"output_dir={run}"], ["eval", run], ["gen", run], ["score", run]):
            assert f"Permission denied: '{run}" in refused(invoke(*words))
    finally:
        run.parent.chmod(0o700)


GEN = [
    (["n_samples=0"], "n_samples must be a number of at least 1"),
    (["n_samples=-3"], "n_samples must be"),
    (["n_samples=2.5"], "n_samples must be"),
    (["n_samples=[1]"], "n_samples must be"),
    (["n_samples=nowhere.npy"], "n_samples must be"),
    (["n_samples=BAD/shape.npy"], "with shape [3, 5] of float64"),
    (["n_samples=BAD/flat.npy"], "with shape [24]"),
    (["n_samples=BAD/object.npy"], "n_samples must be"),
    (["n_samples=BAD/text.npy"], "n_samples must be"),
    (["n_samples=BAD/nan.npy"], "not finite"),
    (["n_samples=BAD/inf.npy"], "not finite"),
    (["n_samples=BAD/cut.npy"], "n_samples must be"),
    (["n_samples=BAD/empty.npy"], "n_samples must be"),
    (["n_samples=BAD"], "n_samples must be"),
    (["n_samples=BAD/both.npz"], "n_samples must be"),
    (["n_samples=BAD/none.npy"], "n_samples must be"),
    (["n_samples=BAD/complex.npy"], "n_samples must be"),
    (["n_samples=BAD/huge.npy"], "not finite"),
    (["n_dirs=0"], "n_dirs must be a number of at least 1, -1 for all, or a list of indices in [0, 4), got 0"),
    (["n_dirs=-2"], "n_dirs must be"),
    (["n_dirs=[4]"], "indices in [0, 4), got [4]"),
    (["n_dirs=[-1]"], "n_dirs must be"),
    (["n_dirs=[]"], "n_dirs must be"),
    (["n_dirs=all"], "n_dirs must be"),
    (["alphas=[]"], "alphas must be finite numbers"),
    (["alphas=[nan]"], "alphas must be finite numbers"),
    (["alphas=[1,inf]"], "alphas must be finite numbers"),
    (["alphas=[a]"], "alphas=[a]"),
    (["walk=mp4"], "walk must be none, gif or webp"),
    (["image_size=0"], "image_size must be in [8, 4096]"),
    (["image_size=100000"], "image_size must be in [8, 4096]"),
    (["feed_layers=[7]"], "feed_layers must name layers in [0, 1)"),
    (["k=5"], "best.safetensors has 4 directions"),
    (["model=global"], "this run was trained with model nonlinear"),
    (["model.depth=7"], "was trained with 2"),
    (["n_sample=3"], "did you mean 'n_samples'"),
    (["checkpoint=nowhere.safetensors"], "no checkpoint at nowhere.safetensors"),
    (["seed=4294967290"], "seed must be in"),
]


@pytest.fixture
def bad(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    good = np.zeros((3, 24))
    np.save(folder / "shape.npy", np.zeros((3, 5)))
    np.save(folder / "flat.npy", np.zeros(24))
    np.save(folder / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "text.npy", np.full((3, 24), "x"))
    np.save(folder / "nan.npy", good * np.nan)
    np.save(folder / "inf.npy", np.full((3, 24), np.inf))
    np.save(folder / "huge.npy", np.full((3, 24), 1e300))
    np.save(folder / "none.npy", np.zeros((0, 24)))
    np.save(folder / "complex.npy", good.astype(complex))
    np.savez(folder / "both.npz", a=good, b=good)
    np.save(folder / "cut.npy", good)
    (folder / "cut.npy").write_bytes((folder / "cut.npy").read_bytes()[:300])
    (folder / "empty.npy").write_bytes(b"")
    return folder


@pytest.mark.parametrize(("words", "message"), GEN, ids=[" ".join(words) for words, _ in GEN])
def test_gen(run, bad, invoke, refused, tmp_path, words, message):
    before = everything(tmp_path)
    line = refused(invoke("gen", run, *(word.replace("BAD", str(bad)) for word in words)))
    assert message in line
    assert everything(tmp_path) == before


@pytest.mark.parametrize("command", ["eval", "gen", "export"])
def test_runs_that_are_none(invoke, refused, tmp_path, command):
    extra = ["--repository", tmp_path / "repository"] if command == "export" else []
    (tmp_path / "empty").mkdir()
    assert f"no run folder at {tmp_path / 'nowhere'}" in refused(invoke(command, tmp_path / "nowhere", *extra))
    assert "holds no best.safetensors (no checkpoint)" in refused(invoke(command, tmp_path / "empty", *extra))
    assert sorted(everything(tmp_path)) == ["empty"]


@pytest.mark.parametrize("command", ["eval", "gen", "export"])
@pytest.mark.parametrize("damage", ["cut", "noise", "pickle", "empty"])
def test_damaged_checkpoints(run, invoke, refused, tmp_path, command, damage):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    path = run / "best.safetensors"
    content = path.read_bytes()
    noise = np.random.RandomState(0).bytes(5000)
    path.write_bytes({"cut": content[:-100], "noise": noise, "pickle": pickle.dumps(Hostile()), "empty": b""}[damage])
    before = everything(tmp_path)
    extra = ["--repository", tmp_path / "repository"] if command == "export" else []
    assert "best.safetensors is not a whole checkpoint" in refused(invoke(command, run, *extra))
    assert everything(tmp_path) == before


def test_damaged_resume_state(run, invoke, refused):
    before = everything(run)
    (run / "resume.pt").write_bytes(before["resume.pt"][:-1000])
    assert "resume.pt cannot be resumed from" in refused(invoke("train", f"checkpoint={run}", "hparams.iterations=20"))
    (run / "resume.pt").unlink()
    assert "nothing to resume" in refused(invoke("train", f"checkpoint={run}"))
    assert everything(run) == {name: content for name, content in before.items() if name != "resume.pt"}


@pytest.mark.parametrize("command", ["eval", "gen", "export"])
def test_no_run_named(invoke, command):
    result = invoke(command, "eval_iters=3")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == [next(line for line in errors if "expected a run folder" in line)]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["eval", "train"])
def test_unknown_command_options(invoke, command):
    result = invoke(command, "--batch", "3")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert invoke("trian").exit_code == 2
