"""The HTTP API under load, from a second process over loopback.

    python benchmarks/serving.py runs/reproduce-digits/cd [--requests 5000] [--clients 16]

A server is started with and without batches; clients that each wait for their answer before the
next request ask for images of their own seeds. Reported: requests per second of both, their ratio
(in alternating rounds, so that both see the same machine), and percentiles of the latency. Then
all answers of one long run are compared, pixel by pixel, with what the model gives without a
server. Writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fewstep.runs.opening import open_model
from fewstep.sampling import sampler_for
from fewstep.serving import Generation

RESULTS = Path(__file__).parent / "results" / "serving.json"
CLASSES = 10
ONE_BY_ONE = ("--max-batch", "1", "--wait-ms", "0")


@contextmanager
def server(model: Path, *options: str) -> Iterator[int]:
    """A server of its own; its port."""
    command = [sys.executable, "-m", "fewstep", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield int(re.search(r":(\d+)/", line)[1])
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(60) != 0:
            raise RuntimeError(f"the server ended with {process.returncode}")


async def ask(port: int, seeds: asyncio.Queue, steps: int, found: dict, seconds: list) -> None:
    """One client with a connection of its own, until there are no more seeds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not seeds.empty():
        seed = seeds.get_nowait()
        body = json.dumps({"seed": seed, "steps": steps, "class": seed % CLASSES}).encode()
        start = time.perf_counter()
        writer.write(
            b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        answer = await reader.readexactly(length)
        seconds.append(time.perf_counter() - start)
        found[seed] = (int(head.split()[1]), answer)
    writer.close()


async def load(
    port: int, seeds: Sequence[int], steps: int, clients: int
) -> tuple[float, list, dict]:
    """Requests per second, latencies, answers by seed."""
    queue: asyncio.Queue = asyncio.Queue()
    for seed in seeds:
        queue.put_nowait(seed)
    found: dict[int, tuple[int, bytes]] = {}
    seconds: list[float] = []
    start = time.perf_counter()
    await asyncio.gather(*(ask(port, queue, steps, found, seconds) for _ in range(clients)))
    return len(seeds) / (time.perf_counter() - start), seconds, found


def compare(model: Path, steps: int, clients: int, requests: int, rounds: int) -> dict:
    """Throughput with and without batches, in turns."""
    rates: dict[str, list[float]] = {"one_by_one": [], "batched": []}
    latencies: dict[str, list[float]] = {"one_by_one": [], "batched": []}
    with server(model, *ONE_BY_ONE) as alone, server(model) as batched:
        ports = {"one_by_one": alone, "batched": batched}
        for port in ports.values():
            asyncio.run(load(port, range(4 * clients), steps, clients))
        for _ in range(rounds):
            for name, port in ports.items():
                rate, seconds, _ = asyncio.run(load(port, range(requests), steps, clients))
                rates[name].append(rate)
                latencies[name] += seconds
    ratios = [b / a for a, b in zip(rates["one_by_one"], rates["batched"], strict=True)]
    result = {"steps": steps, "ratio": round(statistics.median(ratios), 2)}
    for name in rates:
        p50, p95, p99 = np.percentile(np.array(latencies[name]) * 1000, [50, 95, 99])
        result[name] = {
            "requests_per_s": round(statistics.median(rates[name])),
            "p50_ms": round(p50, 1),
            "p95_ms": round(p95, 1),
            "p99_ms": round(p99, 1),
        }
    return result


def check(model: Path, clients: int, requests: int) -> dict:
    """Whether every answer is there and right."""
    with server(model) as port:
        rate, seconds, found = asyncio.run(load(port, range(requests), 1, clients))
    f = open_model(model)
    lost, failed, wrong = requests - len(found), 0, 0
    with torch.inference_mode():
        for seed, (status, answer) in found.items():
            if status != 200:
                failed += 1
                continue
            work = Generation("f", sampler_for(f, 1), seed, 1, [seed % CLASSES])
            image = base64.b64decode(json.loads(answer)["data"][0]["b64_json"])
            pixels = np.asarray(Image.open(BytesIO(image)))
            (expected,) = Generation.run(f, [work], 64)
            wrong += not np.array_equal(pixels, expected[0, 0].numpy())
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {
        "requests": requests,
        "lost": lost,
        "failed": failed,
        "wrong": wrong,
        "requests_per_s": round(rate),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a digits model, such as of reproduce digits")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    per_round = max(options.clients, options.requests // 10)
    result = {
        "clients": options.clients,
        "throughput": [
            compare(options.model, steps, options.clients, per_round, options.rounds)
            for steps in (1, 2, 4, 8)
        ],
        "answers": check(options.model, options.clients, options.requests),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
