"""Odd words on the command line end in one line: some hundreds of seeded overrides, and the edges that were found."""

from __future__ import annotations

import random

import pytest

from latentclr.compose import compose_run, compose_train, parse_overrides, plain
from latentclr.config import GROUPS, GenConfig, TrainConfig, option_sections
from latentclr.errors import LatentCLRError

KEYS = sorted({key for lines in option_sections().values() for key, _, _ in lines} | set(GROUPS))
VALUES = (
    "nan", "inf", "-inf", "1e400", "-1", "0", "1.5", "null", "true", "???", "''", "[]", "{}", "[1,[2]]", "[[],{}]",
    "{a: 1}", "{1: {2: [3]}}", "9" * 5000, "-" + "9" * 41, "[" * 300 + "]" * 300, "${k}", "1_000", "0x10", "1e3", "a b",
    "int(nan)", "int(inf)", "float(9e999)", "str([1,2])", "bool(7)", "json_str({a: 1})", "shuffle([1,2])",
    "[nan,inf]", "\\", "'", "a" * 20_000, "\u202e", "\ud800", "@", "~", "k@x", "1000000", "[1e308,1e309]", "[true,1]",
)  # fmt: skip


def words(seed: int, number: int) -> list[str]:
    """Draw overrides of which most are wrong in some way."""
    draw = random.Random(seed)
    prefixes = ("", "", "", "", "+", "++", "~", "x.", "generator.", "hparams.optimizer.", "hparams.scheduler.")
    signs = ("=", "=", "=", "=", "", "==", "@a=")
    return [
        f"{draw.choice(prefixes)}{draw.choice(KEYS)}{draw.choice(signs)}{draw.choice(VALUES)}" for _ in range(number)
    ]


@pytest.mark.slow
def test_no_override_is_a_stack_trace():
    saved = plain(compose_train([]))
    refused = 0
    for seed in range(200):
        chosen = words(seed, 1 + seed % 2)
        for compose in (
            compose_train,
            lambda w: compose_run(saved, w, TrainConfig),
            lambda w: compose_run(saved, w, GenConfig),
        ):
            try:
                compose(chosen)
            except LatentCLRError as error:
                refused += 1
                assert "\n" not in str(error), chosen
                assert len(str(error)) < 1000, chosen
    assert refused > 300


EDGES = (
    "k=nan", "k=inf", "k=" + "9" * 5000, "k=1000000", "feed_layers=[1,[2]]", "feed_layers=[true]", "seed=" + "9" * 4000,
    "hparams.iterations=1e99", "projector.depth=100000000", "hparams.optimizer.lr=nan", "hparams.optimizer.betas=[1]",
    "hparams.batch_size=inf", "model.alpha=" + "9" * 400, "model.alpha=[nan,1]", "loss.temp=nan",
    "generator.weights=/",
    "generator.weights=" + "a" * 5000, "output_dir=" + "a" * 300, "hparams.grad_clip_max_norm=nan", "hparams.chunk=0",
    "hparams.scheduler.milestones=7", "hparams.scheduler.gamma={a: 1}", "device=cuda:99999999999", "device=[]",
)  # fmt: skip


@pytest.mark.parametrize("word", EDGES, ids=lambda word: word[:40])
def test_the_edges_that_were_found(invoke, short, tmp_path, word):
    output = [] if word.startswith("output_dir") else [f"output_dir={tmp_path / 'run'}"]
    result = invoke("train", *short, *output, "projector=nonlinear", "hparams.iterations=1", "save=true", word)
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert len(result.output) < 1000


PATHS = ("a" * 300, "x/" * 3000 + "x", "nul\0byte")


@pytest.mark.parametrize("path", PATHS, ids=["long name", "long path", "NUL"])
@pytest.mark.parametrize(
    "command",
    [
        ("eval", "PATH"), ("gen", "PATH"), ("names", "PATH"), ("import", "PATH", "out"), ("export", "PATH"),
        ("weights", "convert", "PATH", "a.safetensors"), ("doctor", "--repository", "PATH"), ("edit", "--z", "PATH"),
        ("serve", "--repository", "PATH"), ("edit", "--from", "PATH"), ("rollback", "--repository", "PATH"),
        ("eval", "x", "checkpoint=PATH"), ("train", "generator.weights=PATH"), ("train", "checkpoint=PATH"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_paths_that_cannot_be(invoke, command, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*(word.replace("PATH", path) for word in command))
    if command[0] == "doctor" and "\0" not in path:
        assert result.exit_code in (1, 2)  # it reports what it found
    else:
        assert result.exit_code == 2, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


@pytest.mark.parametrize("command", ["serve", "export", "rollback", "doctor"])
@pytest.mark.parametrize("words", [("--repository", ""), ("--repository=",)])
def test_an_empty_path_is_not_the_working_folder(invoke, command, words):
    result = invoke(command, *(["run"] if command == "export" else []), *words)
    assert result.exit_code == 2
    assert "--repository must name a file or folder, got ''" in result.output
    assert parse_overrides([]).items == ()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 3 GiB"), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OverflowError("int too large to convert to float"), "a number is too large"),
    ],
)
def test_what_the_machine_cannot_do_is_one_line(invoke, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("latentclr.commands.train.run_train", fail)
    result = invoke("train")
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert said in result.output


def test_a_bug_stays_a_bug(invoke, monkeypatch):
    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("latentclr.commands.train.run_train", fail)
    assert isinstance(invoke("train").exception, RuntimeError)
