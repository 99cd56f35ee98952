"""WordNet by way of nltk, for the class names that no table lists: plurals and names of synsets.

nltk reads its own download (`latentclr weights fetch wordnet` leaves it in the cache) and Debian's `wordnet-base`.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentclr.errors import GeneratorError
from latentclr.generators.weights.download import weights_named

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

NEEDED = "data.noun"
LARGEST = 1 << 26  # bytes of one file; the largest of WordNet 3.0 has 16 MB
HINT = "pip install 'latentclr[biggan]' and latentclr weights fetch wordnet"
_LEXNAMES = "".join(f"{number:02d}\tunknown\t1\n" for number in range(45))


def find_wordnet() -> WordNetCorpusReader | None:
    """Return the WordNet that is installed (fetched, nltk's or Debian's); None without it or without nltk.

    Raises:
        GeneratorError: It is there and cannot be read.
    """
    try:
        import nltk  # noqa: F401
    except ModuleNotFoundError:
        return None
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
        if place.is_file() or (place / NEEDED).is_file():
            return open_wordnet(place)
    return None


@lru_cache(maxsize=1)
def open_wordnet(path: Path) -> WordNetCorpusReader:
    """Open a WordNet 3.0: a folder of its files, or nltk's zip of one (some seconds: nltk reads all parts of speech).

    Raises:
        GeneratorError: A file is missing or unreadable.
    """
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):  # type: ignore[misc]
        def open(self, file: str) -> Any:
            """Open a file; Debian leaves out the names of lexicographers' files, which nothing here asks for."""
            if file == "lexnames" and path.is_dir() and not (path / file).exists():
                return io.StringIO(_LEXNAMES)
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """Map no other WordNet's numbers: that is for other languages, and would read all of another download."""

    folder = path if path.is_dir() else path.parent
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # nltk opens nothing outside these
    try:
        if path.is_file():
            _check_sizes(path)
        root = (
            nltk.data.FileSystemPathPointer(str(path))
            if path.is_dir()
            else nltk.data.ZipFilePathPointer(str(path), "wordnet/")
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other languages are not installed
            return Reader(root, None)
    except Exception as error:  # a damaged archive or line leads zipfile and nltk to almost any error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise GeneratorError(f"no WordNet 3.0 at {path}: {reason}") from None


def _check_sizes(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > LARGEST:
                raise OSError(f"{member.filename} has {member.file_size} bytes, expected at most {LARGEST}")


def noun_synsets(wordnet: WordNetCorpusReader, text: str) -> list[Synset]:
    """Return the noun synsets of a word or its singular, most frequent sense first, or the one named `dog.n.01`."""
    from nltk.corpus.reader.wordnet import WordNetError

    word = text.lower().replace(" ", "_")
    if ".n." not in word:
        return list(wordnet.synsets(word, pos="n"))
    try:
        return [wordnet.synset(word)]
    except (WordNetError, ValueError, IndexError):
        return []


def neighbours(synset: Synset) -> list[Synset]:
    """Return hypernyms, then hyponyms, each sorted by name: nltk 3.4 did so, later ones give them in any order."""
    return [*sorted(synset.hypernyms(), key=_name), *sorted(synset.hyponyms(), key=_name)]


def _name(synset: Synset) -> str:
    return str(synset.name())
