"""The names that others use: what they import, what they type. Who takes one away or adds one meets the tables here."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

import serving
from latentclr.catalog import NamedGenConfig
from latentclr.cli import cli
from latentclr.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent

SERVING = """
    AlphaWarning AsyncEditClient AsyncLatestWins EditClient Edited FaceError InvalidEdit Inverted LatestWins Manifest
    ManifestError ModelUnavailable NoEncoder NoPreview PhotoError PhotoWarning Ports RequestFailed RequestTimeout
    ServerStartError ServerUnavailable ServingError Superseded TritonServer refine save_image
""".split()  # `from serving import ...`

# docs/reference/: the Python API beside `serving`.
REFERENCE = """
    export.editor.FusedEditor export.options.TritonOptions export.pipeline.export_run export.repository.rollback
    latentclr.commands.run_eval latentclr.commands.run_gen latentclr.commands.run_train
    latentclr.generators.base.Generator latentclr.generators.base.LatentSpec
    latentclr.method.directions.Directions latentclr.method.loss.contrastive_loss
    latentclr.method.projectors.Projector latentclr.method.step.ContrastiveStep
    latentclr.scores.faces.FaceScorer latentclr.scores.landmarks.measure latentclr.scores.onnx_scorer.OnnxScorer
    latentclr.scores.onnx_spec.read_spec latentclr.scores.pixels.PixelScorer latentclr.scores.scorer.Scored
    latentclr.scores.scorer.Scorer latentclr.scores.scorer.build_scorers latentclr.scores.scorer.find_attributes
    latentclr.training.evaluation.Evaluation latentclr.training.experiment.open_run
    latentclr.training.experiment.trained_generator latentclr.training.trainer.Trainer
    serving.contract.certificate.Certificate serving.contract.certificate.Gate
""".split()

# `latentclr COMMAND`: its arguments in capitals, its options.
COMMANDS = {
    "train": "OVERRIDES --multirun -m",
    "eval": "WORDS --config-path --config-name",
    "gen": "WORDS --config-path --config-name",
    "score": "WORDS",
    "name": "RUN NAME --direction --layers --alpha --reverse --note --move --remove --auto --min-effect --min-purity"
    " --min-agreement",
    "names": "RUN --publish --repository --name --force",
    "import": "ORIGIN_RUN OUT_RUN --names --no-names",
    "weights convert": "SOURCE TARGET",
    "weights fetch": "NAMES",
    "weights list": "",
    "weights path": "NAME",
    "weights verify": "NAMES",
    "invert train": "WORDS",
    "check": "OVERRIDES",
    "export": "WORDS --repository --name --engine --precision --quality --target --max-batch-size --instances"
    " --queue-delay --queue-timeout --cache --no-cache --threads --tensorrt --cuda --opset --latent-input --preview"
    " --preview-precision --output -o --title --with-encoder --config-path --config-name",
    "rollback": "--repository --name --to",
    "serve": "--repository --host --http-port --grpc-port --metrics-port --model --log-file --timeout --poll"
    " --grpc-only --shared-memory --engine --image --print-command",
    "edit": "--seed --direction --alpha --edit --layers --class-id --class-name --z --w --photo --face --align"
    " --refine --keep --paste --from --force -o --output --url --model --timeout",
    "certify": "--url --model --repository --golden --golden-photos --quality --requests --timeout --json",
    "studio": "RUN --url --repository --model --host --port --token --allow-host --catalog --timeout",
    "doctor": "--repository --host",
}

# `latentclr train KEY=VALUE`, and what `gen` knows beside these.
KEYS = """
    auto_cpu_if_no_gpu checkpoint device eval_freq eval_iters feed_layers
    generator.feature_layer generator.name
    hparams.batch_size hparams.chunk hparams.grad_clip_max_norm hparams.iterations hparams.optimizer hparams.scheduler
    k loss.abs loss.name loss.reduce loss.temp mixed_precision model.alpha model.attributes model.depth model.name
    model.normalize model.orient model.samples model.scorers model.vectors
    output_dir projector.depth projector.middle_features projector.name projector.normalize projector.out_features
    save save_freq seed tensorboard train_projector
""".split()
GEN_KEYS = "alphas edits image_size iterative n_dirs n_samples walk".split()


def test_serving() -> None:
    assert sorted(serving.__all__) == sorted(SERVING)
    assert dir(serving) == sorted(SERVING)
    for name in SERVING:
        assert getattr(serving, name).__name__ == name
    everything: dict[str, Any] = {}
    exec("from serving import *", everything)
    assert set(SERVING) <= set(everything)
    with pytest.raises(AttributeError, match="no attribute 'EditCleint'"):
        _ = serving.EditCleint


def test_each_name_can_be_the_first_that_is_imported() -> None:
    """Names are loaded when asked for, so that the order in which others ask must not matter."""
    code = "; ".join(
        f"[sys.modules.pop(m) for m in list(sys.modules) if m.partition('.')[0] == 'serving']; from serving import {n}"
        for n in SERVING
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; {code}; print('torch' in sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_reference_names_what_there_is() -> None:
    told = set()
    for path in (ROOT / "docs" / "reference").glob("*.md"):
        told |= set(re.findall(r"^::: ([\w.]+)$", path.read_text(), re.M))
    assert told == {*REFERENCE, *(f"serving.{name}" for name in SERVING)}
    for name in REFERENCE:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def words_of(command: click.Command) -> list[str]:
    words: list[str] = []
    for parameter in command.params:
        is_option = isinstance(parameter, click.Option)
        words += [*parameter.opts, *parameter.secondary_opts] if is_option else [str(parameter.name).upper()]
    return words


def test_commands_and_their_options() -> None:
    found = {name: set(words_of(command)) for name, command in commands(cli)}
    expected = {name: set(words.split()) for name, words in COMMANDS.items()}
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


def keys_of(schema: Any, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys_of(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_keys_of_a_run() -> None:
    assert sorted(keys_of(TrainConfig)) == sorted(KEYS)
    assert sorted(set(keys_of(NamedGenConfig)) - set(KEYS)) == sorted(GEN_KEYS)


def python_of(path: Path) -> str:
    """The Python of a page, a notebook or a script."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
        return "\n".join(blocks).replace("await ", "")
    if path.suffix == ".ipynb":
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return "\n".join("".join(source) for source in cells)
    return text


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of what is imported of this project."""
    found = []
    for line in re.findall(r"^ *from (?:serving|latentclr|export)\b.* import (?:\([^)]*\)|.+)$", python_of(path), re.M):
        (statement,) = ast.parse(line.strip()).body
        assert isinstance(statement, ast.ImportFrom)
        found += [(str(statement.module), alias.name) for alias in statement.names]
    return found


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.*")])


def test_documents_and_examples_import_what_there_is() -> None:
    found = {(path.name, *entry) for path in PAGES for entry in imported(path)}
    for page, module, name in found:
        assert hasattr(importlib.import_module(module), name), f"{page}: from {module} import {name}"
        # What a reader copies must outlive the next move of a file.
        assert not module.startswith("serving."), f"{page}: from {module} import {name}"
    assert {name for _, module, name in found if module == "serving"} >= {
        "AsyncEditClient", "EditClient", "LatestWins", "Ports", "TritonServer", "save_image",
    }  # fmt: skip
    assert {page for page, _, _ in found} >= {"README.md", "client.md", "serving.md", "faces.py", "edit_faces.ipynb"}
