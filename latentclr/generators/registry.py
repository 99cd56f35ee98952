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


def family(name: str) -> type[BaseGeneratorConfig]:
    """Return the configuration class of a family.

    Raises:
        ConfigError: There is none of that name (the nearest are given).
    """
    if not any(is_ours(entry) for entry in entries().values()):
        raise ConfigError("latentclr's own generators are not registered: install it again, as with pip install -e .")
    if name not in FAMILIES:
        raise ConfigError(f"generator must be one of {', '.join(FAMILIES)}, got {name!r}{nearest(name, FAMILIES)}")
    return FAMILIES[name]


def build_generator(config: BaseGeneratorConfig) -> Generator:
    """Load the generator that a configuration describes, frozen, on the CPU.

    Raises:
        GeneratorError: The weights are missing or unusable.
    """
    return config.build()
