"""Requests that nobody meant, slow clients, a signal: the server answers the others, and ends."""

from __future__ import annotations

import base64
import http.client
import io
import json
import random
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from ground import Ground, Tally
from kills import TRAIN
from PIL import Image

SLOW = 2.0  # seconds that an answer of /health may take on a busy machine
GRACE = 2
ENDS = 15.0  # seconds in which the server must be gone: grace, patience and a busy machine


def campaign(ground: Ground, rng: random.Random, seconds: float) -> Tally:
    tally = Tally("hostile requests")
    run = ground.folder / "model"
    tally.judge("training", ground.run(*TRAIN, "--out", run))
    port = _free_port()
    server = ground.start("serve", run, "--port", port, "--grace", GRACE, "--patience", 3)
    if not _up(port, ground.seconds):
        tally.count("start", f"the server did not start: {server.wait(0.1).said[-300:]}")
        return tally
    held = [_half_sent(port, rng) for _ in range(20)]
    end, worst = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        kind, fault = _one(port, rng)
        tally.count(kind, fault)
        began = time.monotonic()
        status, _ = _ask(port, "GET", "/health")
        took = time.monotonic() - began
        worst = max(worst, took)
        late = took > SLOW or status != 200
        tally.count("/health beside it", f"{status} after {took:.1f} s" if late else None)
    held += [_half_sent(port, rng) for _ in range(5)]
    server.signal(signal.SIGTERM)
    outcome = server.wait(ENDS)
    if outcome.code == -signal.SIGTERM:
        outcome.code = 0
    tally.judge("SIGTERM beside clients that hang", outcome)
    for client in held:
        client.close()
    return tally


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _up(port: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            return _ask(port, "GET", "/health")[0] == 200
        time.sleep(0.05)
    return False


def _ask(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _half_sent(port: int, rng: random.Random) -> socket.socket:
    """A client that sends a part of a request, and then nothing."""
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.sendall(WHOLE[: rng.randrange(len(WHOLE))])
    return client


def _one(port: int, rng: random.Random) -> tuple[str, str | None]:
    """Send a request; its kind, and what is wrong with the answer."""
    if rng.random() < 0.2:
        return "raw bytes", _raw(port, rng)
    path = rng.choice(PATHS)
    method = rng.choice(METHODS)
    body = json.dumps(_body(path, rng)).encode()
    if rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)]
    headers = {"Content-Type": "application/json"}
    if rng.random() < 0.2:
        headers |= rng.choice(HEADERS)
    try:
        status, text = _ask(port, method, path, body, headers)
    except (OSError, http.client.HTTPException) as error:
        return path, f"no answer ({type(error).__name__}) to {method} {body[:200]!r}"
    kind = f"{path}: {status}"
    if status >= 500 and status != 503:
        return kind, f"{method} {body[:300]!r}: {text[:200]!r}"
    if status >= 400 and method != "HEAD" and path.startswith("/v1") and not _documented(text):
        return kind, f"in another form, to {method} {body[:200]!r}: {text[:200]!r}"
    return kind, None


def _documented(text: bytes) -> bool:
    try:
        return bool(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return False


def _raw(port: int, rng: random.Random) -> str | None:
    """Bytes that are no request: anything but silence from a server that then serves others."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            client.sendall(rng.choice(RAW) + rng.randbytes(rng.randrange(64)))
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
        except TimeoutError:
            return "a connection was left open"
        except OSError:
            return None
    return None


PATHS = (
    *("/v1/images/generations", "/v1/images/edits", "/v1/images/interpolations") * 4,
    "/v1/models",
    "/health",
    "/metrics",
    "/docs/",
    "/v1/none",
)
HEADERS = (
    {"Origin": "http://["},
    {"Origin": "http://[::g]"},
    {"Range": "bytes=9-1"},
    {"Content-Type": "multipart/form-data"},
    {"Content-Type": "text/plain"},
    {"Transfer-Encoding": "gzip"},
    {"Host": "evil.example"},
)
METHODS = (*("POST",) * 14, "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
WHOLE = b"POST /v1/images/edits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{}"
RAW = (
    b"\x16\x03\x01",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET " + b"a" * 9000,
    b"\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\n",
)
NASTY: tuple[Any, ...] = (
    None, "", "x", -1, 0, 1, 3, 1e308, 10**30, [], {}, [[]], True, "a" * 5000, "\ud800",
    "4096x4096", "8x8", "99999999x1", ["x"], 64, 100_000,
)  # fmt: skip


def _picture(size: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("L", (size, size), 90).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _body(path: str, rng: random.Random) -> dict[str, Any]:
    """A body that the path understands, in half of the cases with what it does not."""
    body: dict[str, Any] = {"model": "model", "class": 3, "steps": rng.choice((1, 2, 16))}
    size = rng.choice(("8x8", "64x64", "1024x1024"))
    if path.endswith("interpolations"):
        body |= {"from": {"seed": 1}, "to": {"seed": 2}, "frames": rng.choice((2, 9))}
    else:
        body |= {"n": rng.choice((1, 2, 4)), "size": size, "seed": rng.choice((0, 5))}
    if path.endswith("generations"):
        body["stream"] = rng.random() < 0.2
    if path.endswith("edits"):
        body["task"] = rng.choice(("superresolve", "inpaint", "denoise", "strokes", "colorize"))
        body["image"] = _picture()
        if body["task"] == "inpaint":
            body["mask"] = _picture(rng.choice((8, 16)))
        if body["task"] == "superresolve":
            body["factor"] = rng.choice((2, 8, 64, 128, 10**12))
    if rng.random() < 0.5:
        for key in rng.sample(list(body), rng.randrange(3)):
            del body[key]
        for _ in range(rng.randrange(3)):
            body[rng.choice([*body, "other"])] = rng.choice(NASTY)
    return body
