"""Kill an operation at each call that changes names on the disk, and look at what the next command finds.

`python tests/export/crash_points.py` prints, as JSON, how many points were tried in each operation and what was wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from export.repository import publish, rollback, served_version
from latentclr.catalog import NamedEdit, read_catalog, write_catalog
from latentclr.compose import compose_train
from latentclr.files import replacing
from latentclr.training.checkpoint import RESUME_FILE, find_checkpoint, load_checkpoint, load_resume, remove_temporary
from latentclr.training.trainer import Trainer
from serving.contract.journal import JOURNAL, leftovers
from serving.contract.published import PublishedModel

CALLS = ("replace", "rename", "link", "fsync", "unlink", "rmdir", "mkdir")
MANIFEST = {
    "generator": {"resolution": 8, "classes": None},
    "latent": {"input": "z", "dim": 6, "layers": 3},
    "parity": {"onnx": {}},
    "files_sha256": {},
}
Snapshot = dict[str, bytes | None]


class NothingChanges(Exception):
    """Ends a change before it changes anything."""


def nothing(entries: object) -> NoReturn:
    """Change nothing."""
    raise NothingChanges


def everything(folder: Path) -> Snapshot:
    """Return all that lies in a folder, but for the files that carry locks."""
    paths = [path for path in folder.rglob("*") if not re.fullmatch(r"\..*lock", path.name)]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def graphs(folder: Path) -> dict[str, Path]:
    """Write what an export would, tiny."""
    folder.mkdir()
    for name in ("model.onnx", "model.pt", "generator.bin"):
        (folder / name).write_bytes(name.encode() * 10)
    return {"onnxruntime": folder / "model.onnx", "pytorch": folder / "model.pt"}


def killed(operation: Callable[[], object], number: int) -> bool:
    """Run an operation in a child that is killed before its n-th call; return False if it has no so many."""
    child = os.fork()
    if not child:
        count = 0
        code = 1
        with contextlib.suppress(BaseException):
            for name in CALLS:
                real = getattr(os, name)

                def call(*arguments, real=real, **options):
                    nonlocal count
                    count += 1
                    if count == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **options)

                setattr(os, name, call)
            operation()
            code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise RuntimeError("the operation failed without being killed")
    return False


def try_all(
    folder: Path,
    prepare: Callable[[Path], object],
    operation: Callable[[Path], object],
    after: Callable[[Path, Snapshot, Snapshot], list[str]],
) -> tuple[int, list[str]]:
    """Kill at every point.

    Args:
        folder: For scratch.
        prepare: Makes the old state in the folder that it gets.
        operation: Brings the new one about.
        after: Gets the folder as the kill left it, the old state and the new, and returns what is wrong.

    Returns:
        Number of points, and what was wrong at which.
    """
    whole = folder / "whole" / "place"
    whole.mkdir(parents=True)
    prepare(whole)
    old = everything(whole)
    operation(whole)
    new, number, faults = everything(whole), 0, []
    while True:
        number += 1
        place = folder / str(number) / "place"
        place.mkdir(parents=True)
        prepare(place)
        if not killed(lambda place=place: operation(place), number):
            return number - 1, faults
        faults += [f"point {number}: {fault}" for fault in after(place, old, new)]
        shutil.rmtree(place.parent)


def of_repository(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Publish (anew, a second version, with shared weights), name edits and roll back."""
    made = graphs(folder / "graphs")

    def version(place: Path) -> None:
        publish(place / "repository", "edit", made, MANIFEST)

    def after(place: Path, old: Snapshot, new: Snapshot) -> list[str]:
        repository, faults = place / "repository", []
        for model in repository.glob("*/"):  # what a server that starts just now would see
            if not (model / str(served_version(model)) / "config.pbtxt").is_file():
                faults.append(f"{model.name} names a version that is not there")
        with contextlib.suppress(Exception):  # a command that changes nothing but has the repository alone
            rollback(repository, "edit", served_version(repository / "edit"))
        if repository.exists() and (repository / "edit").exists() and everything(place) not in (old, new):
            faults.append("neither the old state nor the new")
        publish(repository, "edit", made, MANIFEST)
        if served_version(repository / "edit") != served_version(repository / "edit_torchscript"):
            faults.append("the twins serve different versions after the next export")
        if leftovers(repository) or (repository / JOURNAL).exists() or (repository / ".lock").exists():
            faults.append("something is left after the next export")
        return faults

    def two(place: Path) -> None:
        version(place)
        version(place)

    def name(place: Path) -> None:
        PublishedModel(place / "repository", "edit").update(lambda entries: {**entries, "smile": {"direction": 1}})

    def named(place: Path, old: Snapshot, new: Snapshot) -> list[str]:
        one, twin = (PublishedModel(place / "repository", model).entries() for model in ("edit", "edit_torchscript"))
        faults = [] if {*one, *twin} <= {"smile"} else ["half a name"]
        with contextlib.suppress(NothingChanges):  # the next command
            PublishedModel(place / "repository", "edit").update(nothing)
        if everything(place) not in (old, new):
            faults.append("neither the old names nor the new in both models and their versions")
        name(place)
        return faults if everything(place) == new else [*faults, "the next name is lost, or something is left"]

    return {
        "publish a new model": try_all(folder / "new", lambda place: None, version, after),
        "publish a second version": try_all(folder / "second", version, version, after),
        "name edits of a published model": try_all(folder / "name", two, name, named),
        "roll back": try_all(folder / "back", two, lambda place: rollback(place / "repository", "edit"), after),
    }


def of_files(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Write a catalog, and any file that is written as checkpoints and states of runs are."""
    first, second = {"smile": NamedEdit(1)}, {"smile": NamedEdit(1), "old": NamedEdit(2, (1,), (-3.0, 3.0), "a note")}

    def catalog(place: Path, old: Snapshot, new: Snapshot) -> list[str]:
        faults = [] if read_catalog(place) in (first, second) else ["neither the old catalog nor the new"]
        write_catalog(place, first)
        write_catalog(place, second)
        return faults if everything(place) == new else [*faults, "the next write is lost, or something is left"]

    def save(place: Path, text: str) -> None:
        with replacing(place / "resume.pt") as temporary:
            temporary.write_text(text * 1000)

    def saved(place: Path, old: Snapshot, new: Snapshot) -> list[str]:
        return [] if (place / "resume.pt").read_text() in ("1" * 1000, "2" * 1000) else ["half a file"]

    return {
        "write a catalog": try_all(
            folder / "catalog", lambda at: write_catalog(at, first), lambda at: write_catalog(at, second), catalog
        ),
        "save a state": try_all(folder / "save", lambda at: save(at, "1"), lambda at: save(at, "2"), saved),
    }


def of_training(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Go on with a run: steps, held-out evaluations, and saves of its best and last directions and of its state."""
    import torch
    from safetensors.torch import save_file
    from test_training import ALONE, equal, trainer, without_place
    from tiny_generators import dcgan_tensors

    torch.set_num_threads(1)  # of several, a forked child has only the first
    save_file(dcgan_tensors(), folder / "tiny.safetensors")
    words = [
        f"generator.weights={folder / 'tiny.safetensors'}", "k=3", "hparams.batch_size=2", "hparams.iterations=4",
        "eval_freq=2", "eval_iters=1", "save_freq=2", "device=cpu", "tensorboard=false",
    ]  # fmt: skip
    trainer([*words, "hparams.iterations=2"], folder / "begun")
    straight = trainer(words, folder / "straight").state()

    def resume(place: Path) -> Trainer:
        remove_temporary(place)
        taken_up = Trainer(compose_train(words), place, ALONE)
        taken_up.load_state(load_resume(place / RESUME_FILE))
        taken_up.fit()
        return taken_up

    def after(place: Path, old: Snapshot, new: Snapshot) -> list[str]:
        faults = []
        if load_resume(place / RESUME_FILE)["iteration"] not in (2, 4):
            faults.append("resumes from a state that was never saved")
        for which in ("best", "last"):
            if load_checkpoint(find_checkpoint(place, which)).iteration not in (2, 4):
                faults.append(f"{which} is none that was saved")
        if not equal(without_place(resume(place).state()), without_place(straight)):
            faults.append("goes on otherwise than a run that nobody killed")
        return faults if everything(place).keys() == new.keys() else [*faults, "something is left"]

    begin = lambda place: shutil.copytree(folder / "begun", place, dirs_exist_ok=True)  # noqa: E731
    return {"go on with a run": try_all(folder / "training", begin, resume, after)}


def of_downloads(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Fetch weights and pin their hash, after a connection that broke off."""
    from test_download import CONTENT, DIGEST, Server

    from latentclr.generators.weights.download import Weights, fetch, read_lock

    def get(place: Path) -> Path:
        os.environ.update(LATENTCLR_CACHE=str(place / "cache"), LATENTCLR_LOCK=str(place / "weights.lock"))
        return fetch(weights)

    def begin(place: Path) -> None:
        part = place / "cache" / "thing" / "model.bin.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(CONTENT[:1000])
        part.with_name(f"{part.name}.etag").write_text(server.etag)

    def after(place: Path, old: Snapshot, new: Snapshot) -> list[str]:
        target = place / "cache" / "thing" / "model.bin"
        faults = ["a file that is not whole"] if target.exists() and target.read_bytes() != CONTENT else []
        if get(place).read_bytes() != CONTENT or read_lock()[server.url]["sha256"] != DIGEST:
            faults.append("the next call does not fetch or pin it")
        return faults if everything(place) == new else [*faults, "something is left"]

    with Server() as server:
        weights = Weights("thing", (("model.bin", server.url),), "a thing", "model.bin")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            return {"fetch and pin weights": try_all(folder / "download", begin, get, after)}
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    sys.path += [str(Path(__file__).parents[1] / part) for part in ("", "latentclr/generators", "latentclr/training")]
    with tempfile.TemporaryDirectory() as scratch:
        found: dict[str, tuple[int, list[str]]] = {}
        for part in (of_repository, of_files, of_training, of_downloads):
            found |= part(Path(scratch))
    json.dump({name: {"points": points, "faults": faults} for name, (points, faults) in found.items()}, sys.stdout)
