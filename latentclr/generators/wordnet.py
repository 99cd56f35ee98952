"""A reader of WordNet's noun files: just what it takes to find a word's synsets and their neighbours.

It reads the same files that nltk does (format: wndb(5WN), wordnet.princeton.edu/documentation/wndb5wn), but needs no
nltk, and Debian's `wordnet-base` serves as it is.
"""

from __future__ import annotations

import os
import sys
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from latentclr.errors import GeneratorError
from latentclr.generators.download import weights_named

FILES = ("index.noun", "data.noun", "noun.exc")
LARGEST = 1 << 26  # bytes; the largest file of WordNet 3.0 has 16 MB
# Plural endings of nouns and what they replace: morphy(7WN).
_ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)


@dataclass(frozen=True)
class Synset:
    """A noun synset: its offset in data.noun (which is ImageNet's id), name such as `bulbul.n.01`, and words."""

    offset: int
    name: str
    words: tuple[str, ...]


class WordNet:
    """The nouns of a WordNet 3.0 database, in a folder or a zip file."""

    def __init__(self, path: Path) -> None:
        """Read the files into memory (20 MB).

        Raises:
            GeneratorError: a file is missing or unreadable.
        """
        try:
            index, self._data, exceptions = (_read(path, name) for name in FILES)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise GeneratorError(f"no WordNet 3.0 at {path}: {error}") from None
        lines = (line.partition(" ") for line in index.decode().splitlines() if not line.startswith(" "))  # the licence
        self._index = {lemma: rest for lemma, _, rest in lines}
        self._exceptions: dict[str, list[str]] = {}
        for line in exceptions.decode().splitlines():
            form, *lemmas = line.split()
            self._exceptions[form] = lemmas

    def synsets(self, word: str) -> list[Synset]:
        """Return the noun synsets of a word or of its singular, most frequent sense first, as nltk's `synsets` does."""
        found: dict[int, None] = {}
        for lemma in self._base_forms(word.lower().replace(" ", "_")):
            found.update(dict.fromkeys(self._offsets(lemma)))
        return [self.at(offset) for offset in found]

    def named(self, name: str) -> Synset | None:
        """Return the synset of a name such as `bulbul.n.01`, None if there is none."""
        lemma, _, sense = name.lower().replace(" ", "_").rpartition(".n.")
        offsets = self._offsets(lemma)
        return self.at(offsets[int(sense) - 1]) if sense.isdecimal() and 0 < int(sense) <= len(offsets) else None

    def neighbours(self, synset: Synset) -> list[Synset]:
        """Return hypernyms, then hyponyms, each sorted by name, as nltk 3.4 did."""
        fields = self._fields(synset.offset)
        start = 4 + 2 * int(fields[3], 16)
        pointers = [fields[i : i + 4] for i in range(start + 1, start + 1 + 4 * int(fields[start]), 4)]
        result = []
        for symbol in ("@", "~"):
            offsets = {int(offset) for kind, offset, _, ends in pointers if kind == symbol and ends == "0000"}
            result += sorted((self.at(offset) for offset in offsets), key=lambda s: s.name)
        return result

    def at(self, offset: int) -> Synset:
        """Return the synset at an offset of data.noun."""
        fields = self._fields(offset)
        words = tuple(fields[4 : 4 + 2 * int(fields[3], 16) : 2])
        lemma = words[0].lower()
        return Synset(offset, f"{lemma}.n.{self._offsets(lemma).index(offset) + 1:02d}", words)

    def _fields(self, offset: int) -> list[str]:
        line = self._data[offset : self._data.index(b"\n", offset)].decode()
        return line.split(" | ", 1)[0].split()

    def _offsets(self, lemma: str) -> list[int]:
        fields = self._index.get(lemma, "n 0").split()
        count = int(fields[1])
        return [int(offset) for offset in fields[len(fields) - count :]]

    def _base_forms(self, word: str) -> list[str]:
        if word in self._exceptions:
            return [form for form in (word, *self._exceptions[word]) if self._offsets(form)]
        forms = [word] + [word.removesuffix(end) + to for end, to in _ENDINGS if word.endswith(end)]
        return [form for form in dict.fromkeys(forms) if self._offsets(form)]


def find_wordnet() -> WordNet | None:
    """Return the WordNet that is installed (fetched, nltk's or Debian's), None if there is none."""
    places = [weights_named("wordnet").path]
    if folder := os.environ.get("WNSEARCHDIR"):  # WordNet's own variable
        places.append(Path(folder))
    roots = [Path(root) for root in os.environ.get("NLTK_DATA", "").split(os.pathsep) if root]
    roots += [Path.home() / "nltk_data", Path(sys.prefix) / "nltk_data"]
    roots += [Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")]
    for root in roots:
        places += [root / "corpora" / "wordnet", root / "corpora" / "wordnet.zip"]
    places.append(Path("/usr/share/wordnet"))  # Debian's wordnet-base
    for place in places:
        if place.is_file() or (place / FILES[0]).is_file():
            return _load(place)
    return None


@lru_cache(maxsize=1)
def _load(path: Path) -> WordNet:
    return WordNet(path)


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"wordnet/{name}")
        if member.file_size > LARGEST:
            raise OSError(f"{name} has {member.file_size} bytes, expected at most {LARGEST}")
        return archive.read(member)
