"""Where fewstep keeps what it can make again: decoded data, classifiers, statistics."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`FEWSTEP_CACHE`, else `fewstep` in `XDG_CACHE_HOME`, else `~/.cache/fewstep`."""
    if own := os.environ.get("FEWSTEP_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fewstep"
