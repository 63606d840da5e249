"""The server as a process of its own: signals, clients that vanish, and requests at random."""

from __future__ import annotations

import http.client
import json
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings

from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM
from fewstep.serving import Engine, Shelf
from fewstep.serving.answers import Limits
from fewstep.serving.app import create_app

ROOT = Path(__file__).parents[1]


def network_map(width: int = 16) -> FlowMap:
    torch.manual_seed(0)
    F = MLP((1, 8, 8), num_classes=10, width=width, blocks=1)
    return FlowMap(F, EDM(), info={"kind": "consistency"}).eval()


class Server:
    """``fewstep serve`` on a free port."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [sys.executable, "-m", "fewstep", "serve", str(model), "--port", "0", *options]
        self.process = subprocess.Popen(
            [*command, "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r":(\d+)/", self.line)
        assert found, self.process.communicate(timeout=10)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, **body: object) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/images/generations", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"fewstep_{name} ")).split()[1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    network_map().save(path)
    return path


@pytest.fixture
def server(model: Path) -> Iterator[Server]:
    server = Server(model)
    yield server
    server.process.kill()
    server.process.communicate(timeout=30)


def test_sigterm_under_load_loses_nothing_that_was_accepted(server: Server) -> None:
    answers: list[tuple[int, dict]] = []
    clients = [
        threading.Thread(target=lambda: answers.append(server.ask(n=64, steps=64)))
        for _ in range(8)
    ]
    for thread in clients:
        thread.start()
    # One runs, the others wait or are done: then all were accepted.
    while server.metric("queue_length") + server.metric("batches_total") < 7:
        time.sleep(0.001)
    assert server.metric("batches_total") < 7
    server.process.send_signal(signal.SIGTERM)
    for thread in clients:
        thread.join(60)
    _, err = server.process.communicate(timeout=30)
    assert server.process.returncode == 0, err
    assert "Traceback" not in err
    assert [status for status, _ in answers] == [200] * 8
    assert all(len(answer["data"]) == 64 for _, answer in answers)
    with pytest.raises(OSError, match="refused"):
        server.ask()


def test_a_client_that_vanishes_costs_nothing(server: Server) -> None:
    server.ask(seed=0)
    before = server.metric("images_total")
    body = b'{"n": 64, "steps": 60}'
    request = (
        b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request)
    for part in (request[:20], request[:-5]):  # and some that never finish asking
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(part)
    assert server.ask(seed=0)[0] == 200
    while server.metric("queue_length"):
        time.sleep(0.01)
    made = server.metric("images_total") - before - 1
    assert made < 30 * 64 / 2  # most were dropped before they ran
    assert server.ask(seed=0)[0] == 200


def talk(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(30)
    connection.sendall(sent)
    return connection


HALF = {
    "silent": b"",
    "half a head": b"POST /v1/images/generations HTTP/1.1\r\nHost: local",
    "half a body": b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
}


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_slow_clients_are_disconnected_and_shut_nobody_out(model: Path) -> None:
    server = Server(model, "--patience", "1", "--queue", "1")  # 68 connections
    try:
        slow = {name: talk(server.port, sent) for name, sent in HALF.items()}
        idle = talk(server.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answered = b""
        while b'"ok"' not in answered:  # head and body may come one after the other
            answered += idle.recv(65_536)
        assert answered.startswith(b"HTTP/1.1 200")
        idle.sendall(b"\r\n")  # nothing, again and again
        for name, connection in slow.items():
            found = all_of(connection)
            assert found.startswith(b"HTTP/1.1 408") == (name != "silent"), found
            assert name == "silent" or json.loads(found.partition(b"\r\n\r\n")[2])["error"]
        assert all_of(idle).startswith(b"HTTP/1.1 408")
        crowd = [talk(server.port, HALF["half a head"]) for _ in range(100)]
        assert server.ask(seed=0)[0] == 200
        for connection in crowd:
            connection.close()
        for wrong, status in ((b"GET / HTTP/1.1\r\nX: " + b"x" * 90_000, 431), (b"?\r\n\r\n", 400)):
            found = all_of(talk(server.port, wrong))
            assert found.startswith(b"HTTP/1.1 %d" % status)
            assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["message"]
    finally:
        server.process.kill()
        server.process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_as_soon_as_the_address_is_there(number: int, server: Server) -> None:
    server.process.send_signal(number)
    _, err = server.process.communicate(timeout=30)
    assert (server.process.returncode, err) == (0, "stopped.\n")


def test_sigterm_waits_for_no_half_request(server: Server) -> None:
    connections = [talk(server.port, sent) for sent in HALF.values()]
    assert server.ask(seed=0)[0] == 200
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    _, err = server.process.communicate(timeout=30)
    assert time.monotonic() - started < 15  # of a grace of 30
    assert (server.process.returncode, err) == (0, "stopped.\n")
    for connection in connections:
        connection.close()


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_not_waited_for_beyond_the_grace(model: Path) -> None:
    body = b'{"size": "2048x2048", "stream": true, "steps": 64}'
    head = HALF["half a body"][:-1].replace(b"100", str(len(body)).encode())
    for signals in (1, 2):  # the second signal ends it at once
        server = Server(model, "--grace", "1" if signals == 1 else "60")
        connection = talk(server.port, head + body)
        assert connection.recv(10)
        started = time.monotonic()
        for _ in range(signals):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        _, err = server.process.communicate(timeout=50)
        assert time.monotonic() - started < 30
        assert "Traceback" not in err
        if signals == 2:
            assert (server.process.returncode, err) == (143, "stopped at once.\n")
        connection.close()


def test_a_port_in_use_is_one_line(server: Server, model: Path) -> None:
    command = [sys.executable, "-m", "fewstep", "serve", str(model), "--port", str(server.port)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "--port" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_the_client_of_the_examples(server: Server, tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["client.py", server.url])
    runpy.run_path(str(ROOT / "examples/client.py"), run_name="__main__")
    assert (tmp_path / "image.png").read_bytes().startswith(b"\x89PNG")
    assert "step 2 of 2" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_curl_line_of_the_docs(server: Server, tmp_path: Path) -> None:
    text = (ROOT / "docs/serving.md").read_text()
    lines = re.findall(r"^curl (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert lines
    for line in lines:
        command = line.replace("http://127.0.0.1:8000", server.url)
        subprocess.run(["bash", "-ec", f"{command}"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "sevens.png").read_bytes().startswith(b"\x89PNG")


# Requests at random


ROUTES = ("generations", "edits", "interpolations")


class Lasting(Engine):
    """Stays open when the application ends, as schemathesis starts and ends it for every case."""

    def close(self, timeout: float | None = None) -> bool:
        return True


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    """The OpenAPI description, bound to the application."""
    f = network_map()
    engine = Lasting({"tiny": f})
    app = create_app(engine, Shelf({"tiny": f}), limits=Limits(n=4, steps=4), local=False)
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    Engine.close(engine)


@pytest.mark.parametrize("route", ROUTES)
def test_no_request_breaks_the_server(route: str, api: Any) -> None:
    seen: set[int] = set()

    @given(case=api[f"/v1/images/{route}"]["POST"].as_strategy())
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        answer = case.call()
        seen.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    check()
    assert seen & {200, 400, 422}
