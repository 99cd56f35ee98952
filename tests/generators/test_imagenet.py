"""Class names: the table, WordNet where it is installed, and agreement of the two with each other and the package."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import pytest

from latentclr.errors import GeneratorError
from latentclr.generators import imagenet, wordnet
from latentclr.generators.imagenet import class_names, imagenet_classes, resolve_class, resolve_classes
from latentclr.generators.wordnet import FILES, WordNet

INSTALLED = Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet"))  # the latter is Debian's wordnet-base
# Five synsets, to be written in WordNet's own format, offsets and all.
LINES = {
    "dog": (["@", "animal"], ["~", "basenji", "~", "puppy"]),
    "basenji": (["@", "dog"], []),
    "puppy": (["@", "dog"], []),
    "animal": ([], ["~", "dog"]),
    "bulbul": (["@", "animal"], []),
}


@pytest.fixture
def no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "find_wordnet", lambda: None)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a WordNet of five nouns in which `dog` has two senses."""
    header = "  1 licence\n"
    offsets: dict[str, int] = {}
    for _ in range(2):  # the second time, the offsets are right
        data = header
        for word, (up, down) in LINES.items():
            offsets[word] = len(data)
            pointers = [*zip(up[::2], up[1::2], strict=True), *zip(down[::2], down[1::2], strict=True)]
            fields = " ".join(f"{kind} {offsets.get(to, 0):08d} n 0000" for kind, to in pointers)
            data += f"{offsets[word]:08d} 05 n 01 {word} 0 {len(pointers):03d} {fields} | a gloss | with a bar\n"
    index = header
    for word in sorted(LINES):
        senses = [offsets[word], *([offsets["puppy"]] if word == "dog" else [])]
        index += f"{word} n {len(senses)} 1 @ {len(senses)} 0 {' '.join(f'{o:08d}' for o in senses)}  \n"
    for name, text in zip(FILES, (index, data, "wolves wolf\n"), strict=True):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_table_is_whole() -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert [c.wnid for c in classes] == sorted({c.wnid for c in classes})  # ImageNet numbers them in this order
    assert classes[16].words == ("bulbul",)
    assert classes[207].words == ("golden retriever",)


def test_class_names_resolve_to_themselves() -> None:
    assert [resolve_class(name) for name in class_names()] == list(range(1000))
    assert class_names()[16] == "bulbul"
    assert (class_names()[134], class_names()[517]) == ("crane.n.05", "crane")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bulbul", 16),
        ("husky", 248),
        ("golden retriever", 207),
        ("Golden_Retriever", 207),
        ("robin", 15),
        ("dog", 253),
        (16, 16),
        ("999", 999),
        ("bulbul.n.01", 16),
        ("golden_retriever.n.01", 207),
        ("n01560419", 16),
        ("N01560419", 16),
    ],
)
@pytest.mark.usefixtures("no_wordnet")
def test_offline(value: int | str, expected: int) -> None:
    assert resolve_class(value) == expected


@pytest.mark.usefixtures("no_wordnet")
def test_unknown_names_the_nearest() -> None:
    with pytest.raises(GeneratorError, match=r"no ImageNet class 'golden retreiver'; did you mean 'golden retriever'"):
        resolve_class("golden retreiver")
    with pytest.raises(GeneratorError, match="plurals and other synsets need WordNet: latentclr weights fetch wordnet"):
        resolve_class("dogs")
    for outside in (1000, "-1"):
        with pytest.raises(GeneratorError, match=rf"must be in \[0, 1000\), got {outside}"):
            resolve_class(outside)
    for wrong in ("", " ", True):
        with pytest.raises(GeneratorError, match="expected a name, an id or a synset"):
            resolve_class(wrong)


def test_several() -> None:
    assert resolve_classes(["bulbul", "robin", 16]) == (16, 15)
    assert resolve_classes("bulbul") == (16,)
    with pytest.raises(GeneratorError, match="empty list"):
        resolve_classes([])


def test_reader(small: Path) -> None:
    words = WordNet(small)
    assert [s.name for s in words.synsets("dog")] == ["dog.n.01", "puppy.n.01"]
    assert [s.name for s in words.synsets("Dogs")] == ["dog.n.01", "puppy.n.01"]
    assert [s.name for s in words.neighbours(words.synsets("dog")[0])] == ["animal.n.01", "basenji.n.01", "puppy.n.01"]
    assert words.synsets("cat") == words.synsets("wolves") == []
    assert words.named("basenji.n.01") == words.synsets("basenji")[0]
    assert words.named("dog.n.02") == words.named("puppy.n.01")
    for absent in ("dog.n.03", "dog.n.00", "cat.n.01", "dog", ".n.01", "dog.n.x"):
        assert words.named(absent) is None


def test_reader_of_a_zip(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`latentclr weights fetch wordnet` leaves nltk's zip in the cache; it is found there."""
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "cache" / "wordnet" / "wordnet.zip"
    target.parent.mkdir(parents=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name in FILES:
            archive.write(small / name, f"wordnet/{name}")
    found = wordnet.find_wordnet()
    assert found is not None
    assert [s.name for s in found.synsets("bulbul")] == ["bulbul.n.01"]
    target.write_bytes(b"not a zip")
    with pytest.raises(GeneratorError, match=r"no WordNet 3.0 at .*wordnet.zip"):
        WordNet(target)
    with pytest.raises(GeneratorError, match=r"no WordNet 3\.0 at"):
        WordNet(tmp_path / "cache")


@pytest.fixture(scope="module")
def real() -> WordNet:
    if not (INSTALLED / "data.noun").is_file():
        pytest.skip("needs Debian's wordnet-base")
    return WordNet(INSTALLED)


def test_words_of_the_real_wordnet(real: WordNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "find_wordnet", lambda: real)
    assert resolve_class("dogs") == resolve_class("dog.n.01") == resolve_class("dog")
    assert resolve_class("robins") == resolve_class("robin")
    assert resolve_class("wolves") == resolve_class("wolf")


def test_the_table_is_what_wordnet_says(real: WordNet) -> None:
    for i, c in enumerate(imagenet_classes()):
        synset = real.at(int(c.wnid[1:]))
        assert synset.name == c.synset, i
        assert tuple(word.replace("_", " ") for word in synset.words) == c.words, i
    table = imagenet._words()
    for word, i in table.items():
        assert imagenet._search(real, word) == i, word


def test_the_table_is_what_the_package_says(real: WordNet) -> None:
    """Every noun that is a class is resolved as `one_hot_from_names` does: the first of its senses in IMAGENET."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("pytorch_pretrained_biggan.utils")
    table = imagenet._words()
    for word, i in table.items():
        ids = [utils.IMAGENET[s.offset] for s in real.synsets(word) if s.offset in utils.IMAGENET]
        near = {
            utils.IMAGENET[n.offset]
            for s in real.synsets(word)
            for n in real.neighbours(s)
            if n.offset in utils.IMAGENET
        }
        assert i == ids[0] if ids else i in near, word
    sure = {lemma.replace("_", " ") for i in range(1000) for lemma in imagenet_classes()[i].words}
    assert {word.lower() for word in sure} <= table.keys()
