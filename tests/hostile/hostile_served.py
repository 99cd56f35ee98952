"""What is served and comes back: PNGs with a recipe, and published repositories."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from hostile_base import MANIFEST, RECIPE, Base, png_bytes, spoilt
from hostile_documents import RAW, hostile_copy, text_of
from hostile_trial import Trial

EDIT = ("edit", "--from", "a.png", "-o", "again.png", "--url", "127.0.0.1:1", "--timeout", "0.3")
ROLLBACK = ("rollback", "--repository", "repository")
DOCTOR = ("doctor", "--repository", "repository")
PUBLISH = ("names", "run", "--publish", "--force", "--repository", "repository")
PRINT = ("serve", "--repository", "repository", "--print-command")
COMMANDS = (ROLLBACK, PUBLISH, PRINT)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """Return a chunk of a PNG."""
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png_of(*chunks: bytes, width: int = 8, height: int = 8, kind: bytes = b"\x08\x02\0\0\0") -> bytes:
    """Return a PNG of these chunks after its header."""
    header = chunk(b"IHDR", struct.pack(">II", width, height) + kind)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def of_pictures(base: Base) -> Iterator[Trial]:
    """Pictures whose recipe or pixels are hostile."""
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8))
    packed = zlib.compress(bytes(1 << 28))
    files: dict[str, Callable[[], bytes]] = {
        "nothing": lambda: b"",
        "a text": lambda: b"picture",
        "no recipe": lambda: png_bytes({}),
        "another's text": lambda: png_bytes({"Comment": "a"}),
        "a packed text of 256 MiB": lambda: png_of(chunk(b"zTXt", b"latentclr\0\0" + packed), pixels),
        "a packed text of 256 MiB, after the pixels": lambda: png_of(pixels, chunk(b"zTXt", b"latentclr\0\0" + packed)),
        "an iTXt of 256 MiB": lambda: png_of(chunk(b"iTXt", b"latentclr\0\1\0\0\0" + packed), pixels),
        "a profile of 256 MiB": lambda: png_of(chunk(b"iCCP", b"latentclr\0\0" + packed), pixels),
        "many packed texts": lambda: png_of(*[chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(bytes(900_000))) for i in range(200)], pixels),
        "a text of 50 MiB": lambda: png_of(chunk(b"tEXt", b"latentclr\0" + b"a" * (50 << 20)), pixels),
        "many texts": lambda: png_of(*[chunk(b"tEXt", b"latentclr\0{}")] * 100_000, pixels),
        "huge sides": lambda: png_of(pixels, width=2**31 - 1, height=2**31 - 1),
        "a bomb of pixels": lambda: png_of(chunk(b"IDAT", zlib.compress(bytes(1 << 27), 9)), width=13_000, height=13_000, kind=b"\x08\0\0\0\0"),
        "a bomb of fewer pixels": lambda: png_of(chunk(b"tEXt", b"latentclr\0{}"), chunk(b"IDAT", zlib.compress((b"\0" + bytes(9000 * 3)) * 9000, 9)), width=9000, height=9000),
        "no sides": lambda: png_of(pixels, width=0, height=0),
        "a depth of nothing": lambda: png_of(pixels, kind=b"\x07\x09\0\0\0"),
        "an interlaced one": lambda: png_of(pixels, kind=b"\x08\x02\0\0\1"),
        "wrong sums": lambda: png_of(chunk(b"IDAT", zlib.compress(bytes(200)), crc=0)),
        "a chunk that lies": lambda: png_of()[:-12] + b"\x7f\xff\xff\xffIDAT",
        "pixels of nothing": lambda: png_of(chunk(b"IDAT", b"")),
        "a movie of many frames": lambda: png_of(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), pixels),
        "a TIFF": lambda: b"II*\0" + bytes(100),
        "a GIF": lambda: b"GIF89a" + b"\xff" * 100,
        "an EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch canary) run\n",
        "a page": lambda: b"<!doctype html>",
    }  # fmt: skip
    for name, make in files.items():
        yield Trial("PNG", name, EDIT, lambda folder, draw, make=make: (folder / "a.png").write_bytes(make()))
    good = RECIPE
    rows = 1024
    texts = {
        "nothing": "",
        "a list": "[]",
        "a number": "1",
        "deep": RAW["@deep@"],
        "very deep": "[" * 200_000 + "]" * 200_000,
        "deep tables": RAW["@tables@"],
        "digits": RAW["@digits@"],
        "another format": text_of({**good, "format": "@digits@"}),
        "a format of lists": text_of({**good, "format": "@deep@"}),
        "thousands of edits": text_of({**good, "direction": [[0] * 20_000], "alpha": [[[1.0, 1.0]] * 20_000], "labels": []}),
        "thousands of edits in many rows": text_of({**good, "direction": [[0] * 60] * rows, "alpha": [[[1.0, 1.0]] * 60] * rows, "labels": ["a"] * rows}),
        "many layers": text_of({**good, "direction": [[0]], "alpha": [[[1.0] * 500_000]], "labels": []}),
        "no rows": text_of({**good, "direction": [], "alpha": [], "labels": []}),
        "too many rows": text_of({**good, "direction": [[0]] * 100_000, "alpha": [[[1.0]]] * 100_000, "labels": ["a"] * 100_000}),
        "ragged": text_of({**good, "direction": [[1], [1, 2]], "alpha": [[[1]], [[1], [2]]]}),
        "deep directions": text_of({**good, "direction": "@deep@"}),
        "directions of texts": text_of({**good, "direction": [["a"], ["b"]]}),
        "directions of tables": text_of({**good, "direction": [[{}], [{}]]}),
        "directions beyond 64 bits": text_of({**good, "direction": [[10**30], [2]]}),
        "alpha without end": text_of({**good, "alpha": [[["@large@", 0]], [[0, 0]]]}),
        "alpha not a number": text_of({**good, "alpha": [[[float("nan"), 0]], [[0, 0]]]}),
        "a seed of digits": text_of({**good, "seed": "@digits@"}),
        "a seed of text": text_of({**good, "seed": "7"}),
        "a seed without end": text_of({**good, "seed": float("inf")}),
        "labels of lists": text_of({**good, "labels": ["@deep@", "a"]}),
        "a label of lists": text_of({**good, "labels": [["a"] * 50_000, "a"]}),
        "a title of lists": text_of({**good, "title": ["a"] * 60_000}),
        "a long title": text_of({**good, "title": "a" * 1_000_000}),
        "a title of colours": text_of({**good, "title": "@colour@"}),
        "half a surrogate": text_of({**good, "title": "@surrogate@", "labels": ["@surrogate@", "@nul@"]}),
        "a model of lists": text_of({**good, "model": {**good["model"], "name": "@deep@"}}),
        "a model of lines": text_of({**good, "model": {**good["model"], "name": "@line@"}}),
        "a model with a path": text_of({**good, "model": {**good["model"], "name": "../../../etc/passwd"}}),
        "a long model": text_of({**good, "model": {**good["model"], "name": "@long@"}}),
        "a model of a secret": text_of({**good, "model": {**good["model"], "name": "@env@"}}),
        "hashes of lists": text_of({**good, "model": {**good["model"], "files_sha256": {"a": [["a"]] * 1000}}}),
        "a million hashes": text_of({**good, "model": {**good["model"], "files_sha256": {str(i): "0" for i in range(200_000)}}}),
        "a huge scale": text_of({**good, "scale": "@digits@"}),
        "a scale of eight": text_of({**good, "scale": 8}),
        "edits of lists": text_of({**good, "edits": "@wide@"}),
        "layers of anything": text_of({**good, "layers": {"a": "@deep@"}}),
        "codes of lists": text_of({**good, "seed": None, "codes_sha256": ["a"]}),
        "classes of digits": text_of({**good, "class_id": ["@digits@", 1]}),
        "classes of texts": text_of({**good, "class_id": ["a", "b"]}),
    }  # fmt: skip
    for name, text in texts.items():
        packed_text = len(text) < 900_000
        yield Trial("PNG", f"a recipe: {name}", EDIT, lambda folder, draw, text=text, small=packed_text: (
            folder / "a.png").write_bytes(png_bytes({"latentclr": text}, compressed=small)))  # fmt: skip

    def endless(folder: Path, draw: Random) -> None:
        (folder / "a.png").symlink_to("/dev/zero")

    yield Trial("PNG", "an endless device", EDIT, endless)


def set_manifest(folder: Path, text: str, model: str = "latent_edit") -> None:
    """Put another manifest into a model's configurations."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    for path in (folder / "repository" / model).rglob("config.pbtxt"):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        config.parameters["manifest"].string_value = text
        path.write_text(text_format.MessageToString(config))


def of_repositories(base: Base) -> Iterator[Trial]:
    """Repositories from somebody else."""

    def put(change: Callable[[Path], object]) -> Callable[[Path, Random], object]:
        def write(folder: Path, draw: Random) -> None:
            base.put_repository(folder)
            base.put_run(folder)
            change(folder)

        return write

    def configuration(text: str) -> Callable[[Path, Random], object]:
        def change(folder: Path) -> None:
            for path in (folder / "repository").rglob("config.pbtxt"):
                path.write_bytes(text.encode("utf-8", "surrogateescape"))

        return put(change)

    good = (base.repository / "latent_edit" / "config.pbtxt").read_text()
    configurations = {
        "nothing": "",
        "a text": "configuration",
        "not UTF-8": "\udcff\udcfe",
        "deep": "parameters { " * 50_000,
        "deep lists": "input [ " * 50_000,
        "deep unknown fields": "a { " * 20_000 + "}" * 20_000,
        "a version of digits": f"version_policy {{ specific {{ versions: [{'9' * 5000}] }} }}",
        "a huge version": good.replace("versions: 2", "versions: 9223372036854775807"),
        "a version below zero": good.replace("versions: 2", "versions: -1"),
        "many versions": good
        + "version_policy { specific { versions: ["
        + ", ".join(map(str, range(3, 50_000)))
        + "] } }",
        "another backend": good.replace("onnxruntime", "python"),
        "a backend with a path": good.replace("onnxruntime", "../../evil"),
        "a name with a path": good.replace('name: "latent_edit"', 'name: "../../precious"'),
        "a long text": 'name: "' + "a" * 20_000_000 + '"',
        "an open text": 'name: "' + "a" * 1000,
        "one field often": 'name: "latent_edit"\n' * 200_000,
        "half a surrogate": 'name: "\\ud800"',
        "bytes": 'name: "\\377\\376"',
    }
    for number, (name, text) in enumerate(configurations.items()):
        for words in (COMMANDS[number % 3], *((DOCTOR,) if number % 3 == 0 else ())):
            yield Trial("config.pbtxt", name, words, configuration(text), True, (2, 1) if words is DOCTOR else (2,))
    manifests = {
        "nothing": "",
        "deep": RAW["@deep@"],
        "very deep": "[" * 200_000,
        "deep tables": RAW["@tables@"],
        "digits": RAW["@digits@"],
        "a list": "[]",
        "edits of digits": text_of({**MANIFEST, "edits": {"a": "@digits@"}}),
        "edits that are a list": text_of({**MANIFEST, "edits": []}),
        "edits of numbers": text_of({**MANIFEST, "edits": {"smile": 7}}),
        "edits of texts": text_of({**MANIFEST, "edits": {"smile": "a"}}),
        "edits without a direction": text_of({**MANIFEST, "edits": {"smile": {}}}),
        "many edits": text_of({**MANIFEST, "edits": {f"e{i}": {"direction": 0} for i in range(50_000)}}),
        "directions that are a list": text_of({**MANIFEST, "directions": [1]}),
        "directions of nothing": text_of({**MANIFEST, "directions": None}),
        "a hash of lists": text_of({**MANIFEST, "directions": {"checkpoint_sha256": ["a"], "count": 3}}),
        "a count of text": text_of({**MANIFEST, "directions": {**MANIFEST["directions"], "count": "a"}}),
        "layers of text": text_of({**MANIFEST, "latent": {**MANIFEST["latent"], "layers": "a"}}),
        "no latent": text_of({**MANIFEST, "latent": None}),
        "a latent of lists": text_of({**MANIFEST, "latent": [["a"]]}),
        "files with paths": text_of({**MANIFEST, "files_sha256": {"../../../precious.txt": "0", "/etc/passwd": "0"}}),
        "files of numbers": text_of({**MANIFEST, "files_sha256": {"model.onnx": 1}}),
        "files that are a list": text_of({**MANIFEST, "files_sha256": ["model.onnx"]}),
        "files that are endless": text_of({**MANIFEST, "files_sha256": {"/dev/zero": "0"}}),
        "half a surrogate": text_of({**MANIFEST, "name": "@surrogate@"}),
        "half a surrogate in an edit": text_of({**MANIFEST, "edits": {"\ud800": {"direction": 1}}}),
        "a secret": text_of({**MANIFEST, "edits": {"smile": {"direction": 1, "note": "@env@"}}}),
        "large": '"' + "a" * 20_000_000 + '"',
    }  # fmt: skip
    for number, (name, text) in enumerate(manifests.items()):
        for words in (
            PUBLISH,
            *((ROLLBACK,) if number % 2 else ()),
            *((DOCTOR,) if "file" in name or number % 5 == 0 else ()),
        ):
            yield Trial("manifest", name, words, put(lambda folder, text=text: set_manifest(folder, text)), True,
                        (2, 1) if words is DOCTOR else (2,))  # fmt: skip
    moves = [["latent_edit/config.pbtxt", "latent_edit/config.pbtxt", "before-0"]]
    journal = {"staging": ".tmp-repository-abcdefgh", "beside": True, "moves": moves}
    journals = {
        "nothing": "",
        "deep": RAW["@deep@"],
        "very deep": "[" * 90_000,
        "deep tables": RAW["@tables@"],
        "digits": RAW["@digits@"],
        "a list": "[]",
        "many moves": text_of({**journal, "moves": moves * 900}),
        "large": '"' + "a" * 30_000_000 + '"',
        "moves of digits": text_of({**journal, "moves": "@digits@"}),
        "moves of tables": text_of({**journal, "moves": [{"a": 1, "b": 2, "c": 3}]}),
        "half a surrogate": text_of({**journal, "moves": [["\ud800", "latent_edit/9", None]]}),
    }
    for name in ("../precious.txt", "/etc/passwd", "latent_edit/../../precious.txt", "..", ".", "", "a\nb", "a" * 5000,
                 "latent_edit/1/../../../precious.txt", "@nul@", "@surrogate@"):  # fmt: skip
        for index, part in enumerate(("source", "target", "before")):
            move = list(moves[0])
            move[index] = name
            journals[f"{part} {name[:30]!r}"] = text_of({**journal, "moves": [move]})
        journals[f"staging {name[:30]!r}"] = text_of({**journal, "staging": name})
        journals[f"staging .tmp-{name[:30]!r}"] = text_of({**journal, "staging": f".tmp-/{name}"})
    for number, (name, text) in enumerate(journals.items()):

        def change(folder: Path, text: str = text) -> None:
            (folder / ".tmp-repository-abcdefgh").mkdir()
            (folder / ".tmp-repository-abcdefgh" / "before-0").write_text("before")
            (folder / "repository" / ".journal.json").write_text(text)

        words = PRINT if number % 3 == 2 else ROLLBACK
        yield Trial(".journal.json", name, words, put(change), True)

    def linked(folder: Path) -> None:
        (folder / "repository" / "latent_edit" / "config.pbtxt").unlink()
        (folder / "repository" / "latent_edit" / "config.pbtxt").symlink_to("/dev/zero")

    def numbered(folder: Path) -> None:
        for name in ("9" * 200, "²", "٣", "007"):
            (folder / "repository" / "latent_edit" / name).mkdir()

    def catalog(folder: Path) -> None:
        (folder / "repository" / ".catalog.yaml").write_text("a: !!python/object/apply:os.system ['touch $CANARY']\n")
        (folder / "repository" / "latent_edit" / ".catalog.yaml").write_text("a: ${oc.env:SECRET}\n")

    for words in (*COMMANDS, DOCTOR):
        codes = (2, 1) if words is DOCTOR else (2,)
        yield Trial("config.pbtxt", "an endless configuration", words, put(linked), words in (PRINT, DOCTOR), codes)
        yield Trial("repository", "odd version numbers", words, put(numbered), True, codes)
        yield Trial("repository", "a catalog of code", words, put(catalog), True, codes)


def spoilt_served(base: Base, number: int) -> Trial:
    """One of endlessly many pictures or repositories with damage."""
    name = f"damage {number}"
    if number % 4 < 2:

        def picture(folder: Path, draw: Random) -> None:
            if number % 4:
                content = png_bytes({"latentclr": text_of(hostile_copy(draw, RECIPE))}, compressed=draw.random() < 0.3)
            else:
                content = spoilt(draw, png_bytes({"latentclr": json.dumps(RECIPE)}))
            (folder / "a.png").write_bytes(content)

        return Trial("PNG", name, EDIT, picture)

    def repository(folder: Path, draw: Random) -> None:
        base.put_repository(folder)
        base.put_run(folder)
        if number % 4 == 2:
            set_manifest(folder, text_of(hostile_copy(draw, MANIFEST)))
        else:
            path = folder / "repository" / "latent_edit" / draw.choice(("config.pbtxt", "1/config.pbtxt"))
            path.write_bytes(spoilt(draw, path.read_bytes()))

    kind = "manifest" if number % 4 == 2 else "config.pbtxt"
    return Trial(kind, name, COMMANDS[number // 4 % 3], repository, True)
