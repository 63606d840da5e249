"""What answers are packed in: JSON, PNG, events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from fastapi.responses import Response
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.serving.images import png
from fewstep.serving.schemas import Body
from fewstep.serving.shelf import class_names
from fewstep.version import __version__


def envelope(
    name: str,
    seed: int,
    steps: int,
    seconds: float,
    data: list[dict[str, Any]],
    notes: Sequence[str],
    engine: str,
) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "created": int(time.time()),
        "model": name,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 4),
        "engine": engine,
        "notes": list(notes),
        "data": data,
    }


def answer(
    name: str,
    seed: int,
    steps: int,
    seconds: float,
    data: list[dict[str, Any]],
    notes: Sequence[str] = (),
    *,
    engine: str,
) -> Response:
    """An answer in JSON."""
    whole = envelope(name, seed, steps, seconds, data, notes, engine)
    return Response(json.dumps(whole, separators=(",", ":")), media_type="application/json")


def png_answer(pixels: Tensor, settings: dict[str, Any], profile: bytes | None = None) -> Response:
    """One picture."""
    return Response(png(pixels, settings, profile), media_type="image/png")


def event(kind: str, data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def settings_of(name: str, seed: int, steps: int, label: str | None, engine: str) -> dict[str, Any]:
    """What a PNG says of how it was made."""
    made = {"fewstep": __version__, "model": name, "seed": seed, "steps": steps, "class": label}
    return made | {"engine": engine}


def seed_of(body: Body) -> int:
    """The seed of a request, or a random one."""
    return secrets.randbelow(2**31) if body.seed is None else body.seed


def class_name(f: FlowMap, label: int | None) -> str | None:
    """What a class is called."""
    names = class_names(f)
    return None if label is None or names is None else names[label]
