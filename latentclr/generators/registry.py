"""Generators by name.

A family is an entry of the group `latentclr.generators` in a package's metadata; ours stand in pyproject.toml:

    [project.entry-points."latentclr.generators"]
    dcgan = "latentclr.config:DCGANConfig"

The entry is a dataclass derived from `GeneratorConfig` that imports no torch: its fields are the options
`generator.KEY=VALUE`, and its `build()` loads the generator. To know the names nothing is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from latentclr.errors import ConfigError, nearest

if TYPE_CHECKING:
    from latentclr.config import BaseGeneratorConfig
    from latentclr.generators.base import Generator

GROUP = "latentclr.generators"
OURS = "latentclr"  # the distribution whose families need no word of the user's to run
FIRST = "dcgan"  # the default


@functools.cache
def entries() -> Mapping[str, EntryPoint]:
    """Return the entries of all installed packages, the default first, then ours, then others' by name.

    Where two packages have one name, ours is taken.
    """
    found = {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=is_ours)}
    rank = sorted(found, key=lambda name: (name != FIRST, not is_ours(found[name]), name))
    return {name: found[name] for name in rank}


def is_ours(entry: EntryPoint) -> bool:
    """Return whether this package itself brings an entry."""
    return entry.dist is not None and entry.dist.name == OURS


class Families(Mapping[str, Any]):
    """name -> configuration class; iterating gives names and imports nothing, looking up imports the family's."""

    def __iter__(self) -> Iterator[str]:
        return iter(entries())

    def __len__(self) -> int:
        return len(entries())

    def __getitem__(self, name: str) -> type[BaseGeneratorConfig]:
        cls: type[BaseGeneratorConfig] = entries()[name].load()
        return cls

    def __contains__(self, name: object) -> bool:
        return name in entries()

    def ours(self) -> list[type[BaseGeneratorConfig]]:
        """Return the configuration classes of this package's own families."""
        return [self[name] for name, entry in entries().items() if is_ours(entry)]


FAMILIES = Families()


def is_built_in(name: str) -> bool:
    """Return whether a generator's name is one of this package's families, or none that anybody could bring."""
    from latentclr.generators.plugin import is_word

    return not is_word(name) and (name not in FAMILIES or is_ours(entries()[name]))


def generator_class(name: str, word: str | None, *, run: bool = False) -> type[BaseGeneratorConfig]:
    """Return the configuration class of a generator; code of others is imported by the user's word alone.

    Args:
        name: Of a family, or the word under which a plug-in is meant or was recorded.
        word: What the user typed behind `generator=`; None for nothing.
        run: Whether `name` comes out of a run, which makes it no word of the user's.

    Raises:
        ConfigError: There is none of that name (the nearest are given), it is another one than the run's, or a run's
            plug-in is to be used and the user has not named it.
    """
    from latentclr.generators.plugin import plugin_class

    if not is_built_in(name):
        if run and word is None:
            raise ConfigError(
                f"this run's generator is a plug-in, and code runs by your word only: name it again, generator=... (the"
                f" run says {name})"
            )
        if word is not None and is_built_in(word):
            raise ConfigError(f"generator={word}: this run was trained with the plug-in {name}")
        return plugin_class(name if word is None else word)
    if run and word not in (None, name):
        raise ConfigError(f"generator={word}: this run was trained with generator {name}")
    return family(name)


def family(name: str) -> type[BaseGeneratorConfig]:
    """Return the configuration class of a family.

    Raises:
        ConfigError: There is none of that name (the nearest are given).
    """
    if not any(is_ours(entry) for entry in entries().values()):
        raise ConfigError("latentclr's own generators are not registered: install it again, as with pip install -e .")
    if name not in FAMILIES:
        known = f"{', '.join(FAMILIES)} or FILE.py:FUNCTION"
        raise ConfigError(f"generator must be one of {known}, got {name!r}{nearest(name, FAMILIES)}")
    return FAMILIES[name]


def build_generator(config: BaseGeneratorConfig) -> Generator:
    """Load the generator that a configuration describes, frozen, on the CPU.

    Raises:
        GeneratorError: The weights are missing or unusable.
    """
    return config.build()
