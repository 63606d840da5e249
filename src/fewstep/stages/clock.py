"""The seconds that the parts of a reproduction took, over all calls together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.files import read_json, write_json
from fewstep.records import value_of

ALL = "all"
CLOCK = "clock.json"
PROCESSOR = " (processor)"


class Clock:
    """Keeps times in ``clock.json`` of a folder, so that an interruption loses none.

    Args:
        directory: of the reproduction.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / CLOCK
        self._seconds: dict[str, float] = {}
        with suppress(FewstepError):  # not begun, or damaged: a clock is worth no more than that
            self._seconds = read_json(self._path, _seconds_of, "a clock")
        self._running: dict[str, float] = {}  # since when each block's seconds are not counted

    def __getitem__(self, name: str) -> float:
        """Seconds of a part; 0 where it has not run."""
        return self._seconds.get(name, 0.0)

    def so_far(self, name: str) -> float:
        """Seconds of a block that may be running, up to now."""
        since = self._running.get(name)
        return self[name] + (0.0 if since is None else time.perf_counter() - since)

    def processor(self, name: str) -> float:
        """Seconds of the processor's cores that a part used; 0 where nobody has counted them."""
        return self[f"{name}{PROCESSOR}"]

    def add(self, name: str, seconds: float, processor: float = 0.0) -> None:
        """Count seconds of a part; those of the blocks that are running are kept as well.

        Args:
            name: of the part.
            seconds: by the clock on the wall.
            processor: of the processor's cores, which other work on the machine hardly changes.
        """
        self._count_running()
        self._seconds[name] = self[name] + seconds
        if processor:
            self._seconds[f"{name}{PROCESSOR}"] = self.processor(name) + processor
        write_json(self._path, self._seconds)

    def keep(self) -> None:
        """Keep the seconds of the blocks that are running, in case the process is killed."""
        self._count_running()
        write_json(self._path, self._seconds)

    def _count_running(self) -> None:
        now = time.perf_counter()
        for block, since in self._running.items():
            self._seconds[block] = self[block] + now - since
            self._running[block] = now

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


def _seconds_of(stored: Any) -> dict[str, float]:
    seconds: dict[str, float] = value_of(dict[str, float], stored, "it")
    return seconds
