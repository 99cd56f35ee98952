"""Downloads against a local web server that can be made to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from latentclr.commands.weights import weights as weights_command
from latentclr.errors import GeneratorError, LatentCLRError, SaveError
from latentclr.generators.weights import download, transfer
from latentclr.generators.weights.download import Weights, fetch, lock_file, read_lock, verify, weights_named
from latentclr.generators.weights.transfer import Unreachable

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at any path; the attributes say how.

    Attributes:
        content: What is served.
        etag: Its ETag, None for none.
        ranges: Whether Range is understood.
        break_after: The connection closes after that many bytes of the answer, for the first `breaks` requests.
        status: Answer with this instead, if not 200.
        asked: Range header of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.ranges, self.status = CONTENT, '"one"', True, 200
        self.break_after, self.breaks = 0, 0
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers["Range"])
        if server.status != 200:
            self.send_error(server.status)
            return
        start, content = 0, server.content
        if server.ranges and self.headers["Range"] and self.headers["If-Range"] == server.etag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        rest = content[start:]
        if server.breaks > 0:
            server.breaks -= 1
            rest = rest[: server.break_after]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LATENTCLR_LOCK", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def entry(server: Server) -> Weights:
    return Weights("thing", (("model.bin", server.url),), "a thing", "model.bin")


def leftovers(entry: Weights) -> set[str]:
    return {path.name for path in entry.folder.iterdir() if not path.name.endswith(".lock")}


def test_fetch_pins_and_keeps(entry: Weights, server: Server) -> None:
    assert fetch(entry).read_bytes() == CONTENT
    assert leftovers(entry) == {"model.bin"}
    assert read_lock() == {server.url: {"sha256": DIGEST, "size": len(CONTENT)}}
    assert json.loads(lock_file().read_text())["files"][server.url]["sha256"] == DIGEST
    fetch(entry)
    assert len(server.asked) == 1  # nothing goes over the network for a file that is there


def test_interrupted_goes_on_by_itself(entry: Weights, server: Server) -> None:
    server.break_after, server.breaks = 300_000, 2
    assert fetch(entry).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_resumed_by_the_next_call(entry: Weights, server: Server) -> None:
    server.break_after, server.breaks = 200_000, transfer.ATTEMPTS
    with pytest.raises(GeneratorError, match=r"broke off: expected 1048576 bytes, got 800000; 800000 bytes are kept"):
        fetch(entry)
    assert not entry.cached()
    assert not lock_file().exists()
    assert fetch(entry).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=800000-"


def test_truncated_from_the_start(entry: Weights, server: Server) -> None:
    """A server that never gives more than its first bytes is not asked forever, and nothing counts as whole."""
    server.break_after, server.breaks, server.ranges = 1000, 99, False
    with pytest.raises(GeneratorError, match="expected 1048576 bytes, got 1000"):
        fetch(entry)
    assert len(server.asked) == 2
    assert not entry.cached()


def test_without_range_starts_over(entry: Weights, server: Server) -> None:
    server.break_after, server.breaks, server.ranges = 300_000, 1, False
    assert fetch(entry).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_changed_on_the_server_starts_over(entry: Weights, server: Server) -> None:
    server.break_after, server.breaks = 100_000, transfer.ATTEMPTS
    with pytest.raises(GeneratorError, match="kept"):
        fetch(entry)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert fetch(entry).read_bytes() == CONTENT[::-1]


def test_without_validator_starts_over(entry: Weights, server: Server) -> None:
    server.break_after, server.breaks, server.etag = 100_000, 1, None
    assert fetch(entry).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_part_longer_than_the_file_starts_over(entry: Weights, server: Server) -> None:
    entry.folder.mkdir(parents=True)
    (entry.folder / "model.bin.part").write_bytes(CONTENT * 2)
    (entry.folder / "model.bin.part.etag").write_text('"one"')
    assert fetch(entry).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_deleted(entry: Weights, server: Server) -> None:
    lock_file().write_text(json.dumps({"files": {server.url: {"sha256": "0" * 64, "size": 1}}}))
    with pytest.raises(GeneratorError, match=f"wrong checksum: expected SHA-256 {'0' * 64}, got {DIGEST}"):
        fetch(entry)
    assert leftovers(entry) == set()


def test_cached_file_that_is_not_the_pinned_one(entry: Weights) -> None:
    path = fetch(entry)
    path.write_bytes(b"something else")
    for check in (fetch, verify):
        with pytest.raises(GeneratorError, match=f"is not the file that .* pins: expected SHA-256 {DIGEST}"):
            check(entry)


def test_verify_pins_what_is_cached(entry: Weights) -> None:
    with pytest.raises(GeneratorError, match="thing is not in the cache"):
        verify(entry)
    path = fetch(entry)
    lock_file().unlink()
    assert verify(entry) == [(path, DIGEST)]
    assert len(read_lock()) == 1


def test_lock_file_elsewhere(entry: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLR_LOCK", str(tmp_path / "team" / "weights.lock"))
    fetch(entry)
    assert (tmp_path / "team" / "weights.lock").is_file()
    assert not (tmp_path / "latentclr-weights.lock").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": []}', '{"files": {"u": {"sha256": "short", "size": 1}}}', "[" * 9999]
)
def test_damaged_lock_file_is_refused(entry: Weights, server: Server, text: str) -> None:
    lock_file().write_text(text)
    with pytest.raises(GeneratorError, match=r"latentclr-weights\.lock"):
        fetch(entry)
    assert server.asked == []
    assert lock_file().read_text() == text


def test_not_found(entry: Weights, server: Server) -> None:
    server.status = 404
    with pytest.raises(Unreachable, match=r"answered 404 .*offline: download elsewhere and put into .*thing"):
        fetch(entry)


def test_offline(entry: Weights, server: Server) -> None:
    server.server_close()
    server.shutdown()
    with pytest.raises(Unreachable, match=r"cannot be reached: .* \(offline: download elsewhere"):
        fetch(entry)


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="only download over http"):
        transfer.transfer("file:///etc/hostname", tmp_path / "file")


def test_cache_that_cannot_be_written(entry: Weights, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(SaveError, match="could not write"):
        fetch(entry)


def test_registry() -> None:
    assert {"biggan-deep-128", "biggan-deep-256", "biggan-deep-512", "wordnet"} <= download.WEIGHTS.keys()
    for weights in download.WEIGHTS.values():
        assert all(url.startswith("https://") for _, url in weights.files)
    with pytest.raises(GeneratorError, match="no weights named 'biggan-deep-64'; did you mean 'biggan-deep-"):
        weights_named("biggan-deep-64")


def test_commands(entry: Weights, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(download.WEIGHTS, "thing", entry)

    def call(*words: str) -> str:
        result = CliRunner().invoke(weights_command, words)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    assert "nothing is cached" in call("verify")
    with pytest.raises(GeneratorError, match="run `latentclr weights fetch thing`"):
        call("path", "thing")
    assert "not cached" in next(line for line in call("list").splitlines() if line.startswith("thing"))
    assert call("fetch", "thing").strip().endswith(f"thing: {entry.path}")
    assert "cached, pinned" in call("list")
    assert call("path", "thing").strip() == str(entry.path)
    assert call("verify").startswith(f"{DIGEST}  {entry.path}")
    entry.path.write_bytes(b"changed")
    with pytest.raises(LatentCLRError, match="is not the file"):
        call("verify", "thing")
    assert server.asked == [None]


def test_a_web_page_is_not_taken_for_weights(server: Server, tmp_path: Path) -> None:
    server.content = b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>"
    target = tmp_path / "ffhq.pt"
    with pytest.raises(Unreachable, match="sent a web page instead of the file"):
        transfer.transfer(server.url, target)
    assert not list(tmp_path.glob("ffhq*"))


def test_every_stylegan2_class_of_the_origin_can_be_named() -> None:
    for name in ("ffhq", "car", "cat", "church", "horse", "bedrooms", "kitchen", "places"):
        entry = weights_named(f"stylegan2-{name}")
        assert entry.path.name == f"{name}.pt" and "drive.google.com" in entry.files[0][1] and entry.by_hand


def test_by_hand(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file, where to put it and how it is checked, told wherever it is missed; no vain try over the network."""
    entry = Weights("thing", (("thing.pt", server.url),), "a thing", "thing.pt", by_hand=True)
    for name in list(download.WEIGHTS):
        monkeypatch.delitem(download.WEIGHTS, name)
    monkeypatch.setitem(download.WEIGHTS, "thing", entry)
    told = (
        rf"open {re.escape(server.url)} in a browser, save the file as {re.escape(str(entry.path))} and run `.* verify"
    )
    for call in (["fetch", "thing"], ["verify", "thing"], ["path", "thing"]):
        result = CliRunner().invoke(weights_command, call)
        assert isinstance(result.exception, GeneratorError) and re.search(told, str(result.exception)), call
    listed = CliRunner().invoke(weights_command, ["list"])
    assert listed.output.startswith("thing              by hand ") and f"{server.url}  {entry.path}" in listed.output
    assert server.asked == []

    entry.path.write_text("<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    with pytest.raises(GeneratorError, match=r"thing\.pt is a web page, not the file: open http://"):
        verify(entry)
    assert read_lock() == {}
    entry.path.write_bytes(CONTENT)
    assert verify(entry) == [(entry.path, DIGEST)] and fetch(entry) == entry.path
    assert read_lock() == {server.url: {"sha256": DIGEST, "size": len(CONTENT)}}
    assert "by hand" not in CliRunner().invoke(weights_command, ["list"]).output
    entry.path.write_bytes(CONTENT[::-1])
    with pytest.raises(GeneratorError, match="is not the file that"):
        verify(entry)
    assert server.asked == []


def test_no_pin_of_downloads_at_once_is_lost(server: Server) -> None:
    entries = [Weights(f"thing {i}", (("model.bin", f"{server.url}/{i}"),), "a thing", "model.bin") for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(fetch, entries))
    assert sorted(read_lock()) == sorted(url for entry in entries for _, url in entry.files)
    assert not [path for path in Path.cwd().iterdir() if path.name.startswith(".")]
