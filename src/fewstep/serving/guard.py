"""What stands before every request: size, origin, token; and the metrics behind it.

Plain ASGI, as it runs for every request. A body is read here, up to its limit, before anything
looks at it. A page of another origin cannot use the server through the user's browser: on
loopback only loopback's own names are answered (no DNS rebinding), and a request that says it comes
from another origin is refused.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fewstep.serving.faults import error
from fewstep.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODIES = 16  # of the largest bodies that may be there at once
SMALL = 65_536  # bytes of a body without a picture
PICTURES = ("/v1/images/edits", "/v1/images/neighbours")
PROTECTED = ("/v1/", "/metrics")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; "
     b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"),
]  # fmt: skip


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        metrics: told of every request.
        most: bytes in a body.
        token: to be sent as ``Authorization: Bearer TOKEN``; None for no token.
        local: whether only loopback's names are answered.
    """

    def __init__(
        self, app: App, *, metrics: Metrics, most: int, token: str | None, local: bool
    ) -> None:
        self.app, self.metrics, self.most, self.token, self.local = app, metrics, most, token, local
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        held = [0]
        bodiless = scope["method"] == "HEAD"
        scope = {**scope, "method": "GET"} if bodiless else scope

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            elif bodiless:
                message["body"] = b""
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._check(scope["path"], headers)
            body = await self._body(scope["path"], headers, receive, held)
            await self.app(scope, _replay(body, receive), answer)
        except Refused as refused:
            await _refuse(refused, answer)
        except asyncio.CancelledError:  # the server stops, and its grace is over
            if not status:
                await _refuse(Refused(503, "the server is shutting down.", "closed"), answer)
        finally:
            self._held -= held[0]
            route = getattr(scope.get("route"), "path", "") or "other"
            self.metrics.observe(route, status or 500, time.monotonic() - started)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self.local and not is_loopback(_name(host)):
            raise Refused(
                421,
                f"this server does not answer for the host {host!r}: it is for this machine "
                "alone. Open it as localhost, or serve it with --host and --token.",
                "host",
            )
        origin = headers.get(b"origin")
        if origin is not None and _place(origin.decode("latin-1")) != host:
            raise Refused(403, "requests from pages of another origin are refused.", "origin")
        if self.token is not None and path.startswith(PROTECTED):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
                raise Refused(
                    401, "send the server's token as Authorization: Bearer TOKEN.", "token"
                )

    async def _body(
        self, path: str, headers: dict[bytes, bytes], receive: Receive, held: list[int]
    ) -> bytes:
        """The whole body; its bytes are counted in ``held`` and among those of all requests."""
        too_large = Refused(413, f"the body is larger than {self.most:,} bytes.", "body_size")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most:
            raise too_large
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client left.", "disconnect")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.most:
                raise too_large
            held[0], self._held = size, self._held + len(parts[-1])
            if self._held > max(size, BODIES * self.most):
                raise Refused(429, "too much is being sent at once; try again later.", "busy")
            if message.get("more_body"):
                continue
            if path not in PICTURES and size > SMALL:
                raise Refused(
                    413, f"a body without pictures has at most {SMALL:,} bytes.", "body_size"
                )
            return b"".join(parts)


def is_loopback(name: str) -> bool:
    """Whether a name or an address is that of this machine for itself alone."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    """Host and port of an Origin header; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """First the body as one message, then what comes: a disconnect."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


async def _refuse(refused: Refused, send: Send) -> None:
    body = json.dumps(error(str(refused), refused.code)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
