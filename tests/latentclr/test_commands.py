"""`eval` and `gen` from words to files, in the forms of this project and of the origin."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from latentclr.commands import run_gen
from latentclr.files import sha256_of
from latentclr.pictures.pixels import to_uint8
from latentclr.training.checkpoint import load_checkpoint

TILE = 16


def size(path):
    with Image.open(path) as image:
        return image.size


def tiles(path, rows, columns):
    """Cut a grid of own-size tiles [R, C, 16, 16, 3] out of a picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    left = pixels.shape[1] - columns * (TILE + 2)
    top = pixels.shape[0] - rows * (TILE + 2)
    return np.stack([
        np.stack([pixels[top + r * (TILE + 2) :, left + c * (TILE + 2) :][:TILE, :TILE] for c in range(columns)])
        for r in range(rows)
    ])  # fmt: skip


def by_hand(run, z, chosen, alphas, iterative):
    """The tiles of a grid from the definition, image by image."""
    from latentclr.generators.dcgan import load_dcgan

    checkpoint = load_checkpoint(run / "best.safetensors")
    generator = load_dcgan(checkpoint.config["generator"]["weights"])
    rows = []
    with torch.no_grad():
        for k in chosen:
            row = []
            for alpha in alphas:
                code, walked = z, 0.0
                stops = [a for a in alphas if (0 < a <= alpha or alpha <= a < 0)] if iterative else [alpha]
                for stop in sorted(stops, key=abs):
                    code = code + (stop - walked) * checkpoint.directions(code[None])[k, 0]
                    walked = stop
                row.append(to_uint8(generator.synthesize(code[None, None]))[0].numpy())
            rows.append(np.stack(row))
    return np.stack(rows)


@pytest.mark.parametrize("iterative", [True, False])
def test_gen_draws_what_the_definition_says(run, invoke, iterative):
    result = invoke("gen", run, "n_samples=2", "n_dirs=[3,1]", "alphas=[-4,-1.5,2,5]", f"iterative={iterative}",
                    "image_size=null", "seed=7")  # fmt: skip
    assert result.exit_code == 0, result.output
    for i in range(2):
        z = torch.from_numpy(np.random.RandomState(7 + i).randn(24).astype(np.float32))
        drawn = tiles(run / "gen" / f"sample_{i}.png", 2, 5)
        expected = by_hand(run, z, [3, 1], [-4, -1.5, 0.0, 2, 5], iterative)
        assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1
    assert "wrote 2 files" in result.stdout


def test_iterative_walk_is_another_path(run, invoke):
    words = ("gen", run, "n_samples=1", "n_dirs=-1", "alphas=[2,4]", "image_size=null")
    assert invoke(*words, "iterative=true", f"output_dir={run / 'a'}").exit_code == 0
    assert invoke(*words, "iterative=false", f"output_dir={run / 'b'}").exit_code == 0
    a, b = (tiles(run / name / "sample_0.png", 4, 3) for name in "ab")
    assert np.array_equal(a[:, :2], b[:, :2])  # up to the first stop they agree
    assert not np.array_equal(a[:, 2], b[:, 2])


@pytest.mark.parametrize(("n_dirs", "count"), [("1", 1), ("3", 3), ("100", 4), ("-1", 4), ("[2]", 1), ("[3,0,3]", 3)])
def test_directions_to_draw(run, invoke, n_dirs, count):
    result = invoke("gen", run, "n_samples=1", f"n_dirs={n_dirs}", "alphas=[1]", "image_size=null")
    assert result.exit_code == 0, result.output
    _, height = size(run / "gen" / "sample_0.png")
    assert (height - count * (TILE + 2)) in range(10, 40)  # the labels' row


@pytest.mark.parametrize("alphas", ["[-3,-2,-1]", "[1]", "[0]", "[5,-5,0,2.5]"])
def test_alphas_of_any_signs(run, invoke, alphas):
    result = invoke("gen", run, "n_samples=1", "n_dirs=2", f"alphas={alphas}", "walk=gif", "image_size=32")
    assert result.exit_code == 0, result.output
    columns = {0.0, *json.loads(alphas)}
    assert size(run / "gen" / "sample_0.png")[0] > 32 * len(columns)


def test_alphas_come_from_the_run(run, invoke):
    """Trained on [-3, 3]: the pictures reach to twice that, as grid.png and the served sliders do."""
    assert invoke("gen", run, "n_samples=1", "n_dirs=[2,0]", "image_size=null", "iterative=false").exit_code == 0
    z = torch.from_numpy(np.random.RandomState(0).randn(24).astype(np.float32))
    expected = by_hand(run, z, [2, 0], [-6, -3, 0.0, 3, 6], False)
    assert np.abs(tiles(run / "gen" / "sample_0.png", 2, 5).astype(int) - expected.astype(int)).max() <= 1


def test_gen_replaces_what_it_drew_before_and_nothing_else(run, invoke):
    folder, words = run / "gen", ("n_dirs=1", "image_size=null")
    names = {"gen.json", "sample_0.png", "sample_1.png", "sample_2.png", "sample_3.png"}
    assert invoke("gen", run, "n_samples=4", "walk=gif", *words).exit_code == 0
    assert {path.name for path in folder.iterdir()} == names | {f"walk_{i}.gif" for i in range(4)}
    (folder / "sample_3.png").write_bytes(b"edited by hand")
    (folder / "sample_9.png").write_bytes(b"put there by hand")
    (folder / "notes.txt").write_text("mine")
    result = invoke("gen", run, "n_samples=2", *words)
    assert result.exit_code == 0
    assert "left alone there, as gen did not write them or they were changed since: sample_3.png" in result.stdout
    kept = {"gen.json", "sample_0.png", "sample_1.png", "sample_3.png", "sample_9.png", "notes.txt"}
    assert {path.name for path in folder.iterdir()} == kept
    assert (folder / "sample_3.png").read_bytes() == b"edited by hand"


@pytest.mark.parametrize("name", ["sample_0.png", "walk_1.gif"])
def test_gen_overwrites_no_picture_that_is_not_its_own(run, invoke, refused, name):
    """Neither one that was retouched since, nor one's own that has such a name; and that is said before the drawing."""
    words, folder = ("n_samples=2", "n_dirs=1", "image_size=null", "walk=gif"), run / "gen"
    assert invoke("gen", run, *words).exit_code == 0
    (folder / name).write_bytes(b"retouched")
    elsewhere = run.parent / "pictures"
    elsewhere.mkdir()
    (elsewhere / name).write_bytes(b"mine")
    for place, extra in ((folder, ()), (elsewhere, (f"output_dir={elsewhere}",))):
        before = {path: path.read_bytes() for path in place.iterdir()}
        assert f"{place / name} would be overwritten" in refused(invoke("gen", run, *words, *extra))
        assert {path: path.read_bytes() for path in place.iterdir()} == before


def test_strengths_follow_the_alpha_that_is_given(run, invoke):
    """The run's own unless overridden, as `score` has it too."""
    assert invoke("gen", run, "n_samples=1", "n_dirs=1", "image_size=null", "model.alpha=[-1,1]").exit_code == 0
    overridden = sha256_of(run / "gen" / "sample_0.png")
    assert invoke("gen", run, "n_samples=1", "n_dirs=1", "image_size=null", "alphas=[-2,-1,1,2]").exit_code == 0
    assert sha256_of(run / "gen" / "sample_0.png") == overridden


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"files_sha256": 3}', '{"files_sha256": {"../best.safetensors": "HASH"}}']
)
def test_a_record_of_drawn_files_is_not_trusted(run, invoke, record):
    (run / "gen").mkdir()
    digest = sha256_of(run / "best.safetensors")
    (run / "gen" / "gen.json").write_text(record.replace("HASH", digest))
    assert invoke("gen", run, "n_samples=1", "n_dirs=1", "image_size=null").exit_code == 0
    assert sha256_of(run / "best.safetensors") == digest


@pytest.mark.parametrize(("image_size", "pixels"), [("null", 16), ("40", 40), ("256", 256)])
def test_image_size(run, invoke, image_size, pixels):
    assert invoke("gen", run, "n_samples=1", "n_dirs=1", "alphas=[1]", f"image_size={image_size}").exit_code == 0
    width, height = size(run / "gen" / "sample_0.png")
    assert pixels <= height <= pixels + 45
    assert 2 * pixels <= width <= 2 * pixels + 90


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_walk(run, invoke, form):
    assert invoke("gen", run, "n_samples=2", "n_dirs=2", f"walk={form}", "image_size=24").exit_code == 0
    for i in range(2):
        with Image.open(run / "gen" / f"walk_{i}.{form}") as image:
            assert image.format == form.upper()
            assert image.is_animated
            assert image.n_frames > 10
            assert image.info.get("loop", 0) == 0
            image.seek(0)
            first = np.asarray(image.convert("RGB")).astype(int)
            image.seek(image.n_frames // 2)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - first).max() > 10


def test_samples_from_a_file(run, invoke, tmp_path):
    z = np.random.RandomState(3).randn(3, 24)
    for name, array in (("f64.npy", z), ("f32.npy", z.astype(np.float32)), ("fortran.npy", np.asfortranarray(z))):
        np.save(tmp_path / name, array)
        result = invoke("gen", run, f"n_samples={tmp_path / name}", "n_dirs=[0]", "alphas=[3]", "image_size=null")
        assert result.exit_code == 0, result.output
        drawn = tiles(run / "gen" / "sample_2.png", 1, 2)
        expected = by_hand(run, torch.from_numpy(z[2].astype(np.float32)), [0], [0.0, 3], False)
        assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1


def test_feed_layers(run, invoke, refused):
    assert invoke("gen", run, "n_samples=1", "n_dirs=1", "feed_layers=[0]").exit_code == 0
    assert "feed_layers must name layers in [0, 1), got [1]" in refused(invoke("gen", run, "feed_layers=[1]"))


@pytest.mark.parametrize(
    "words",
    [
        ("--config-path", "RUN", "--config-name", "config", "checkpoint=RUN/best.safetensors"),
        ("--config-path=RUN", "--config-name=config", "checkpoint=RUN/last.safetensors"),
        ("--config-path", "RUN/.hydra", "--config-name", "config", "checkpoint=RUN/best.safetensors"),
        ("checkpoint=RUN",), ("+checkpoint=RUN/best.safetensors",), ("RUN",), ("RUN/last.safetensors",),
        ("RUN", "checkpoint=last"), ("RUN", "checkpoint=best"), ("--config-path", "RUN", "checkpoint=last"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["gen", "eval"])
def test_forms_of_naming_a_run(run, invoke, command, words):
    extra = ("+n_samples=1", "+n_dirs=1", "+image_size=16") if command == "gen" else ("+eval_iters=1",)
    result = invoke(command, *(word.replace("RUN", str(run)) for word in words), *extra)
    assert result.exit_code == 0, result.output
    assert (run / ("gen/sample_0.png" if command == "gen" else "eval.json")).is_file()


@pytest.mark.parametrize("words", [("eval", "eval_iters=1"), ("gen", "n_samples=1"), ("score", "codes=24")])
def test_a_run_folder_may_be_called_as_an_option(run, invoke, monkeypatch, words):
    """As who trains with output_dir=k=4 may well call it."""
    run.rename(run.parent / "k=4")
    monkeypatch.chdir(run.parent)
    command, *rest = words
    result = invoke(command, "k=4", *rest)
    assert result.exit_code == 0, result.output


def test_eval_table_and_files(run, invoke):
    result = invoke("eval", run, "eval_iters=3")
    assert result.exit_code == 0, result.output
    report = json.loads((run / "eval.json").read_text())
    wanted = {"checkpoint", "loss", "accuracy", "samples", "random_weights", "directions", "similarity"}
    assert set(report) == wanted
    assert report["random_weights"] is False
    assert (report["checkpoint"], report["samples"]) == ("best.safetensors", 12)
    similarity = np.array(report["similarity"])
    assert similarity.shape == (4, 4)
    for row in report["directions"]:
        i = row["direction"]
        others = np.delete(similarity[i], i)
        assert row["consistency"] == pytest.approx(similarity[i, i], abs=1e-3)
        assert row["redundancy"] == pytest.approx(others.max(), abs=1e-3)
        assert similarity[i, row["most_like"]] == pytest.approx(others.max(), abs=1e-3)
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"held-out loss -?\d\.\d{4}, accuracy \d\.\d{3} \(12 codes\)", lines[0])
    table = [line.split() for line in lines[2:6]]
    assert sorted(int(row[0]) for row in table) == [0, 1, 2, 3]
    consistencies = [float(row[1]) for row in table]
    assert consistencies == sorted(consistencies, reverse=True)
    with Image.open(run / "eval.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 5
    before = report
    assert invoke("eval", run, "eval_iters=3").exit_code == 0
    assert json.loads((run / "eval.json").read_text()) == before  # the same held-out codes at each call


def test_eval_elsewhere(run, invoke, tmp_path):
    assert invoke("eval", run, "eval_iters=1", f"output_dir={tmp_path / 'out'}").exit_code == 0
    assert (tmp_path / "out" / "eval.json").is_file()
    assert not (run / "eval.json").exists()


def test_a_moved_run_still_works_and_writes_beside_itself(run, invoke, tmp_path):
    moved = run.rename(tmp_path / "moved elsewhere")
    assert invoke("eval", moved, "eval_iters=1").exit_code == 0
    assert (moved / "eval.json").is_file()


def test_other_weights_are_noticed(run, tmp_path, caplog):
    from safetensors.torch import save_file
    from tiny_generators import dcgan_tensors

    save_file(dcgan_tensors(seed=1), tmp_path / "other.safetensors")
    run_gen(run, [f"generator.weights={tmp_path / 'other.safetensors'}", "n_samples=1", "n_dirs=1"])
    assert "weights are not those" in caplog.text
    save_file(dcgan_tensors(dim=9), tmp_path / "small.safetensors")
    from latentclr.errors import CheckpointError

    with pytest.raises(CheckpointError, match="edits codes of size 24, but dcgan has 9"):
        run_gen(run, [f"generator.weights={tmp_path / 'small.safetensors'}", "n_samples=1", "n_dirs=1"])
