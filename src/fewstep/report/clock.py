"""The seconds that the parts of a reproduction took, over all calls together."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewstep.files import write_json

ALL = "all"


class Clock:
    """Keeps times in ``clock.json`` of a folder, so that an interruption loses none.

    Args:
        directory: of the reproduction.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "clock.json"
        try:
            stored = json.loads(self._path.read_text())
            self._seconds = {str(name): float(seconds) for name, seconds in stored.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            self._seconds = {}  # not begun, or cut off while it was written
        self._running: dict[str, float] = {}  # since when each block's seconds are not counted

    def __getitem__(self, name: str) -> float:
        """Seconds of a part; 0 where it has not run."""
        return self._seconds.get(name, 0.0)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds of a part; those of the blocks that are running are kept as well."""
        now = time.perf_counter()
        for block, since in self._running.items():
            self._seconds[block] = self[block] + now - since
            self._running[block] = now
        self._seconds[name] = self[name] + seconds
        write_json(self._path, self._seconds)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Count the seconds of a block, also of one that is interrupted.

        A process that is killed in it loses the seconds since the last `add`.
        """
        self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - self._running.pop(name))
