"""Ask a server for images: ``fewstep serve`` in one terminal, ``python client.py`` in another."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
HEADERS = {"Content-Type": "application/json"}  # and "Authorization": "Bearer ..." with a token


def post(path: str, **body: object) -> dict:
    request = Request(f"{URL}/v1/images/{path}", json.dumps(body).encode(), HEADERS)
    with urlopen(request) as answer:
        return json.load(answer)


def stream(**body: object) -> Iterator[tuple[str, dict]]:
    """Server-sent events: their names and data."""
    request = Request(f"{URL}/v1/images/generations", json.dumps(body).encode(), HEADERS)
    with urlopen(request) as answer:
        event = ""
        for line in answer:
            key, _, value = line.decode().strip().partition(": ")
            if key == "event":
                event = value
            elif key == "data":
                yield event, json.loads(value)


with urlopen(f"{URL}/v1/models") as answer:
    model = json.load(answer)["data"][0]
print(f"{model['id']}: {model['kind']}, {model['shape']}, can {', '.join(model['tasks'])}")

C, H, W = model["shape"]
made = post("generations", n=1, seed=7, size=f"{32 * W}x{32 * H}")
image = made["data"][0]
Path("image.png").write_bytes(base64.b64decode(image["b64_json"]))
print(f"image.png: seed {made['seed']}, class {image['class']}, {made['seconds']:.3f} s")

varied = post("edits", task="vary", image=image["b64_json"], n=4, **{"class": image["class"]})
print(f"{len(varied['data'])} variations of it in {varied['seconds']:.3f} s")

for event, data in stream(seed=7, steps=2, stream=True):
    if event == "image.partial":
        print(f"step {data['step']} of {data['steps']}")
