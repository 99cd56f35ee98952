"""Who may talk to the studio, and what a browser may do with its answers.

The studio listens on the loopback interface, which every web page that its user visits can reach too. So a request
must name this machine in its Host header (a page whose name was rebound to 127.0.0.1 does not), must not come from
another origin, and is small, or a photo; beyond the loopback interface it must show a token as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.client.address import is_loopback
from serving.contract.photo.reader import LARGEST_FILE
from serving.studio.failures import failure
from serving.studio.tries import Tries

COOKIE = "latentclr_studio"
LARGEST_BODY = 64 * 1024
PHOTOS = "/api/photos"
"""What is posted here is a photo's file; everything else is a small JSON object."""
SHORTEST_TOKEN = 16
_BODY_S, _PHOTO_S = 10.0, 60.0
_PHOTOS_AT_ONCE = 2  # that arrive: each may be as large as `LARGEST_FILE`
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
# Not by http.cookies, which takes quadratic time for escapes, before anybody has shown a token.
_SIGNED_IN = re.compile(rf"(?:^|;)\s*{COOKIE}=([0-9a-f]{{64}})\s*(?=;|$)")
# The page itself holds no secret, and has to be there to ask for the token.
_PUBLIC = ("/", "/api/session")
_SAFE_METHODS = ("GET", "HEAD")

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_PERMISSIONS = "camera={}, microphone=(), geolocation=()"


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def largest_body(path: str) -> int:
    """Return how many bytes may be sent to a path."""
    return LARGEST_FILE if path == PHOTOS else LARGEST_BODY


class Policy:
    """Which names the studio answers to, its token, and who guessed at that."""

    def __init__(self, host: str = "127.0.0.1", token: str = "", names: Iterable[str] = ()) -> None:
        """Decide once.

        Args:
            host: The address that the studio listens on.
            token: What a request must show; empty if nothing.
            names: Further host names to answer to.
        """
        self.open = not is_loopback(host)
        self._names = {*_LOOPBACK_NAMES, host.lower().strip("[]"), *(name.lower() for name in names)}
        self._token = _digest(token) if token else b""
        # Not made from the token: then it could be guessed as the token can, and nobody counts wrong cookies.
        self._cookie = secrets.token_hex(32)
        self._tries = Tries()

    @property
    def wants_token(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def try_token(self, token: str, address: str) -> bool:
        """Compare a token in constant time, unless its sender had too many wrong ones.

        Then the right one is not told either: else guesses would only have to be many, not patient.

        Args:
            token: What was sent.
            address: By whom.

        Raises:
            Refused: Too many wrong ones.
        """
        wait_s = self._tries.wait_s(address)
        if wait_s > 0:
            raise Refused(429, "tries", f"too many wrong tokens came from your address; try again in {wait_s:.0f} s")
        right = bool(self._token) and secrets.compare_digest(_digest(token), self._token)
        if not right:
            self._tries.wrong(address)
        return right

    def cookie(self) -> str:
        """Return the header that keeps a browser signed in until the studio stops."""
        return f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"

    def knows_host(self, host: str) -> bool:
        """Whether a Host header names this machine.

        On the network any address in digits will do: a rebound name is never one.
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower().strip("[]")
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.open

    def permissions(self, host: str) -> str:
        """Return what a page may use: the camera on this machine only, where its pictures do not travel."""
        match = _HOST.fullmatch(host)
        name = "" if match is None else match["name"].lower().strip("[]")
        return _PERMISSIONS.format("(self)" if name in _LOOPBACK_NAMES else "()")

    def check(self, method: str, path: str, headers: Mapping[str, str], address: str) -> None:
        """Decide about a request by what stands before its body.

        Args:
            method: Of HTTP.
            path: What is asked for.
            headers: By name in small letters.
            address: Who asks.

        Raises:
            Refused: With the status and the reason.
        """
        host = headers.get("host", "")
        if not self.knows_host(host):
            raise Refused(400, "host", "this Host header is not one that the studio answers to; see --allow-host")
        if method not in _SAFE_METHODS:
            self._check_origin(host, headers)
        public = path in _PUBLIC or path.startswith("/static/")
        if self._token and not public and not self._signed_in(headers, address):
            raise Refused(401, "token", "a token is needed: as `Authorization: Bearer TOKEN`, or once as /?token=TOKEN")
        kind = "application/octet-stream" if path == PHOTOS else "application/json"
        if method in ("POST", "PUT") and headers.get("content-type", "").split(";")[0].strip() != kind:
            raise Refused(415, "content_type", f"the content type must be {kind}")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > largest_body(path):
            raise _too_large(path)

    def _check_origin(self, host: str, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        foreign = origin is not None and origin.lower().partition("://")[2] != host.lower()
        if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refused(403, "origin", "the request comes from another origin")

    def _signed_in(self, headers: Mapping[str, str], address: str) -> bool:
        if any(secrets.compare_digest(value, self._cookie) for value in _SIGNED_IN.findall(headers.get("cookie", ""))):
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.try_token(token.strip(), address)


class Guard:
    """ASGI middleware around the whole app: asks the policy, bounds the body, adds the headers."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        """Wrap an app.

        Args:
            app: What answers the requests that are let through.
            policy: Decides which those are.
        """
        self._app, self._policy = app, policy
        self._photos = asyncio.Semaphore(_PHOTOS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        cookie = ""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message.get("headers", []) if name != b"server"]
                own = {**HEADERS, "permissions-policy": self._policy.permissions(_headers(scope).get("host", ""))}
                headers += [(name.encode(), value.encode()) for name, value in own.items()]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                if cookie:
                    headers.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            self._policy.check(scope["method"], scope["path"], _headers(scope), address_of(scope))
            if scope["path"] == "/" and scope["method"] == "GET":
                cookie = self._sign_in(scope)
            body = await self._read(scope["path"], receive)
        except Refused as refused:
            await _answer(guarded, refused)
            return
        await self._app(scope, _replay(body, receive), guarded)

    async def _read(self, path: str, receive: Receive) -> bytes:
        """Read the body, at most as much and for at most as long as is let in, whatever its headers promised."""
        photo = path == PHOTOS
        seconds = _PHOTO_S if photo else _BODY_S
        try:
            with anyio.fail_after(seconds):
                async with self._photos if photo else contextlib.nullcontext():
                    return await _read(receive, path)
        except TimeoutError:
            raise Refused(408, "slow_body", f"the request's body did not arrive within {seconds:g} s") from None

    def _sign_in(self, scope: Scope) -> str:
        """Take a token from the address; returns the cookie to set, or nothing."""
        query = scope.get("query_string", b"").decode("latin-1")
        if not self._policy.wants_token or "token=" not in query:
            return ""
        try:
            tokens = parse_qs(query, max_num_fields=20).get("token", [""])
        except ValueError:  # too many fields
            return ""
        return self._policy.cookie() if self._policy.try_token(tokens[0], address_of(scope)) else ""


def address_of(scope: Scope) -> str:
    """The address that a request came from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _digest(text: str) -> bytes:
    """Digests have one length, so comparing them tells nothing of the token's."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by name; one that must be unique and is not becomes one that nothing matches."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}; {value}" if name in headers else value
    return headers


async def _read(receive: Receive, path: str) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "disconnect", "the client left")
        body += message.get("body", b"")
        if len(body) > largest_body(path):
            raise _too_large(path)
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the app the body that was read, then whatever comes next."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def _too_large(path: str) -> Refused:
    return Refused(413, "too_large", f"the request's body must be at most {largest_body(path)} bytes")


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps(failure(refused.code, str(refused))).encode()
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the body is not read
    ]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
