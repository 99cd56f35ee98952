"""Class names: the table, WordNet where it is installed, and agreement of the two with each other and the package."""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from latentclr.errors import GeneratorError
from latentclr.generators.biggan import imagenet, wordnet
from latentclr.generators.biggan.imagenet import class_names, imagenet_classes, resolve_class, resolve_classes
from latentclr.generators.biggan.wordnet import neighbours, noun_synsets, open_wordnet

WordNetCorpusReader = pytest.importorskip("nltk.corpus.reader.wordnet", reason="pip install nltk").WordNetCorpusReader

INSTALLED = Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet"))  # the latter is Debian's wordnet-base


@pytest.fixture
def no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "find_wordnet", lambda: None)


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
    with pytest.raises(
        GeneratorError, match=r"plurals and other synsets need WordNet: .*latentclr weights fetch wordnet"
    ):
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


@pytest.fixture(scope="module")
def real() -> WordNetCorpusReader:
    if not (INSTALLED / "data.noun").is_file():
        pytest.skip("needs Debian's wordnet-base")
    return open_wordnet(INSTALLED)


def test_without_nltk_the_table_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    assert wordnet.find_wordnet() is None
    assert resolve_class("husky") == 248
    with pytest.raises(GeneratorError, match=r"pip install 'latentclr\[biggan\]'"):
        resolve_class("huskies")


def test_a_zip_in_the_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: object) -> None:
    """`latentclr weights fetch wordnet` leaves nltk's zip there; Debian's files are nltk's, but for `lexnames`."""
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "cache" / "wordnet" / "wordnet.zip"
    target.parent.mkdir(parents=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in INSTALLED.iterdir():
            archive.write(file, f"wordnet/{file.name}")
        archive.writestr("wordnet/lexnames", wordnet._LEXNAMES)
    open_wordnet.cache_clear()
    found = wordnet.find_wordnet()
    assert found is not None
    assert [s.name() for s in noun_synsets(found, "bulbuls")] == ["bulbul.n.01"]
    assert resolve_class("dogs") == 253
    assert not str(found).startswith(str(INSTALLED))


def test_what_is_no_wordnet(tmp_path: Path) -> None:
    (tmp_path / "wordnet.zip").write_bytes(b"not a zip")
    (tmp_path / "data.noun").write_text("nothing of that kind")
    for path in (tmp_path / "wordnet.zip", tmp_path):
        with pytest.raises(GeneratorError, match=r"no WordNet 3\.0 at"):
            open_wordnet(path)


def test_words_of_the_real_wordnet(real: WordNetCorpusReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "find_wordnet", lambda: real)
    assert resolve_class("dogs") == resolve_class("dog.n.01") == resolve_class("dog")
    assert resolve_class("robins") == resolve_class("robin")
    assert resolve_class("wolves") == resolve_class("wolf")
    for absent in ("dog.n.99", "dog.n.00", "catt.n.01", ".n.01", "dog.n.x"):
        with pytest.raises(GeneratorError, match="no ImageNet class"):
            resolve_class(absent)


@pytest.mark.slow
def test_the_table_is_what_wordnet_says(real: WordNetCorpusReader) -> None:
    for i, c in enumerate(imagenet_classes()):
        synset = real.synset_from_pos_and_offset("n", int(c.wnid[1:]))
        assert synset.name() == c.synset.lower(), i
        assert tuple(word.replace("_", " ") for word in synset.lemma_names()) == c.words, i
    table = imagenet._words()
    for word, i in table.items():
        assert imagenet._search(real, word) == i, word


@pytest.mark.slow
def test_the_table_is_what_the_package_says(real: WordNetCorpusReader) -> None:
    """Every noun that is a class is resolved as `one_hot_from_names` does: the first of its senses in IMAGENET."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("pytorch_pretrained_biggan.utils")
    table = imagenet._words()
    for word, i in table.items():
        synsets = noun_synsets(real, word)
        ids = [utils.IMAGENET[s.offset()] for s in synsets if s.offset() in utils.IMAGENET]
        near = {n.offset() for s in synsets for n in neighbours(s)}
        assert i == ids[0] if ids else i in {utils.IMAGENET[o] for o in near if o in utils.IMAGENET}, word
    sure = {lemma.replace("_", " ") for i in range(1000) for lemma in imagenet_classes()[i].words}
    assert {word.lower() for word in sure} <= table.keys()
