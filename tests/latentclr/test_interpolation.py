"""No text that comes from a file is interpolated: a configuration cannot read the environment of who opens it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

SECRET = "correct-horse-battery-staple"
PLAIN = "${oc.env:SECRET}"
# `\x24` and `\u0024` are dollar signs to YAML and JSON, and to nobody who looks at the bytes.
ESCAPED = ('"\\x24{oc.env:SECRET}"', '"\\u0024{oc.env:SECRET}"', '"$\\x7boc.env:SECRET}"', f'"{PLAIN}"')


@pytest.fixture
def refused(invoke, monkeypatch, tmp_path):
    """Check that a command refuses in one line that is about interpolation, and that nobody got the secret."""
    monkeypatch.setenv("SECRET", SECRET)

    def check(*words):
        result = invoke(*words)
        assert result.exit_code == 2, result.output
        assert "interpolation" in result.output
        assert SECRET not in result.output
        assert len(result.output.strip().splitlines()) == 1
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path

    return check


@pytest.mark.parametrize("text", [*ESCAPED, f"{{nested: [{ESCAPED[0]}]}}", f"{{{ESCAPED[0]}: 1}}"])
@pytest.mark.parametrize("key", ["output_dir", "class_name", "lr"])
def test_a_run_of_the_origin(refused, golden_folder, tmp_path, text, key):
    run = tmp_path / "origin"
    run.mkdir()
    golden = golden_folder / "nonlinear_depth3"
    (run / "best_model.pt").write_bytes((golden / "best_model.pt").read_bytes())
    config = yaml.safe_load((golden / ".hydra" / "config.yaml").read_text())
    section = {"output_dir": config, "class_name": config["generator"], "lr": config["hparams"]["optimizer"]}[key]
    section[key] = "HERE"
    (run / "config.yaml").write_text(yaml.safe_dump(config).replace("HERE", text))
    out = tmp_path / "out"
    refused("import", run, out)
    assert not out.exists()
    refused("eval", run, "eval_iters=1")
    refused("gen", run)


def change_metadata(path: Path, change) -> None:
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["latentclr"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    change(meta)
    save_file(tensors, path, metadata={"latentclr": json.dumps(meta)})


CHANGES = {
    "output_dir": lambda config: config.update(output_dir=PLAIN),
    "device": lambda config: config.update(device=PLAIN),
    "weights": lambda config: config["generator"].update(weights=PLAIN),
    "argument": lambda config: config["hparams"]["optimizer"].update(name=[{"a": PLAIN}]),
    "key": lambda config: config["hparams"]["optimizer"].update({PLAIN: 1}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_and_a_run_to_resume(refused, run, tmp_path, change):
    change_metadata(run / "best.safetensors", lambda meta: change(meta["config"]))
    refused("eval", run, "eval_iters=1")
    refused("gen", run, "n_samples=1")
    refused("names", run)
    refused("export", run, "--repository", tmp_path / "repository")
    state = torch.load(run / "resume.pt", weights_only=True)
    change(state["config"])
    torch.save(state, run / "resume.pt")
    refused("train", f"checkpoint={run}")
    refused("train", f"checkpoint={run}", f"output_dir={tmp_path / 'elsewhere'}")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("text", ESCAPED)
def test_a_catalog(refused, run, text):
    (run / "catalog.yaml").write_text(f"smile: {{direction: 1, note: {text}}}\n")
    refused("names", run)
    refused("name", run, "old", "--direction", "1")


WORDS = (
    "output_dir='${oc.env:SECRET}/x'", "output_dir=${oc.env:SECRET}", 'output_dir="${oc.env:SECRET}"', "device=${k}",
    "generator.weights='a\\${oc.env:SECRET}'", "hparams.optimizer.lr='${oc.env:SECRET}'", "checkpoint=${oc.env:SECRET}",
    "hparams.optimizer.betas=['${oc.env:SECRET}',{a: '${oc.env:SECRET}'}]", "model.alpha=[1,'${oc.env:SECRET}']",
    "output_dir=str('${oc.env:SECRET}')",
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_the_command_line(refused, run, word):
    refused("train", word)
    refused("eval", run, word)
    refused("gen", run, word, "alphas='${oc.env:SECRET}'")
