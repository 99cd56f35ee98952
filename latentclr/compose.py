"""From words on the command line to a typed configuration, in Hydra's own grammar.

`generator=dcgan model=nonlinear` choose groups, `hparams.batch_size=8` sets a value; a leading `+` is accepted as the
origin's commands have it. Configuration is data: a `_target_` is never imported or called.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentclr.config import GROUPS, BaseGeneratorConfig, HParamsConfig, TrainConfig, check
from latentclr.errors import ConfigError, nearest
from latentclr.files import replacing
from latentclr.generators.registry import FIRST, generator_class, is_built_in
from serving.contract.documents import check_plain

logger = logging.getLogger(__name__)
C = TypeVar("C", bound=TrainConfig)
CONFIG_FILE = Path(".hydra") / "config.yaml"
# The origin's keys that have another name here, two short ones, and those that are not needed: sizes are read from the
# modules.
RENAMED = {
    "hydra.run.dir": "output_dir",
    "generator.device": "device",
    "hparams.optimizer._target_": "hparams.optimizer.name",
    "hparams.scheduler._target_": "hparams.scheduler.name",
    "vectors": "model.vectors",
    "attributes": "model.attributes",
}
# What a run's weights, features or schedule depend on; the rest may change when it is resumed.
FIXED = (
    "k", "generator.name", "generator.feature_layer", "generator.use_w", "model.name", "model.normalize", "model.depth",
    "model.orient", "projector.name", "projector.normalize", "projector.depth", "projector.middle_features",
    "projector.out_features", "hparams.optimizer.name", "hparams.scheduler",
)  # fmt: skip
LONGEST_WORD, LONGEST_SHOWN = 10_000, 200  # of an override, and of one that a message repeats whole
NOT_NEEDED = ("model.size", "projector.in_features")


def compose_train(words: Words) -> TrainConfig:
    """Compose a training configuration, see `compose_new`."""
    return compose_new(words, TrainConfig)


def compose_new(words: Words, schema: type[C]) -> C:
    """Compose a configuration from the defaults, groups and overrides.

    Args:
        words: Overrides such as `k=16`, `model=nonlinear`, `model.alpha=[-3.0,+3.0]`.
        schema: TrainConfig, or a class with further options.

    Raises:
        ConfigError: An override does not parse, names nothing known (the nearest names are given) or has a wrong value.
    """
    overrides = parse_overrides(words).items
    groups = [o for o in overrides if _is_group(o)]
    generator = next((str(o.value()) for o in reversed(groups) if o.key_or_group == "generator"), FIRST)
    groups = [o for o in groups if o.key_or_group != "generator"]
    for o in groups:
        options, wanted = GROUPS[o.key_or_group], str(o.value())
        if wanted not in options:
            raise ConfigError(
                f"{o.key_or_group} must be one of {', '.join(options)}, got {wanted!r}{nearest(wanted, options)}"
            )
    chosen = copy.deepcopy(_composed(tuple(f"{o.key_or_group}={o.value()}" for o in groups)))
    chosen["generator"] = {"name": generator}
    return _typed(chosen, overrides, schema, generator_class(generator, generator))


@functools.lru_cache(maxsize=64)  # a sweep asks for the same few groups many times
def _composed(groups: tuple[str, ...]) -> Any:
    _register()
    try:
        with initialize(version_base="1.3", config_path=None):
            cfg = compose("train", overrides=list(groups))
    except HydraException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    finally:
        GlobalHydra.instance().clear()
    return OmegaConf.to_container(cfg)


def compose_run(saved: dict[str, Any], words: Words, schema: type[C], *, closed: bool = False) -> C:
    """Lay overrides over the saved configuration of a run.

    Args:
        saved: The run's configuration as plain data.
        words: Overrides; a group may be named again (as when a command is repeated to resume) but not changed.
        schema: TrainConfig, or GenConfig with its further options.
        closed: The generator is not going to be built; of a plug-in's options only the feature layer is then read.

    Raises:
        ConfigError: As `compose_train`, or the saved configuration is damaged, or the run's generator is a plug-in and
            no word names it.
    """
    parsed = parse_overrides(words)
    overrides = parsed.items
    for o in overrides:
        if _is_group(o):
            if o.key_or_group == "generator":
                continue
            was = _get(saved, f"{o.key_or_group.replace('/', '.')}.name")
            chosen = GROUPS[o.key_or_group].get(str(o.value()))
            name = chosen["name"] if isinstance(chosen, dict) else getattr(chosen, "name", None)
            if name != was:
                raise ConfigError(f"{o.input_line}: this run was trained with {o.key_or_group} {was}")
    try:
        check_plain(saved)
    except ValueError as error:
        raise ConfigError(f"the saved configuration is damaged: it {error}") from None
    generator = _get(saved, "generator.name")
    if not isinstance(generator, str):
        raise ConfigError(f"the run's generator is {generator!r}, expected a name")
    if closed and not is_built_in(generator):
        kept = {key: value for key, value in saved["generator"].items() if key in ("name", "feature_layer")}
        return _typed({**saved, "generator": kept}, overrides, schema, BaseGeneratorConfig)
    word = parsed.value("generator")
    cls = generator_class(generator, None if word is None else str(word), run=True)
    if not is_built_in(generator):
        saved = {**saved, "generator": _renamed(saved["generator"], cls)}
    return _typed(saved, overrides, schema, cls)


def _renamed(section: Mapping[str, Any], cls: type[BaseGeneratorConfig]) -> dict[str, Any]:
    """Give a plug-in's saved options the name that it has today, or say what it no longer takes."""
    name, known = cls().name, {option.name for option in dataclasses.fields(cls)}
    if unknown := [str(key) for key in section if key not in known]:
        raise ConfigError(f"the run has generator.{unknown[0]}, which {name} does not take")
    return {**section, "name": name}


def check_resumable(saved: TrainConfig, config: TrainConfig, run: Path) -> None:
    """Check that a run can go on under a configuration.

    Raises:
        ConfigError: It changes what cannot be changed any more.
    """
    before, now = plain(saved), plain(config)
    for key in FIXED:
        was, wanted = _get(before, key), _get(now, key)
        if was != wanted:
            raise ConfigError(
                f"{key} is {was} in {run} and cannot be changed to {wanted} on resume: train anew, into another folder"
            )


@dataclasses.dataclass(frozen=True)
class Overrides:
    """The words of a command, parsed once."""

    items: tuple[Override, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """What was given, whatever its value."""
        return frozenset(o.key_or_group for o in self.items)

    def only(self, key: str) -> Overrides:
        """Return those for one key."""
        return Overrides(tuple(o for o in self.items if o.key_or_group == key))

    def value(self, key: str) -> Any:
        """Return the last value that was given for a key; None if there is none."""
        return next((o.value() for o in reversed(self.items) if o.key_or_group == key), None)


Words = Sequence[str] | Overrides


def parse_overrides(words: Words) -> Overrides:
    """Parse overrides in Hydra's grammar; what is parsed already is returned as it is.

    Raises:
        ConfigError: A word is not `key=value`, or asks to delete or sweep.
    """
    if isinstance(words, Overrides):
        return words
    parsed = []
    for word in words:
        override = parse_override(word)
        if override.is_delete():
            raise ConfigError(f"{word!r}: deletions are not supported; give a value")
        if override.is_sweep_override():
            raise ConfigError(f"{word!r}: give one value; several are a sweep: latentclr train --multirun")
        try:
            check_plain([override.key_or_group, override.value()])
        except ValueError as error:  # OmegaConf would look ${oc.env:NAME} up, and save what it finds
            raise ConfigError(f"{_shown(word)} {error}") from None
        if override.key_or_group not in NOT_NEEDED:
            parsed.append(override)
    return Overrides(tuple(parsed))


def parse_override(word: str) -> Override:
    """Parse one word in Hydra's grammar, and give the origin's keys their names of today.

    Raises:
        ConfigError: It is not `key=value`.
    """
    shown = _shown(word)
    if "=" not in word:
        raise ConfigError(f"expected key=value, got {shown}")
    if len(word) > LONGEST_WORD:
        raise ConfigError(f"{shown} must be at most {LONGEST_WORD} characters")
    try:
        override = OverridesParser.create().parse_override(word.lstrip("+"))
        override.value()
    except HydraException as error:
        raise ConfigError(f"{shown} is not a valid override: {str(error).splitlines()[0][:200]}") from None
    except (ValueError, OverflowError, RecursionError, TypeError, AttributeError) as error:  # of numbers and casts
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{shown} is not a valid override: {reason}") from None
    key = override.key_or_group
    override.key_or_group = RENAMED.get(key, key)
    if key.endswith("._target_") and key in RENAMED and isinstance(override.value(), str):
        override._value = str(override.value()).rpartition(".")[2]  # a name to look up, never to import
    return override


def _shown(word: str) -> str:
    return reprlib.repr(word) if len(word) > LONGEST_SHOWN else repr(word)


def plain(config: TrainConfig) -> dict[str, Any]:
    """Return a configuration as plain dicts, lists and scalars."""
    return dataclasses.asdict(config)


def save_config(config: TrainConfig, run: Path) -> None:
    """Write the configuration to `run/.hydra/config.yaml`, where Hydra's users look for it."""
    with replacing(run / CONFIG_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(plain(config), sort_keys=False))


def _is_group(override: Override) -> bool:
    return override.key_or_group in GROUPS and isinstance(override.value(), str)


def _register() -> None:
    store = ConfigStore.instance()
    groups = {group: options for group, options in GROUPS.items() if group != "generator"}
    for group, options in groups.items():
        for name, node in options.items():
            store.store(group=group, name=name, node=node, package=group.replace("/", "."))
    defaults: list[Any] = [{group: next(iter(options))} for group, options in groups.items()]
    store.store(name="train", node={"defaults": ["_self_", *defaults]})


def _typed(values: dict[str, Any], overrides: Sequence[Override], schema: type[C], cls: type[BaseGeneratorConfig]) -> C:
    names = {option.name for option in dataclasses.fields(schema)}
    known = {key: value for key, value in values.items() if key in names}
    # The free-form arguments are empty here: merging must not mix one class's arguments into another's.
    base = schema(generator=cls(), hparams=HParamsConfig(optimizer={}, scheduler={}))
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(base), known)
    except (OmegaConfBaseException, ValueError, OverflowError, TypeError) as error:
        raise ConfigError(f"the saved configuration is damaged: {str(error).splitlines()[0][:200]}") from None
    assert isinstance(cfg, DictConfig)
    for free in ("optimizer", "scheduler"):
        if not cfg.hparams[free]:
            cfg.hparams[free] = getattr(HParamsConfig(), free)
    OmegaConf.set_struct(cfg, True)
    for o in overrides:
        if not _is_group(o):
            _apply(cfg, o)
    missing = [f"generator.{key}" for key in cfg.generator if OmegaConf.is_missing(cfg.generator, key)]
    if missing:
        raise ConfigError(f"generator={cfg.generator.name} needs {missing[0]}=...")
    name = str(values["generator"]["name"])
    if cfg.generator.name != name:
        raise ConfigError(f"generator.name is chosen with generator=NAME, got {cfg.generator.name!r}")
    try:
        config = OmegaConf.to_object(cfg)
    except (OmegaConfBaseException, ValueError, OverflowError, TypeError) as error:
        raise ConfigError(str(error).splitlines()[0][:200]) from None
    assert isinstance(config, schema)
    check(config)
    return config


def _apply(cfg: DictConfig, override: Override) -> None:
    key = override.key_or_group
    parent, _, leaf = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    free = parent in ("hparams.optimizer", "hparams.scheduler")  # arguments of a class that torch names
    # Its keys, because a value that is still missing is not `in` it.
    if not isinstance(section, DictConfig) or (leaf not in list(section.keys()) and not free):
        raise ConfigError(f"unknown option {key!r}{nearest(key, _keys(cfg))}")
    if isinstance(section[leaf] if leaf in section else None, DictConfig):
        if key in GROUPS:
            raise ConfigError(f"{key} must be one of {', '.join(GROUPS[key])}, got {override.value()!r}")
        raise ConfigError(f"{key} is a group of options, not one: set {key}.{next(iter(section[leaf]))}=...")
    try:
        OmegaConf.update(cfg, key, override.value(), force_add=free)
    except (OmegaConfBaseException, ValueError, OverflowError, TypeError) as error:  # int(inf), 5,000 digits
        raise ConfigError(f"{override.input_line}: {str(error).splitlines()[0][:200]}") from None


def _keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    keys = [group for group in GROUPS if "/" in group] if not prefix else []
    for key in map(str, cfg):
        keys.append(f"{prefix}{key}")
        if isinstance(cfg._get_node(key), DictConfig) and cfg[key] is not None:
            keys += _keys(cfg[key], f"{prefix}{key}.")
    return keys


def _get(saved: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        saved = saved.get(part) if isinstance(saved, dict) else None
    return saved
