"""Checkpoint files: round trip, readable metadata, damage, hostility, a full disk."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentclr.errors import CheckpointError, SaveError
from latentclr.files import replacing, sha256_of
from latentclr.training.checkpoint import find_checkpoint, load_checkpoint, load_resume, save_checkpoint, save_resume


def header(path: Path) -> tuple[dict, bytes]:
    """Return a safetensors file's JSON header and its data."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_metadata(path: Path, change) -> None:
    """Rewrite a checkpoint with its metadata changed in place by `change(meta)`."""
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["latentclr"])
    tensors = load_file(path)
    meta = change(meta) or meta
    save_file(tensors, path, metadata={"latentclr": json.dumps(meta)})


def put(meta, dotted, value):
    *parents, leaf = dotted.split(".")
    for part in parents:
        meta = meta[part]
    meta[leaf] = value


def test_metadata_is_readable_without_us(trained, tiny_weights):
    with safe_open(trained / "best.safetensors", framework="np") as file:
        meta = json.loads(file.metadata()["latentclr"])
    assert meta["generator"]["name"] == "dcgan"
    assert meta["generator"]["weights_sha256"] == sha256_of(tiny_weights)
    assert meta["generator"]["classes"] == []
    assert (meta["k"], meta["dim"], meta["feature_layer"], meta["alpha"]) == (4, 24, "main.2", [-3.0, 3.0])
    assert meta["iteration"] in (6, 12)
    assert meta["config"]["hparams"]["batch_size"] == 4


def test_round_trip(trained, tmp_path, faces):
    first = load_checkpoint(trained / "best.safetensors")
    assert not first.directions.training
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, first.directions, first.projector, config=first.config, generator=faces,
                    iteration=first.iteration, loss=first.loss)  # fmt: skip
    second = load_checkpoint(again)
    assert (second.config, second.iteration, second.loss) == (first.config, first.iteration, first.loss)
    assert second.generator["weights_sha256"] == faces.weights_sha256
    z = torch.ones(2, 24)
    assert torch.equal(first.directions(z), second.directions(z))


def test_find_checkpoint(run, tmp_path):
    assert find_checkpoint(run) == run / "best.safetensors"
    assert find_checkpoint(run, "last") == run / "last.safetensors"
    assert find_checkpoint(run / "last.safetensors") == run / "last.safetensors"
    assert find_checkpoint(run, str(run / "x.safetensors")) == run / "x.safetensors"
    (run / "best.safetensors").unlink()
    assert find_checkpoint(run) == run / "last.safetensors"  # interrupted before its first evaluation
    with pytest.raises(CheckpointError, match=r"holds no best.safetensors \(found last.safetensors\)"):
        find_checkpoint(run, "best")
    (run / "last.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no best.safetensors \(no checkpoint\)"):
        find_checkpoint(run)
    with pytest.raises(CheckpointError, match="no run folder at"):
        find_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.3, 0.9, 0.9999])
def test_truncated(run, share):
    for name, load in (("best.safetensors", load_checkpoint), ("resume.pt", load_resume)):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * share)])
        with pytest.raises(CheckpointError, match=name) as caught:
            load(run / name)
        assert "\n" not in str(caught.value)


def test_random_bytes(tmp_path):
    for seed in range(30):
        noise = torch.randint(256, (400,), generator=torch.Generator().manual_seed(seed)).byte().numpy().tobytes()
        for name, load in (("x.safetensors", load_checkpoint), ("resume.pt", load_resume)):
            (tmp_path / name).write_bytes(noise)
            with pytest.raises(CheckpointError) as caught:
                load(tmp_path / name)
            assert "\n" not in str(caught.value)


class Hostile:
    """Touches a file when unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["best.safetensors", "resume.pt"])
@pytest.mark.parametrize("form", ["raw", "torch", "nested"])
def test_hostile_pickles_do_not_run(run, tmp_path, name, form):
    mark = tmp_path / "executed"
    if form == "raw":
        (run / name).write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    else:
        torch.save(
            Hostile(mark) if form == "torch" else {"format": 1, "config": {}, "optimizer": Hostile(mark)}, run / name
        )
    with pytest.raises(CheckpointError) as caught:
        (load_checkpoint if name.endswith("safetensors") else load_resume)(run / name)
    assert not mark.exists()
    message = str(caught.value)
    assert "\n" not in message
    assert "set to `False`" not in message  # torch advises to load it without protection
    if name == "resume.pt":
        assert "system" in message  # what it asked for


@pytest.mark.parametrize("state", [{"format": 1}, {"format": 2, "config": {}}, [1], {"format": 1, "config": [1]}])
def test_other_states_are_refused(tmp_path, state):
    torch.save(state, tmp_path / "resume.pt")
    with pytest.raises(CheckpointError, match="not a latentclr run state"):
        load_resume(tmp_path / "resume.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("k", 10**12), ("dim", 10**9), ("k", 3), ("k", -1), ("k", "many"), ("k", None), ("config", []),
        ("config", {}), ("config.model.depth", 10**9), ("config.model.depth", 3), ("config.model.depth", "deep"),
        ("config.model.name", "global"), ("config.model.name", "linear"), ("config.projector.name", "linear"),
        ("config.projector.name", "nonlinear"), ("config.model.orient", True),
        ("generator", "x"), ("iteration", "x"), ("config.model", 7),
    ],
)  # fmt: skip
def test_metadata_that_lies_is_refused_before_anything_is_allocated(run, key, value):
    path = run / "best.safetensors"
    with_metadata(path, lambda meta: put(meta, key, value))
    with pytest.raises(CheckpointError, match="weights and metadata do not fit"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value"), [("out_features", 10**10), ("middle_features", 10**7), ("depth", 10**9), ("depth", -5)]
)
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_projector_sizes_that_lie(trained, tmp_path, faces, kind, key, value):
    from latentclr.training.checkpoint import make_projector

    good = load_checkpoint(trained / "best.safetensors")
    config = json.loads(json.dumps(good.config))
    config["projector"] |= {"name": kind, "middle_features": 5, "out_features": 3, "depth": 2}
    path = tmp_path / "x.safetensors"
    save_checkpoint(
        path, good.directions, make_projector(config, 7), config=config, generator=faces, iteration=1, loss=0.0
    )
    assert load_checkpoint(path).projector.kind == kind
    with_metadata(path, lambda meta: put(meta, f"config.projector.{key}", value))
    if kind == "linear" and key != "out_features":
        return  # not read for this kind
    with pytest.raises(CheckpointError, match="weights and metadata do not fit"):
        load_checkpoint(path)


def test_header_that_lies_about_sizes(run):
    path = run / "best.safetensors"
    table, data = header(path)
    name = next(key for key in table if key != "__metadata__")
    for change in ({"shape": [10**6, 10**6]}, {"data_offsets": [0, 10**12]}, {"dtype": "F64"}, {"shape": [-1]}):
        raw = json.dumps({**table, name: {**table[name], **change}}).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            load_checkpoint(path)
    path.write_bytes(struct.pack("<Q", 2**62) + data)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(path)


def test_metadata_that_is_no_metadata(run):
    path = run / "best.safetensors"
    tensors = load_file(path)
    for metadata in (None, {"latentclr": "null"}, {"latentclr": "{"}, {"latentclr": "[" * 100_000}, {"other": "x"},
                     {"latentclr": '{"format": 99}'}):  # fmt: skip
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_replacing_is_all_or_nothing(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(KeyError), replacing(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    with pytest.raises(SaveError, match=r"could not write .*file.txt"), replacing(target) as temporary:
        raise OSError(28, "No space left on device")
    assert target.read_text() == "first"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_many_threads_write_with_the_permissions_of_any_new_file(tmp_path, monkeypatch):
    """To read the umask is to set it for a moment, for all threads; it may then stay at 0."""
    umask = os.umask
    monkeypatch.setattr(os, "umask", lambda mask: (umask(mask), time.sleep(0.001))[0])  # threads meet right after it
    before = umask(0o027)
    try:

        def write(i):
            for _ in range(20):
                with replacing(tmp_path / f"{i}" / "file") as temporary:
                    temporary.write_text("whole")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
    finally:
        after = umask(before)
    assert after == 0o027
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*/file")} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*")} == {0o750}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="could not write"):
        save_resume(tmp_path / "file" / "resume.pt", {"format": 1})


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from latentclr.cli import main
main()
"""


@pytest.mark.slow
def test_full_disk_during_a_save_leaves_the_old_files(start, run):
    """The file size limit makes every write past it fail, as a full disk does."""
    before = {path.name: path.read_bytes() for path in run.glob("*.*") if path.suffix in (".safetensors", ".pt")}
    process = start("train", f"checkpoint={run}", "hparams.iterations=30", code=FULL.format(limit=16_000))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, stderr
    assert "could not write" in errors[0]
    assert "safetensors" in errors[0]
    assert "Traceback" not in stderr
    after = {path.name: path.read_bytes() for path in run.glob("*.*") if path.suffix in (".safetensors", ".pt")}
    assert after == before
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.slow
def test_full_disk_for_the_events(start, short, tmp_path):
    process = start("train", *short, "hparams.iterations=100000", "save_freq=100000", "eval_freq=100000",
                    f"output_dir={tmp_path / 'run'}", code=FULL.format(limit=4000))  # fmt: skip
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert stderr.splitlines()[-1].startswith("Error: could not write TensorBoard events to"), stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", ["resume.pt", "last.safetensors"])
def test_full_disk_for_one_kind_of_file(start, run, name):
    """Each writer reports a full disk in its own way; the size of its own file decides who fails."""
    size = (run / name).stat().st_size
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size - 100}, {size - 100}))
from pathlib import Path
from latentclr.training.checkpoint import load_checkpoint, load_resume, save_checkpoint, save_resume
from latentclr.errors import SaveError
from latentclr.generators.dcgan import load_dcgan
run = Path({str(run)!r})
try:
    if {name!r} == "resume.pt":
        save_resume(run / {name!r}, load_resume(run / {name!r}))
    else:
        c = load_checkpoint(run / {name!r})
        g = load_dcgan(c.config["generator"]["weights"])
        save_checkpoint(run / {name!r}, c.directions, c.projector, config=c.config, generator=g, iteration=1, loss=0.0)
except SaveError as error:
    print("refused:", error)
"""
    before = (run / name).read_bytes()
    stdout, stderr = start(code=code).communicate(timeout=60)
    assert stdout.startswith("refused: could not write"), stdout + stderr
    assert (run / name).read_bytes() == before
    assert not list(run.rglob(".tmp-*"))
