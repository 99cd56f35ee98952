"""Runs of the origin's trainer (github.com/catlab-team/latentclr), opened as if they were ours.

    RUN/best_model.pt (or model.pt, final_model.pt, most_recent.pt)
    RUN/.hydra/config.yaml (or RUN/config.yaml)

`_target_: colat...` in its configuration is looked up in a table and never imported. Depths and widths are read from
the tensors: the authors' published configurations say `depth: 3` where their networks have one layer.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentclr.compose import compose_run, plain
from latentclr.config import TrainConfig
from latentclr.errors import CheckpointError, ConfigError, GeneratorError, nearest
from latentclr.generators.stylegan2.classes import resolution_of
from latentclr.method.directions import Directions
from latentclr.method.projectors import Projector
from latentclr.origin.files import directions_from_origin, projector_from_origin
from latentclr.plain_load import load_plain
from latentclr.training.checkpoint import Checkpoint
from serving.contract.documents import LARGEST, read_yaml

logger = logging.getLogger(__name__)

SUFFIXES = (".pt", ".pth")

# section -> class name in `_target_: colat.<module>.<class>` -> our name
_TARGETS = {
    "model": {"Fixed": "global", "LinearConditional": "linear", "NonlinearConditional": "nonlinear"},
    "loss": {"ContrastiveLoss": "contrastive"},
    "generator": {"BigGANGenerator": "biggan", "StyleGAN2Generator": "stylegan2"},
    "projector": {"IdentityProjector": "identity", "LinearProjector": "linear", "NonlinearProjector": "nonlinear"},
}
# What the origin's constructors take where a configuration says nothing.
_DEFAULTS = {
    "biggan": {"truncation": 0.4, "class_name": "husky", "feature_layer": "generator.layers.0", "resolution": 256},
    "stylegan2": {"truncation": 1.0, "use_w": False, "class_name": "ffhq", "feature_layer": "generator.layers.0"},
}
_TOP = ("k", "feed_layers", "train_projector", "device", "auto_cpu_if_no_gpu", "mixed_precision", "eval_freq",
        "eval_iters", "save", "tensorboard")  # fmt: skip
_BIGGAN_INPUTS = {128: 11, 256: 13, 512: 15}


def load_origin_run(path: Path, run: Path | None = None) -> Checkpoint:
    """Read a checkpoint of the origin's trainer and the configuration beside it.

    Args:
        path: The checkpoint file.
        run: Where the configuration may also lie, as the origin's `--config-path` says.

    Returns:
        The same directions and projector with our configuration, in inference mode.

    Raises:
        CheckpointError: The file or its configuration is missing, damaged, hostile or of something else.
        ConfigError: The configuration asks for what is not known here; the message names it.
    """
    checkpoint, notes = read_origin_run(path, run)
    for note in notes:
        logger.info("%s: %s", path, note)
    return checkpoint


def read_origin_run(path: Path, run: Path | None = None) -> tuple[Checkpoint, list[str]]:
    """As `load_origin_run`; also return what a person should know of the translation, a line for each."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'no memory'}") from None
    state = _tables(data, path)
    config_file = _config_file(path, run)
    translated, notes = translate_config(_read_yaml(config_file), config_file)
    directions, depth = _directions(state["model"], translated, path)
    said = translated["model"].get("depth")
    if translated["model"]["name"] == "nonlinear" and said not in (None, depth):
        notes.append(f"its configuration says depth {said}, its networks have {depth} layer(s): {depth} it is")
    translated["model"]["depth"] = depth if directions.kind == "nonlinear" else 3
    projector, sizes = _projector(state["projector"], translated, path)
    translated["projector"] |= sizes
    k = translated.setdefault("k", directions.k)
    if k != directions.k:
        raise CheckpointError(f"{config_file} says k={k}, but {path} holds {directions.k} directions")
    config = compose_run(translated, [], TrainConfig)
    iteration = state["iteration"] if type(state["iteration"]) is int else 0
    digest = hashlib.sha256(data).hexdigest()
    return Checkpoint(directions, projector, plain(config), _described(config), iteration, None, path, digest), notes


def translate_config(origin: Mapping[str, Any], where: Path) -> tuple[dict[str, Any], list[str]]:
    """Translate the origin's configuration into ours.

    Args:
        origin: The configuration as plain data.
        where: Its file, for messages.

    Returns:
        Our configuration as plain data (checked by `compose_run` later), and lines about what was changed.

    Raises:
        ConfigError: A `_target_` is not in the table, or a section is missing.
    """
    notes: list[str] = []
    ours: dict[str, Any] = {key: origin[key] for key in _TOP if origin.get(key) is not None}
    for name, known in _TARGETS.items():
        section = origin.get(name)
        if section is None and name in ("loss", "projector"):
            section = {"_target_": f"colat.{name}.{next(iter(known))}"}
        ours[name] = {"name": _target(section, name, known, where)}
        assert isinstance(section, dict)
        kept = {
            "model": ("normalize", "alpha", "depth"),
            "loss": ("temp", "abs", "reduce"),
            "projector": ("normalize",),
        }
        ours[name] |= {key: section[key] for key in kept.get(name, ()) if section.get(key) is not None}
        if name == "generator":
            defaults = _DEFAULTS[ours[name]["name"]]
            ours[name] |= {key: section.get(key, default) for key, default in defaults.items()}
    generator = ours["generator"]
    if str(generator.get("resolution", "")).isdecimal():
        generator["resolution"] = int(generator["resolution"])
    layer = str(generator["feature_layer"])
    generator["feature_layer"] = meant = origin_layer(generator["name"], layer)
    if meant != layer:
        notes.append(f"the origin looks for layer names inside one another: {layer} means {meant}, and so here")
    hparams = origin.get("hparams") or {}
    if not isinstance(hparams, dict):
        raise ConfigError(f"{where}: hparams must be a table")
    kept_h = ("batch_size", "iterations", "grad_clip_max_norm")
    ours["hparams"] = {key: hparams[key] for key in kept_h if hparams.get(key) is not None}
    for name in ("optimizer", "scheduler"):
        if hparams.get(name) is not None:
            ours["hparams"][name] = _torch_class(hparams[name], name, where)
    return ours, notes


def origin_layer(generator: str, layer: str) -> str:
    """Return the layer whose output the origin takes for a name, in our exact names.

    It asks whether one name is inside the other in the order of the network, so `convs.10` stops at convs.1; and it
    returns a block's features where `to_rgbs.N` is named. BigGAN's `generator.layers.N.anything` is the block N.
    """
    if generator == "biggan":
        block = re.match(r"generator\.layers\.\d+", layer)
        return block[0] if block else "generator.gen_z" if layer == "embeddings" else layer
    for name in ("conv1", "to_rgb1"):
        if name in layer:
            return name
    for i in range(0, 16, 2):
        for name, meant in ((f"convs.{i}", i), (f"convs.{i + 1}", i + 1), (f"to_rgbs.{i // 2}", i + 1)):
            if name in layer:
                return f"convs.{meant}"
    return layer


def _tables(data: bytes, path: Path) -> dict[str, Any]:
    try:
        state = load_plain(data)
    except ValueError as error:
        raise CheckpointError(f"{path} is not a checkpoint of plain tensors: {error}") from None
    if not isinstance(state, dict) or not isinstance(state.get("model"), Mapping):
        raise CheckpointError(f"{path} is no checkpoint of the origin's trainer: it holds no table `model`")
    tables = {"model": state["model"], "projector": state.get("projector") or {}, "iteration": state.get("iteration")}
    for name in ("model", "projector"):
        table = tables[name]
        if not isinstance(table, Mapping) or not all(isinstance(key, str) for key in table):
            raise CheckpointError(f"{path}: `{name}` is no table of tensors")
        for key, value in table.items():
            if not isinstance(value, Tensor) or value.layout != torch.strided:
                raise CheckpointError(f"{path}: {name}.{key} is no plain tensor")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise CheckpointError(f"{path}: {name}.{key} holds numbers that are not finite")
    return tables


def _config_file(path: Path, run: Path | None) -> Path:
    folders = [folder for folder in (run, path.parent) if folder is not None]
    for folder in folders:
        for file in (folder / ".hydra" / "config.yaml", folder / "config.yaml"):
            if file.is_file():
                return file
    raise CheckpointError(f"{path} needs its configuration beside it: .hydra/config.yaml or config.yaml")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            config = read_yaml(file.read(LARGEST + 1))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must be a table")
    return config


def _target(section: Any, name: str, known: Mapping[str, str], where: Path) -> str:
    target = section.get("_target_") if isinstance(section, dict) else None
    if not isinstance(target, str):
        raise ConfigError(f"{where}: {name} must be a table with a _target_ of the origin, such as colat.{name}s")
    package, _, cls = target.rpartition(".")
    if package.partition(".")[0] != "colat" or cls not in known:
        raise ConfigError(
            f"{where}: {name}._target_ must be one of {', '.join(known)} of colat, got {target!r}{nearest(cls, known)}"
        )
    return known[cls]


def _torch_class(spec: Any, name: str, where: Path) -> dict[str, Any]:
    target = spec.get("_target_") if isinstance(spec, dict) else None
    package, _, cls = str(target).rpartition(".")
    torchs = torch.optim if name == "optimizer" else torch.optim.lr_scheduler
    of_torch = package.startswith("torch.optim") and isinstance(getattr(torchs, cls, None), type)
    of_colat = name == "scheduler" and package == "colat.scheduler" and cls in ("ExponentialDecayLR", "ConstantLR")
    if not of_torch and not of_colat:
        raise ConfigError(f"{where}: hparams.{name}._target_ must be a class of torch.optim, got {target!r}")
    return {"name": cls, **{key: value for key, value in spec.items() if key != "_target_"}}


def _layers_of(state: Mapping[str, Tensor], prefix: str) -> int:
    return sum(bool(re.fullmatch(rf"{re.escape(prefix)}linear_\d+\.weight", name)) for name in state)


def _directions(state: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> tuple[Directions, int]:
    model, depth = config["model"], max(1, _layers_of(state, "nets.0."))
    try:
        return directions_from_origin(state, model["name"], depth, model.get("normalize", True) is not False), depth
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _projector(state: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> tuple[Projector, dict[str, int]]:
    section, depth = config["projector"], max(1, _layers_of(state, "net."))
    kind = section["name"]
    try:
        projector = projector_from_origin(state, kind, depth, section.get("normalize", True) is not False)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if kind == "identity":
        return projector, {}
    out = state[f"net.linear_{depth}.weight"].shape[0]
    if kind == "linear":
        return projector, {"out_features": out}
    return projector, {"depth": depth, "middle_features": state["net.linear_1.weight"].shape[0], "out_features": out}


def _described(config: TrainConfig) -> dict[str, Any]:
    """What the configuration tells of the generator; the origin records nothing of the weights themselves."""
    generator: Any = config.generator
    described: dict[str, Any] = {"name": generator.name, "weights_sha256": None, "random_weights": False, "classes": []}
    if generator.name == "stylegan2":
        try:
            described["resolution"] = resolution_of(generator.class_name)
        except GeneratorError as error:
            raise ConfigError(str(error)) from None
        described["layers"] = 2 * int(math.log2(described["resolution"])) - 2
    else:
        described["resolution"] = generator.resolution
        described["layers"] = _BIGGAN_INPUTS.get(generator.resolution)
    return described
