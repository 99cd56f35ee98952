"""Who may talk to the studio: every rule is tried over a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http import cookies
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.client.address import is_loopback
from serving.studio import security, tries
from serving.studio.security import COOKIE, HEADERS, LARGEST_BODY, Policy

TOKEN = "correct horse battery staple"
FRAME = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def lone(open_studio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio without a model server: security comes before it."""
    with open_studio("127.0.0.1:9", tmp_path_factory.mktemp("lone") / "catalog.yaml") as running:
        yield running


@pytest.fixture(scope="module")
def locked_once(open_studio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    catalog = tmp_path_factory.mktemp("locked") / "catalog.yaml"
    with open_studio("127.0.0.1:9", catalog, policy=Policy(token=TOKEN)) as running:
        yield running


@pytest.fixture
def locked(locked_once: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same with a token, to which nobody is signed in."""
    monkeypatch.setattr(tries, "MOST", 1000)
    locked_once.http.cookies.clear()
    return locked_once


def code_of(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    return str(response.json()["error"]["code"])


def talk(url: str, request: bytes) -> bytes:
    """Send raw bytes and read the answer to its end."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80), timeout=5) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/api/health", "/static/app.js", "/nothing", "/api/x"])
def test_every_answer_has_the_headers(lone: Any, path: str) -> None:
    response = lone.http.get(path)
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    assert "server" not in response.headers
    assert response.headers["cache-control"] == ("no-store" if path[1:4] in ("api", "ope", "not") else "no-cache")


def test_the_policy_is_strict() -> None:
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert not {"unsafe", "data:", "*", "http"} & set(policy.replace("'", " ").replace("-", " ").split())


def test_the_pages_name_no_other_host_and_hold_no_inline_code() -> None:
    folder = Path(security.__file__).with_name("static")
    for file in folder.iterdir():
        text = file.read_text()
        links = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in links and "https://" not in links, file.name
        if file.suffix == ".html":
            assert "style=" not in text and "<style" not in text and " on" + "click=" not in text
            assert text.count("<script ") == text.count("<script") == text.count(' src="/static/') - text.count("<img")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "192.168.1.2", "",
     "[::2]", "localhost/x", "localhost:x", "[", "127.0.0.1 evil", "localhost#", "10.0.0.1:80"],
)  # fmt: skip
def test_a_foreign_host_header_is_refused(lone: Any, host: str) -> None:
    for path in ("/", "/api/health", "/static/app.js"):
        response = lone.http.get(path, headers={"host": host})
        assert (response.status_code, code_of(response)) == (400, "host")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:9999", "[::1]:8080", "LOCALHOST"])
def test_this_machine_has_several_names(lone: Any, host: str) -> None:
    assert lone.http.get("/api/health", headers={"host": host}).status_code == 200


def test_a_second_host_header_does_not_help(lone: Any) -> None:
    request = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert talk(lone.url, request).startswith(b"HTTP/1.1 400")


def test_on_the_network_addresses_and_named_hosts_are_known() -> None:
    policy = Policy("0.0.0.0", TOKEN, ["Studio.example"])
    assert policy.open
    assert all(policy.knows_host(host) for host in ("10.0.0.1:80", "studio.example", "[fe80::1]:8080", "localhost"))
    assert not policy.knows_host("evil.example")
    assert Policy("box.example", TOKEN).knows_host("box.example:8080")


@pytest.mark.parametrize(
    ("host", "closed"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("", False), ("10.0.0.1", False), ("localhost.evil", False)],
)  # fmt: skip
def test_what_loopback_is(host: str, closed: bool) -> None:
    assert is_loopback(host) is closed


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[", "", "file://"])
def test_another_origin_may_not_write(lone: Any, origin: str) -> None:
    for method, path in (("POST", "/api/image"), ("PUT", "/api/catalog/x"), ("DELETE", "/api/catalog/x")):
        response = lone.http.request(method, path, headers={**FRAME, "origin": origin}, content=b"{}")
        assert (response.status_code, code_of(response)) == (403, "origin")


def test_a_cross_site_form_may_not_write(lone: Any) -> None:
    headers = {**FRAME, "sec-fetch-site": "cross-site"}
    assert lone.http.post("/api/image", headers=headers, content=b"{}").status_code == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = lone.http.post("/api/image", headers={"content-type": kind}, content=b'{"seed": 1}')
        assert (response.status_code, code_of(response)) == (415, "content_type")
    same = {**FRAME, "origin": lone.url, "sec-fetch-site": "same-origin"}
    assert lone.http.post("/api/image", headers=same, content=b"{}").status_code == 422


def test_no_answer_allows_another_origin(lone: Any) -> None:
    response = lone.http.options("/api/image", headers={"access-control-request-method": "POST"})
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_large_body_is_refused_by_its_length_and_by_its_bytes(lone: Any) -> None:
    response = lone.http.post("/api/image", headers=FRAME, content=b" " * (LARGEST_BODY + 1))
    assert (response.status_code, code_of(response)) == (413, "too_large")

    def pieces() -> Iterator[bytes]:  # chunked, without a length
        for _ in range(20):
            yield b" " * 8192

    try:
        response = lone.http.post("/api/image", headers=FRAME, content=pieces())
        assert (response.status_code, code_of(response)) == (413, "too_large")
    except httpx.WriteError:
        pass  # refused while it was still being sent
    assert lone.http.post("/api/image", headers=FRAME, content=b" " * LARGEST_BODY).status_code == 422
    lie = {**FRAME, "content-length": "-1"}
    assert talk(lone.url, _raw("POST", "/api/image", lie)).startswith(b"HTTP/1.1 400")


def test_a_body_that_does_not_come_is_given_up(lone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_BODY_S", 0.2)
    answer = talk(lone.url, _raw("POST", "/api/image", {**FRAME, "content-length": "10"}) + b"{")
    assert answer.startswith(b"HTTP/1.1 408")


def test_long_headers_and_addresses_are_refused(lone: Any) -> None:
    for request in (_raw("GET", "/" + "x" * 600_000, {}), _raw("GET", "/", {"x": "y" * 600_000})):
        try:
            assert talk(lone.url, request).startswith(b"HTTP/1.1 400")
        except ConnectionError:
            pass  # refused while it was still being sent
    assert lone.http.get("/api/classes", params={"q": "x" * 101}).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/static/../cli.py", "/static/..%2fcli.py", "/static/%2e%2e/cli.py", "/static//etc/passwd", "/static/",
     "/static/%2fetc%2fpasswd", "/static/..\\cli.py", "/static/app.js%00", "/../../etc/passwd", "//etc/passwd",
     "/static/static/app.js"],
)  # fmt: skip
def test_no_path_reaches_the_file_system(lone: Any, path: str) -> None:
    answer = talk(lone.url, _raw("GET", path, {}))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"import" not in answer and b"root:" not in answer


def test_static_files_are_cached_by_tag(lone: Any) -> None:
    response = lone.http.get("/static/app.js")
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    again = lone.http.get("/static/app.js", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


# ---- the token


def test_without_the_token_only_the_empty_page(locked: Any) -> None:
    for path in ("/api/health", "/api/model", "/openapi.json", "/docs", "/api/nothing"):
        response = locked.http.get(path)
        assert (response.status_code, code_of(response)) == (401, "token")
        assert response.headers["www-authenticate"] == "Bearer"
    assert locked.http.get("/").status_code == 200
    assert locked.http.get("/static/app.js").status_code == 200


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "Bearer "])
def test_the_right_header_opens(locked: Any, kind: str) -> None:
    assert locked.http.get("/api/health", headers={"authorization": f"{kind} {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff"]
)
def test_a_wrong_header_does_not(locked: Any, value: str) -> None:
    headers = {"authorization": value.encode("latin-1")}
    assert locked.http.get("/api/health", headers=headers).status_code == 401


def test_the_token_in_the_address_becomes_a_cookie(locked: Any) -> None:
    response = locked.http.get("/", params={"token": TOKEN})
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert locked.http.get("/api/health").status_code == 200  # the client sends it back
    locked.http.cookies.clear()
    assert locked.http.get("/api/health", headers={"cookie": f"{COOKIE}={TOKEN}"}).status_code == 401
    assert locked.http.get("/api/health", headers={"cookie": "a=b; ]["}).status_code == 401


def test_the_cookie_is_found_among_others(locked: Any) -> None:
    """Whatever else the browser keeps for this host; and nothing but the whole value will do."""
    locked.http.get("/", params={"token": TOKEN})
    value = locked.http.cookies[COOKIE]
    locked.http.cookies.clear()

    def status(cookie: str) -> int:
        return int(locked.http.get("/api/health", headers={"cookie": cookie}).status_code)

    right = f"{COOKIE}={value}"
    for cookie in (
        right,
        f'a="b\\"; {right}',
        f"{right} ; c=d",
        f"]; {right};",
        f"{COOKIE}={TOKEN}; {right}",
        f"{COOKIE}={'0' * 64}; {right}",
    ):
        assert status(cookie) == 200, cookie
    for cookie in (f"a{right}", f"{right}0", f"{COOKIE}={value[:-1]}", f"{COOKIE}=", f'a="{right}"', f"a={right}"):
        assert status(cookie) == 401, cookie


def test_a_cookie_is_not_unquoted(locked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own reader takes quadratic time for escapes (CVE-2024-7592), and this is before a token is shown."""

    def unquote(_: str) -> str:
        raise AssertionError("it was")

    monkeypatch.setattr(cookies, "_unquote", unquote)
    escapes = 'a="' + "\\054" * 4000 + '"'
    assert locked.http.get("/api/health", headers={"cookie": escapes}).status_code == 401


def test_a_wrong_token_in_the_address_sets_nothing(locked: Any) -> None:
    for token in ("wrong", "", "\ud83d".encode("utf-8", "surrogatepass").decode("latin-1")):
        response = locked.http.get("/", params={"token": token})
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
    assert locked.http.get("/?" + "a=b&" * 50 + "token=x").status_code == 200
    assert locked.http.get(f"/docs?token={TOKEN}").status_code == 401  # only the page takes it


def test_the_form_of_the_page_signs_in(locked: Any) -> None:
    response = locked.http.post("/api/session", json={"token": "wrong"})
    assert (response.status_code, code_of(response)) == (401, "token")
    assert locked.http.post("/api/session", json={"token": TOKEN}).status_code == 204
    assert locked.http.get("/api/health").status_code == 200
    foreign = {"origin": "http://evil.example"}
    assert locked.http.post("/api/session", json={"token": TOKEN}, headers=foreign).status_code == 403


def test_without_a_token_no_cookie_is_set(lone: Any) -> None:
    assert "set-cookie" not in lone.http.get("/?token=anything").headers
    assert "set-cookie" not in lone.http.post("/api/session", json={"token": "x"}).headers


def _raw(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_failures_are_json_of_one_form(lone: Any) -> None:
    body = lone.http.get("/nothing").json()
    told = {"code": "not_found", "message": "Not Found", "where": "", "places": []}
    assert json.loads(json.dumps(body)) == {"error": told}
