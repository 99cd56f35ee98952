"""A run of a StyleGAN2 of 16 x 16 pixels, and what a published model says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from safetensors.torch import save_file
from tritonclient.grpc import model_config_pb2 as pb

from latentclr.commands import run_train
from latentclr.generators.stylegan2.layout import random_tensors

K, D, L = 3, 16, 6


def train_small(folder: Path) -> Path:
    """Train for a step; return the run folder."""
    save_file(random_tensors(16, n_mlp=1, dim=D, width=8), folder / "w.safetensors")
    words = ["generator=stylegan2", f"generator.weights={folder / 'w.safetensors'}", "model=global", f"k={K}",
             "hparams.batch_size=2", "hparams.iterations=1", "eval_iters=1", "model.alpha=2", "device=cpu",
             "tensorboard=false", f"output_dir={folder / 'run'}"]  # fmt: skip
    assert run_train(words)
    return folder / "run"


def manifest_of(folder: Path) -> tuple[dict[str, Any], Any]:
    """Return manifest and configuration of a published model."""
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    return json.loads(config.parameters["manifest"].string_value), config
