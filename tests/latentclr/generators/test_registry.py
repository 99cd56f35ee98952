"""One path to every generator: the entry points of the group `latentclr.generators`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from latentclr.compose import compose_train
from latentclr.config import FAMILIES, GROUPS, BaseGeneratorConfig, TrainConfig
from latentclr.errors import ConfigError
from latentclr.generators import registry

ROOT = Path(__file__).resolve().parents[3]


def test_our_families_are_entries_like_all_others() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    section = pyproject.partition(f'[project.entry-points."{registry.GROUP}"]\n')[2].partition("\n[")[0]
    declared = dict(re.findall(r'^(\w+) = "(.+)"$', section, re.M))
    assert set(declared) == {name for name, entry in registry.entries().items() if registry.is_ours(entry)}
    for name, cls in zip(FAMILIES, FAMILIES.ours(), strict=False):
        assert issubclass(cls, BaseGeneratorConfig) and cls().name == name
        assert cls.build is not BaseGeneratorConfig.build
        assert type(compose_train([f"generator={name}"]).generator) is cls
    assert next(iter(FAMILIES)) == registry.FIRST == TrainConfig().generator.name
    assert GROUPS["generator"] is FAMILIES


def test_no_second_table_of_names() -> None:
    """A family is one entry and one class: nobody else lists them."""
    for path in (ROOT / "latentclr").rglob("*.py"):
        if "origin" in path.parts or path.name in ("config.py", "registry.py") or "generators" in path.parts:
            continue
        assert not re.search(r"""["'](dcgan|stylegan2)["']""", path.read_text()), path


def test_without_metadata_the_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entries", dict)
    with pytest.raises(ConfigError, match="not registered: install it again"):
        compose_train([])


def test_a_name_is_chosen_as_a_group() -> None:
    with pytest.raises(ConfigError, match=r"generator\.name is chosen with generator=NAME, got 'biggan'"):
        compose_train(["generator.name=biggan"])
