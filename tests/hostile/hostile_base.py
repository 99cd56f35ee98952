"""The valid files that hostile ones are made from, written once: a trained run, weights of each kind, a repository."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from random import Random
from typing import Any

import nvidia_files
import tiny_editor
import torch
import yaml
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from tiny_generators import dcgan_tensors

from export.repository import publish
from latentclr.catalog import NamedEdit, write_catalog
from latentclr.commands import run_train
from latentclr.commands.invert_train import run_invert_train
from latentclr.generators.stylegan2.layout import random_tensors

DATA = Path(__file__).resolve().parents[1] / "data"
MANIFEST: dict[str, Any] = {
    **tiny_editor.MANIFEST,
    "parity": {"onnx": {}},
    "directions": {**tiny_editor.MANIFEST["directions"], "checkpoint_sha256": "0" * 64},
}
RECIPE: dict[str, Any] = {
    "format": 1,
    "model": {"name": "latent_edit", "files_sha256": {"model.onnx": "0" * 64}, "weights_sha256": "1" * 64,
              "latent_input": "z"},
    "seed": 7, "codes_sha256": None, "edits": {"smile": [-6, 6]}, "layers": [1], "class_id": None,
    "direction": [[2], [2]], "alpha": [[[0.0, -6.0]], [[0.0, 6.0]]], "labels": ["-6", "+6"], "title": "smile",
}  # fmt: skip


class Base:
    """A folder of valid files, and what they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        average = torch.randn(16, generator=torch.Generator().manual_seed(1))
        self.dcgan = dcgan_tensors()
        self.stylegan2 = random_tensors(16, n_mlp=2, dim=16, width=8) | {"latent_avg": average}
        self.weights = folder / "dcgan.safetensors"
        save_file(self.dcgan, self.weights)
        save_file(random_tensors(32, n_mlp=2, dim=16, width=8), folder / "stylegan2.safetensors")
        self.run = folder / "run"
        short = ["k=3", "hparams.batch_size=2", "hparams.iterations=2", "eval_iters=1", "model.alpha=[-3,3]"]
        few = ["model=nonlinear", "model.depth=2", "projector=nonlinear", "projector.middle_features=4"]
        run_train([*short, *few, "projector.out_features=4", "tensorboard=false", "device=cpu",
                   f"generator.weights={self.weights}", f"output_dir={self.run}"])  # fmt: skip
        write_catalog(self.run, {"smile": NamedEdit(1), "old": NamedEdit(2, (0,), (-3.0, 3.0), "a note")})
        for name in ("loss.png", "grid.png", "train.log"):
            (self.run / name).unlink()
        self.encoded = Path(shutil.copytree(self.run, folder / "encoded"))
        run_invert_train([str(self.encoded), "steps=2", "batch=2", "channels=4", "device=cpu"])
        self.origin = DATA / "latentclr_checkpoints" / "nonlinear_depth3"
        self.origin_config = yaml.safe_load((self.origin / ".hydra" / "config.yaml").read_text())
        self.origin_state = torch.load(self.origin / "best_model.pt", weights_only=True)
        self.resume = torch.load(self.run / "resume.pt", weights_only=True)
        self.pickle = nvidia_files.dumps({"G_ema": nvidia_files.generator(self.stylegan2)})
        self.repository = folder / "repository"
        graphs = folder / "graphs"
        graphs.mkdir()
        for name in ("model.onnx", "model.pt"):
            (graphs / name).write_bytes(name.encode() * 10)
        for _ in range(2):
            publish(self.repository, "latent_edit",
                    {"onnxruntime": graphs / "model.onnx", "pytorch": graphs / "model.pt"}, MANIFEST)  # fmt: skip

    def put_run(self, folder: Path) -> Path:
        """Copy the run to where a try is."""
        return Path(shutil.copytree(self.run, folder / "run"))

    def put_encoded(self, folder: Path) -> Path:
        """Copy the run with an encoder to where a try is."""
        return Path(shutil.copytree(self.encoded, folder / "run"))

    def put_origin(self, folder: Path) -> Path:
        """Copy the origin's run."""
        return Path(shutil.copytree(self.origin, folder / "origin"))

    def put_biggan(self, folder: Path) -> Path:
        """Copy the BigGAN folder."""
        (folder / "biggan").mkdir()
        for name in ("config.json", "pytorch_model.bin"):
            shutil.copy(DATA / "biggan_tiny" / name, folder / "biggan")
        return folder / "biggan"

    def put_repository(self, folder: Path) -> Path:
        """Copy the repository of a model with two versions and its twin."""
        return Path(shutil.copytree(self.repository, folder / "repository"))


class Evil:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def torch_bytes(content: Any, legacy: bool = False, **options: Any) -> bytes:
    """Return what torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy, **options)
    return file.getvalue()


def safetensors_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with any header; `length` is what it claims of its header's size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def png_bytes(texts: dict[str, str], compressed: bool = False, size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a picture that carries texts."""
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text, zip=compressed)
    Image.new("RGB", size).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def spoilt(draw: Random, whole: bytes) -> bytes:
    """Return bytes that are cut, flipped, overwritten, doubled or filled with noise."""
    data, how = bytearray(whole), draw.randrange(6)
    if how == 0:
        return bytes(data[: draw.randrange(len(data))])
    if how == 1:
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif how == 2:  # where the structure is
        for _ in range(draw.choice((1, 5))):
            data[draw.randrange(min(300, len(data)))] = draw.randrange(256)
    elif how == 3:
        at = draw.randrange(len(data))
        data[at : at + draw.choice((1, 8, 100))] = draw.choice((b"\xff" * 8, b"\0" * 8, b"", draw.randbytes(50)))
    elif how == 4:
        at, size = draw.randrange(len(data)), draw.randrange(1, 200)
        data[at:at] = data[at : at + size] * draw.choice((1, 10))
    else:
        end = len(data) - draw.randrange(min(300, len(data)))
        data[end:] = draw.randbytes(len(data) - end)
    return bytes(data)


def dumps(content: Any, protocol: int = 2) -> bytes:
    """Pickle."""
    return pickle.dumps(content, protocol)
