"""Runs that are none: checkpoints of ours and of the origin, states to resume from, catalogs, codes, galleries."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from hostile_base import Base, Evil, dumps, spoilt, torch_bytes
from hostile_documents import RAW, YAML_BOMBS, hostile_copy, text_of
from hostile_trial import Trial
from hostile_weights import payloads, tensors, write_safetensors, zipped
from safetensors import safe_open
from safetensors.torch import load_file

EVAL = ("eval", "run", "eval_iters=1", "hparams.batch_size=2")
GEN = ("gen", "run", "n_samples=1", "n_dirs=1", "alphas=[3]")
NAMES = ("names", "run")
NAME = ("name", "run", "grin", "--direction", "1")
EXPORT = ("export", "run", "--repository", "out")
OPENING = (EVAL, GEN, NAMES, NAME, EXPORT)
IMPORT = ("import", "origin", "out")
RESUME = ("train", "checkpoint=run", "hparams.iterations=3")


def metadata_of(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself."""
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()["latentclr"]))


def put_checkpoint(base: Base, folder: Path, text: str | None = None, changed: dict[str, Any] | None = None) -> None:
    """Copy the run; its checkpoint gets other metadata, or other tensors."""
    path = base.put_run(folder) / "best.safetensors"
    text = json.dumps(metadata_of(path)) if text is None else text
    table = {**load_file(path), **(changed or {})}
    write_safetensors(path, table, {"latentclr": text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")})


def of_checkpoints(base: Base) -> Iterator[Trial]:
    """Checkpoints of ours."""
    good = metadata_of(base.run / "best.safetensors")
    texts = {
        "no metadata": "null",
        "nothing": "",
        "deep metadata": RAW["@deep@"],
        "deep tables": RAW["@tables@"],
        "very deep metadata": "[" * 200_000,
        "wide metadata": text_of({**good, "a": "@wide@"}),
        "another format": text_of({**good, "format": 99}),
        "a format of digits": text_of({**good, "format": "@digits@"}),
        "k of digits": text_of({**good, "k": "@digits@"}),
        "k without end": text_of({**good, "k": "@large@"}),
        "k not a number": text_of({**good, "k": float("nan")}),
        "huge k": text_of({**good, "k": 2**40}),
        "huge dim": text_of({**good, "dim": 2**40}),
        "large": text_of({**good, "a": "a" * 5_000_000}),
        "another generator": text_of({**good, "config": {**good["config"], "generator": {"name": "os.system"}}}),
    }
    for section, key, values in (
        ("model", "depth", (10**9, "@digits@", -1, "a", None, [1], 1.5)),
        ("model", "name", ("@env@", "global", "linear", "@deep@", None)),
        ("model", "alpha", (float("nan"), "@digits@", [1, [2]], "@env@")),
        ("projector", "depth", (10**9, -1, None)),
        ("projector", "middle_features", (10**9, -1, "@digits@", "a")),
        ("projector", "out_features", (10**9, 2**62, None)),
        ("generator", "weights", ("@env@", "@escape@", "/dev/zero", "/dev/null", ".", "@nul@", "a" * 5000, 7)),
        ("generator", "name", ("stylegan2", "biggan", "@env@", "@line@")),
        ("generator", "feature_layer", ("@env@", "main.999", "@colour@", 7)),
        ("loss", "temp", (float("nan"), 0, "@digits@")),
        ("hparams", "batch_size", (10**12, "@digits@", -1)),
        ("hparams", "optimizer", ({"name": "os.system"}, {"name": "__class__"}, [], "@deep@", {"lr": "@env@"})),
        ("hparams", "scheduler", ({"name": "LambdaLR", "lr_lambda": "os.system"}, {"name": "@env@"})),
    ):
        for value in values:
            config = {**good["config"], section: {**good["config"][section], key: value}}
            shown = value if len(str(value)) < 40 else f"{str(value)[:40]}..."
            texts[f"{section}.{key} of {shown}"] = text_of({**good, "config": config})
    for key in ("feed_layers", "seed", "device", "eval_iters", "output_dir", "checkpoint", "mixed_precision"):
        for value in ("@env@", "@digits@", "@deep@", [10**12], "cuda:99999999999"):
            texts[f"{key} of {value}"] = text_of({**good, "config": {**good["config"], key: value}})
    for number, (name, text) in enumerate(texts.items()):
        words = OPENING[number % 4]
        yield Trial("checkpoint", name, words, lambda folder, draw, text=text: put_checkpoint(base, folder, text), True)
    for name in ("not a number", "infinite", "whole numbers", "booleans", "no axes", "empty", "float8", "complex", "twenty axes"):  # fmt: skip
        for key in ("directions.weights.0", "projector.net.linear_1.weight"):
            changed = {key: tensors()[name]()}
            yield Trial("checkpoint", f"{key} that is {name}", EVAL,
                        lambda folder, draw, changed=changed: put_checkpoint(base, folder, changed=changed), True)  # fmt: skip

    def pointer(folder: Path, draw: Random) -> None:
        (base.put_run(folder) / "best.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")

    yield from (Trial("checkpoint", "a pointer", words, pointer) for words in OPENING)

    def device(folder: Path, draw: Random) -> None:
        path = base.put_run(folder) / "best.safetensors"
        path.unlink()
        path.symlink_to("/dev/zero")

    yield Trial("checkpoint", "an endless device", EVAL, device, True)  # last.safetensors is read in its place

    def configuration(folder: Path, draw: Random) -> None:
        path = base.put_run(folder) / ".hydra" / "config.yaml"
        path.write_text(YAML_BOMBS["python object"] + YAML_BOMBS["secret"])

    for words in (EVAL, NAMES):  # it is written for people, and read by nobody
        yield Trial("config.yaml", "code in a run's own configuration", words, configuration, True)


def of_origin(base: Base) -> Iterator[Trial]:
    """Runs of the origin's trainer."""
    words = (IMPORT, ("names", "origin"), ("eval", "origin", f"generator.weights={base.folder / 'stylegan2.safetensors'}",
             "eval_iters=1", "hparams.batch_size=2"))  # fmt: skip

    def with_text(text: str) -> Callable[[Path, Random], object]:
        def write(folder: Path, draw: Random) -> None:
            path = base.put_origin(folder) / ".hydra" / "config.yaml"
            path.write_bytes(text.encode("utf-8", "surrogateescape"))

        return write

    good = (base.origin / ".hydra" / "config.yaml").read_text()
    for number, (name, text) in enumerate(YAML_BOMBS.items()):
        yield Trial("config.yaml", name, words[number % 2], with_text(text))
        if not text.startswith(("-", "?", "%", "[", "!!", "&", "\t", "42")) and text.strip():
            yield Trial(
                "config.yaml", f"{name}, after a good one", words[(number + 1) % 2], with_text(good + text), True
            )
    config = base.origin_config
    for dotted in ("model.alpha", "model.depth", "generator.class_name", "generator.truncation", "generator.feature_layer",
                   "loss.temp", "hparams.optimizer.lr", "hparams.optimizer._target_", "generator._target_", "device",
                   "feed_layers", "k"):  # fmt: skip
        for value in ("@env@", "@escape@", "@within@", "@resolver@", "@digits@", "@deep@", float("nan"), [["a"]]):
            *parents, leaf = dotted.split(".")
            changed = json.loads(json.dumps(config))
            section = changed
            for parent in parents:
                section = section[parent]
            section[leaf] = value
            secret = isinstance(value, str) and value in ("@env@", "@escape@", "@within@", "@resolver@")
            yield Trial("config.yaml", f"{dotted} of {value}", IMPORT, with_text(text_of(changed)), not secret)
    for target in ("os.system", "colat.os.system", "subprocess.Popen", "torch.optim.os.system", "torch.optim.Optimizer",
                   "torch.optim.lr_scheduler.LambdaLR", "colat.models.__class__", "colat." + "a." * 10_000 + "b", "", "."):  # fmt: skip
        for section in ("model", "generator"):
            changed = {**config, section: {**config[section], "_target_": target}}
            yield Trial("config.yaml", f"{section}._target_ of {target[:40]}", IMPORT, with_text(text_of(changed)))
        changed = {**config, "hparams": {**config["hparams"], "optimizer": {"_target_": target, "lr": 1}}}
        yield Trial("config.yaml", f"optimizer._target_ of {target[:40]}", IMPORT, with_text(text_of(changed)),
                    target.startswith("torch.optim."))  # fmt: skip

    def with_state(make: Callable[[], bytes]) -> Callable[[Path, Random], object]:
        return lambda folder, draw: (base.put_origin(folder) / "best_model.pt").write_bytes(make())

    state = base.origin_state
    first = next(iter(state["model"]))
    for name, evil in payloads().items():
        yield Trial(
            "origin's .pt", name, IMPORT, with_state(lambda evil=evil: torch_bytes({**state, "optimizer": evil}))
        )
        yield Trial("origin's .pt", f"{name}, bare", ("gen", "origin"), with_state(lambda evil=evil: dumps(evil)))
    for name, make in tensors().items():
        yield Trial("origin's .pt", f"a weight that is {name}", IMPORT,
                    with_state(lambda make=make: torch_bytes({**state, "model": {**state["model"], first: make()}})),
                    name in ("whole numbers", "booleans"))  # fmt: skip
        yield Trial("origin's .pt", f"an iteration that is {name}", IMPORT,
                    with_state(lambda make=make: torch_bytes({**state, "iteration": make()})), True)  # fmt: skip
    odd: dict[str, Any] = {
        "a list": [], "no model": {"projector": {}}, "a model of lists": {"model": [1]}, "an empty model": {"model": {}},
        "numbers as names": {**state, "model": {1: torch.zeros(1)}},
        "a huge network number": {**state, "model": {**state["model"], f"nets.{10**18}.linear_1.weight": torch.zeros(1, 1)}},
        "digits of a network": {**state, "model": {**state["model"], f"nets.{'9' * 5000}.linear_1.weight": torch.zeros(1, 1)}},
        "many networks": {**state, "model": {f"nets.{i}.linear_1.weight": torch.zeros(1, 1) for i in range(5000)}},
        "odd digits": {**state, "model": {**state["model"], "nets.٣.linear_1.weight": torch.zeros(1, 1)}},
        "a long name": {**state, "model": {**state["model"], "a" * 10**6: torch.zeros(1)}},
        "a line in a name": {**state, "model": {**state["model"], "a\nError: b": torch.zeros(1)}},
        "an iteration of digits": {**state, "iteration": 10**4000},
        "a projector of code": {**state, "projector": {"net.linear_1.weight": torch.zeros(2, 2)}},
        "half a surrogate": {**state, "model": {**state["model"], "\ud800": torch.zeros(1)}},
    }  # fmt: skip
    for name, content in odd.items():
        yield Trial("origin's .pt", name, IMPORT, with_state(lambda content=content: torch_bytes(content)),
                    name.startswith("an iteration"))  # fmt: skip

    def no_configuration(folder: Path, draw: Random) -> None:
        (base.put_origin(folder) / ".hydra" / "config.yaml").unlink()

    def linked(folder: Path, draw: Random) -> None:
        path = base.put_origin(folder) / ".hydra" / "config.yaml"
        path.unlink()
        path.symlink_to("/proc/self/environ")

    yield Trial("config.yaml", "none", IMPORT, no_configuration)
    yield Trial("config.yaml", "a link to the environment", IMPORT, linked)


def of_states(base: Base) -> Iterator[Trial]:
    """States to resume from."""
    state = base.resume

    def resumed(make: Callable[[], bytes]) -> Callable[[Path, Random], object]:
        return lambda folder, draw: (base.put_run(folder) / "resume.pt").write_bytes(make())

    for name, evil in payloads().items():
        yield Trial("resume.pt", name, RESUME, resumed(lambda evil=evil: torch_bytes({**state, "scaler": evil})))
    first = next(iter(state["directions"]))
    for name, make in tensors().items():
        yield Trial("resume.pt", f"directions that are {name}", RESUME,
                    resumed(lambda make=make: torch_bytes({**state, "directions": {**state["directions"], first: make()}})),
                    name in ("whole numbers", "booleans", "large", "a parameter"))  # fmt: skip
    for key in state:
        for value in (None, [], {}, -1, "a", 10**4000, float("nan"), {"a": {"b": [1]}}, torch.zeros(3)):
            if key != "threads" and value is not None:
                shown = str(value)[:30]
                yield Trial("resume.pt", f"{key} of {shown}", RESUME,
                            resumed(lambda key=key, value=value: torch_bytes({**state, key: value})), True)  # fmt: skip
    for key, value in (("k", "${oc.env:SECRET}"), ("seed", 10**3000), ("generator", {"name": "${oc.env:SECRET}"})):
        config = {**state["config"], key: value}
        yield Trial("resume.pt", f"a configuration with {key} of {str(value)[:30]}", RESUME,
                    resumed(lambda config=config: torch_bytes({**state, "config": config})))  # fmt: skip
    yield Trial("resume.pt", "nothing", RESUME, resumed(lambda: b""))
    yield Trial("resume.pt", "an optimizer of many groups", RESUME, resumed(lambda: torch_bytes(
        {**state, "optimizer": {"state": {}, "param_groups": [{"params": [i]} for i in range(5000)]}})))  # fmt: skip


def of_catalogs(base: Base) -> Iterator[Trial]:
    """Catalogs of named edits."""

    def put(text: str) -> Callable[[Path, Random], object]:
        def write(folder: Path, draw: Random) -> None:
            (base.put_run(folder) / "catalog.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))

        return write

    harmless = (
        "blank",
        "blank lines",
        "comments",
        "infinite",
        "digits",
        "one key often",
        "a table as key",
        "two documents",
    )
    for number, (name, text) in enumerate(YAML_BOMBS.items()):
        words = (NAMES, NAME, ("names", "run"), (*GEN, "edits=all"))[number % 4]
        yield Trial("catalog.yaml", name, words, put(text), name in harmless or "time" in name or "sexagesimal" in name)
    entry = {"direction": 1, "layers": [0], "alpha": [-6, 6], "note": "a"}
    for key in entry:
        for value in ("@env@", "@escape@", "@digits@", "@deep@", "@large@", float("nan"), -1, "a" * 10_000, [["a"]], {}, "@line@", "@colour@"):  # fmt: skip
            yield Trial("catalog.yaml", f"{key} of {str(value)[:20]}", NAMES, put(text_of({"grin": {**entry, key: value}})), True)  # fmt: skip
    for name in (
        "null",
        "true",
        "1",
        "1.5",
        ".nan",
        "''",
        "'a\\nb'",
        '"\\e[2J"',
        "a" * 5000,
        "[a]",
        "2001-01-01",
        "12:30:00",
    ):
        yield Trial("catalog.yaml", f"the name {name[:20]}", NAMES, put(f"? {name}\n: {{direction: 1}}\n"), True)

    def endless(folder: Path, draw: Random) -> None:
        path = base.put_run(folder) / "catalog.yaml"
        path.unlink()
        path.symlink_to("/dev/zero")

    yield from (Trial("catalog.yaml", "an endless device", words, endless) for words in (NAMES, NAME))


def npy(descr: str, shape: str, data: bytes = b"", order: str = "False", version: bytes = b"\1\0") -> bytes:
    """Return an array's file with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header) + 1)
    return b"\x93NUMPY" + version + size + header + b"\n" + data


def saved(array: Any) -> bytes:
    """Return what numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def of_codes(base: Base) -> Iterator[Trial]:
    """Arrays of codes; D = 24."""
    many = io.BytesIO()
    np.savez(many, a=np.zeros((1, 24)), b=np.array([Evil(os.system, 'echo > "$CANARY"')], dtype=object))
    files: dict[str, bytes] = {
        "nothing": b"",
        "a text": b"0 0 0",
        "a pickle": dumps(Evil(os.system, 'echo > "$CANARY"')),
        "objects": saved(np.array([Evil(os.system, 'echo > "$CANARY"')] * 24, dtype=object)),
        "objects of a huge shape": npy("'|O'", "(1000000000, 24)"),
        "texts": saved(np.array([["a"] * 24])),
        "bytes": saved(np.array([[b"a"] * 24])),
        "dates": saved(np.zeros((1, 24), "datetime64[s]")),
        "spans": saved(np.zeros((1, 24), "timedelta64[s]")),
        "complex": saved(np.zeros((1, 24), complex)),
        "long doubles": saved(np.zeros((1, 24), np.longdouble)),
        "booleans": saved(np.zeros((1, 24), bool)),
        "structures": saved(np.zeros((1, 24), [("a", "f4"), ("b", "O")])),
        "nothing in it": saved(np.zeros((0, 24))),
        "no axes": saved(np.float64(1)),
        "one axis": saved(np.zeros(24)),
        "three axes": saved(np.zeros((1, 1, 24))),
        "another size": saved(np.zeros((1, 23))),
        "not a number": saved(np.full((1, 24), np.nan)),
        "infinite": saved(np.full((1, 24), np.inf)),
        "too large for float32": saved(np.full((1, 24), 1e300)),
        "a huge shape": npy("'<f4'", "(1000000000000, 24)", bytes(96)),
        "a shape beyond 64 bits": npy("'<f4'", f"({2**70}, 24)"),
        "a shape of digits": npy("'<f4'", f"({'9' * 5000}, 24)"),
        "a negative shape": npy("'<f4'", "(-1, 24)", bytes(96)),
        "a shape of floats": npy("'<f4'", "(1.0, 24)", bytes(96)),
        "a shape of truths": npy("'<f4'", "(True, 24)", bytes(96)),
        "many axes": npy("'<f4'", "(" + "1, " * 3000 + ")", bytes(4)),
        "zero times huge": npy("'<f4'", f"(0, {2**60})"),
        "a header that calls": npy("__import__('os').system('touch $CANARY')", "(1, 24)"),
        "a deep header": npy("(" * 3000 + ")" * 3000, "(1, 24)"),
        "a header of minuses": npy("-" * 9000 + "1", "(1, 24)"),
        "a long header": npy("'<f4'" + " " * 60_000, "(1, 24)", bytes(96)),
        "a long header of version 2": npy("'<f4'" + " " * 2_000_000, "(1, 24)", bytes(96), version=b"\2\0"),
        "version 3": npy("'<f4'", "(1, 24)", bytes(96), version=b"\3\0"),
        "version 9": npy("'<f4'", "(1, 24)", bytes(96), version=b"\x09\0"),
        "an unknown type": npy("'<f9'", "(1, 24)", bytes(1000)),
        "a type of a list": npy("[('a', '<f4')]", "(1, 24)", bytes(96)),
        "a type of a huge width": npy("'|S2000000000'", "(1, 24)"),
        "void": npy("'|V2000000000'", "(1, 24)"),
        "an order of digits": npy("'<f4'", "(1, 24)", bytes(96), order="9" * 3000),
        "cut": saved(np.zeros((3, 24)))[:-1],
        "an archive": many.getvalue(),
        "a zip": zipped({"a": b"a"}),
    }  # fmt: skip
    commands: dict[str, tuple[str, ...]] = {
        "gen": ("gen", "run", "n_samples=z.npy", "n_dirs=1", "alphas=[3]"),
        "edit --z": ("edit", "--z", "z.npy", "--edit", "1=2", "--url", "127.0.0.1:1", "--timeout", "0.3"),
        "edit --w": ("edit", "--w", "z.npy", "--edit", "1=2", "--url", "127.0.0.1:1", "--timeout", "0.3"),
    }
    for number, (name, content) in enumerate(files.items()):
        for command in ("gen", ("edit --z", "edit --w")[number % 2]):

            def write(folder: Path, draw: Random, content: bytes = content, command: str = command) -> None:
                if command == "gen":
                    base.put_run(folder)
                (folder / "z.npy").write_bytes(content)

            yield Trial(".npy", name, commands[command], write)
    for name in ("an archive", "objects", "a pickle", "a huge shape"):  # the suffix decides nothing

        def archive(folder: Path, draw: Random, content: bytes = files[name]) -> None:
            base.put_run(folder)
            (folder / "z.npz").write_bytes(content)

        yield Trial(".npz", name, ("gen", "run", "n_samples=z.npz"), archive)
        yield Trial(".npz", name, ("edit", "--z", "z.npz", "--url", "127.0.0.1:1", "--timeout", "0.3"), archive)

    def endless(folder: Path, draw: Random) -> None:
        base.put_run(folder)
        (folder / "z.npy").symlink_to("/dev/zero")

    yield from (Trial(".npy", "an endless device", words, endless) for words in commands.values())


def of_galleries(base: Base) -> Iterator[Trial]:
    """The record of what `gen` drew: it must never make it delete another's file."""
    names = {
        "outside": '{"files_sha256": {"../../precious.txt": "0", "../precious.txt": "0", "precious.txt": "0"}}',
        "nothing": "",
        "deep": RAW["@deep@"],
        "deep tables": RAW["@tables@"],
        "digits": '{"files_sha256": ' + "9" * 5000 + "}",
        "numbers as digests": '{"files_sha256": {"sample_0.png": 1}}',
        "many": text_of({"files_sha256": {f"sample_{i}.png": "0" * 64 for i in range(20_000)}}),
        "a list": '{"files_sha256": []}',
        "half a surrogate": '{"files_sha256": {"sample_\\ud800.png": "0"}}',
        "large": '"' + "a" * 30_000_000 + '"',
        "digits in a name": '{"files_sha256": {"sample_' + "9" * 300 + '.png": "0"}}',
    }
    for name, text in names.items():

        def write(folder: Path, draw: Random, text: str = text) -> None:
            run = base.put_run(folder)
            (run / "gen").mkdir()
            (run / "gen" / "gen.json").write_text(text)

        yield Trial("gen.json", name, GEN, write, True)


def spoilt_runs(base: Base, number: int) -> Trial:
    """One of endlessly many runs with damage."""
    kind = number % 7
    name = f"damage {number}"
    if kind == 0:
        return Trial("checkpoint", name, OPENING[number // 7 % 4], lambda folder, draw: put_checkpoint(
            base, folder, text_of(hostile_copy(draw, metadata_of(base.run / "best.safetensors")))), True)  # fmt: skip
    if kind == 1:

        def broken(folder: Path, draw: Random) -> None:
            path = base.put_run(folder) / "best.safetensors"
            path.write_bytes(spoilt(draw, path.read_bytes()))

        return Trial("checkpoint", name, OPENING[number // 7 % 4], broken, True)
    if kind == 2:

        def config(folder: Path, draw: Random) -> None:
            path = base.put_origin(folder) / ".hydra" / "config.yaml"
            changed = hostile_copy(draw, base.origin_config)
            path.write_text(text_of(changed) if draw.random() < 0.6 else yaml.safe_dump(changed))

        return Trial("config.yaml", name, IMPORT, config, True)
    if kind == 3:

        def state(folder: Path, draw: Random) -> None:
            path = base.put_origin(folder) / "best_model.pt"
            path.write_bytes(spoilt(draw, path.read_bytes()))

        return Trial("origin's .pt", name, IMPORT, state, True)
    if kind == 4:

        def resume(folder: Path, draw: Random) -> None:
            path = base.put_run(folder) / "resume.pt"
            if draw.random() < 0.5:
                path.write_bytes(spoilt(draw, path.read_bytes()))
            else:
                path.write_bytes(torch_bytes({**base.resume, "config": hostile_copy(draw, base.resume["config"])}))

        return Trial("resume.pt", name, RESUME, resume, True)
    if kind == 5:

        def catalog(folder: Path, draw: Random) -> None:
            path = base.put_run(folder) / "catalog.yaml"
            if draw.random() < 0.6:
                entry = {"direction": 1, "layers": [0], "alpha": [-6, 6], "note": "a"}
                path.write_text(text_of(hostile_copy(draw, {"grin": entry, "old": dict(entry)})))
            else:
                path.write_bytes(spoilt(draw, path.read_bytes()))

        return Trial("catalog.yaml", name, (NAMES, NAME)[number // 7 % 2], catalog, True)

    def codes(folder: Path, draw: Random) -> None:
        base.put_run(folder)
        (folder / "z.npy").write_bytes(spoilt(draw, saved(np.zeros((1, 24), np.float32))))

    return Trial(".npy", name, ("gen", "run", "n_samples=z.npy", "n_dirs=1", "alphas=[3]"), codes, True)
