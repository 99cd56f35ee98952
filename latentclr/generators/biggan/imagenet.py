"""ImageNet's 1000 classes by name, id or WordNet synset.

A word means what it means to the `pytorch_pretrained_biggan` package: the first of its noun synsets in WordNet that is
a class; failing that, the first class one step more general or more special, by name. The package asks nltk for this;
here the answer for each of WordNet 3.0's nouns stands in a table, so that the common case needs no installation and
never differs (nltk sorted those neighbours when the package was written; since then their order changes from process to
process). nltk adds what no table can list: plurals and synset names such as `dog.n.01`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from latentclr.errors import GeneratorError, nearest
from latentclr.generators.biggan.wordnet import HINT, find_wordnet, neighbours, noun_synsets

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

CLASSES = 1000


@dataclass(frozen=True)
class ImageNetClass:
    """One class: `wnid` such as n01560419, `synset` such as bulbul.n.01, and WordNet's words for it."""

    wnid: str
    synset: str
    words: tuple[str, ...]


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """Return the 1000 classes in the order of their ids."""
    return tuple(ImageNetClass(wnid, synset, tuple(words)) for wnid, synset, words in _content()["classes"])


@lru_cache(maxsize=1)
def class_names() -> tuple[str, ...]:
    """Return a name for each of the 1000 classes that `resolve_class` maps back to it.

    It is the first such word, and the synset's name where there is none: both 134 and 517 are only ever called crane.
    """
    table = _words()
    return tuple(
        next((word for word in c.words if table[word.lower()] == i), c.synset) for i, c in enumerate(imagenet_classes())
    )


def resolve_classes(values: int | str | Sequence[int | str]) -> tuple[int, ...]:
    """Resolve one class or a list of classes, as `generator.class_name` takes them, in their order.

    Raises:
        GeneratorError: A class is unknown, or the list is empty.
    """
    listed = [values] if isinstance(values, int | str) else list(values)
    if not listed:
        raise GeneratorError("generator.class_name: expected a class or a list of classes, got an empty list")
    return tuple(dict.fromkeys(resolve_class(value) for value in listed))


def resolve_class(value: int | str) -> int:
    """Return the id in [0, 1000) of a class.

    Args:
        value: An id; a word such as `bulbul` or `golden retriever`, spaces or underscores, in any case; a synset such
            as `bulbul.n.01` or its WordNet id `n01560419`.

    Raises:
        GeneratorError: There is no such class; the message names the nearest.
    """
    text = " ".join(str(value).replace("_", " ").lower().split())
    if isinstance(value, bool) or not text:
        raise GeneratorError(f"generator.class_name: expected a name, an id or a synset, got {value!r}")
    if re.fullmatch(r"-?\d+", text):
        if not 0 <= int(text) < CLASSES:
            raise GeneratorError(f"generator.class_name: a class id must be in [0, {CLASSES}), got {text}")
        return int(text)
    for table in (_wnids(), _synsets(), _words()):
        if text in table:
            return table[text]
    wordnet = find_wordnet()
    found = None if wordnet is None else _search(wordnet, text)
    if found is None:
        known = [word.lower() for c in imagenet_classes() for word in c.words]
        more = "" if wordnet else f" (plurals and other synsets need WordNet: {HINT})"
        raise GeneratorError(f"generator.class_name: no ImageNet class {value!r}{nearest(text, known)}{more}")
    return found


def _search(wordnet: WordNetCorpusReader, text: str) -> int | None:
    synsets = noun_synsets(wordnet, text)
    near = (neighbour for synset in synsets for neighbour in neighbours(synset))
    ids = (_wnids().get(_wnid(synset)) for synset in itertools.chain(synsets, near))
    return next((i for i in ids if i is not None), None)


def _wnid(synset: Synset) -> str:
    return f"n{synset.offset():08d}"


@lru_cache(maxsize=1)
def _content() -> dict[str, Any]:
    file = resources.files("latentclr.generators") / "data" / "imagenet_classes.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


@lru_cache(maxsize=1)
def _words() -> dict[str, int]:
    words: dict[str, int] = _content()["words"]  # lower case, with spaces
    return words


@lru_cache(maxsize=1)
def _synsets() -> dict[str, int]:
    return {c.synset.replace("_", " "): i for i, c in enumerate(imagenet_classes())}


@lru_cache(maxsize=1)
def _wnids() -> dict[str, int]:
    return {c.wnid: i for i, c in enumerate(imagenet_classes())}
