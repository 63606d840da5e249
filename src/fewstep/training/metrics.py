"""The log of a training as lines of JSON, read without what writes and shows it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from fewstep.errors import FewstepWarning
from fewstep.files import SHAPELESS
from fewstep.records import value_of

METRICS = "metrics.jsonl"


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """The lines of a run's log; a last line that was cut off by a kill is left out.

    Lines that hold something else, as a failing disk leaves them, are left out with a warning.
    """
    path = directory / METRICS
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    read = [line_of(text) for text in whole.splitlines()]
    if damaged := read.count(None):
        warnings.warn(
            f"{path} has {damaged} damaged line{'s' * (damaged > 1)}, left out.",
            FewstepWarning,
            stacklevel=2,
        )
    return [line for line in read if line is not None]


def line_of(text: bytes) -> dict[str, float] | None:
    """The numbers of a line; None where it holds anything else."""
    try:
        line: dict[str, float] = value_of(dict[str, int | float], json.loads(text), "a line")
        return line | {"step": int(line["step"])}
    except SHAPELESS:
        return None
