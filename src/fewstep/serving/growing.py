"""The log of a run, read while it is being written."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, BinaryIO

from fewstep.training.metrics import line_of

Row = dict[str, float]

MOST = 100_000  # rows that are kept; beyond them two become one
SENT = 5_000  # rows of one answer


class Growing:
    """The rows of a log, one per step, as the training now stands.

    Only what is new is read. A last line that is not whole yet waits for its rest, and lines that
    hold something else are counted. Where a run was resumed from an earlier step its log is
    rewritten, or goes back: the rows from there on are dropped. That changes the `epoch`, by which
    a reader knows that what it has is not the beginning of what there is.

    Args:
        path: the log, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.damaged = 0
        self._dropped, self._began = 0, time.time_ns()
        self._at, self._last = 0, b""

    @property
    def epoch(self) -> str:
        """Another one whenever rows were dropped."""
        return f"{self._began}.{self._dropped}"

    @property
    def step(self) -> int:
        """The newest step; 0 for none."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def read(self) -> None:
        """Take in what was written since the last time; a log that is gone leaves what was read."""
        try:
            with self.path.open("rb") as file:
                if not self._goes_on(file):
                    self._forget()
                file.seek(self._at)
                self._take(file.read())
        except OSError:
            return

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was read is still there, up to its last line."""
        file.seek(max(0, self._at - len(self._last)))
        return file.read(len(self._last)) == self._last

    def _forget(self) -> None:
        self.rows, self.damaged = [], 0
        self._at, self._last = 0, b""
        self._dropped += 1

    def _take(self, new: bytes) -> None:
        whole, end, _ = new.rpartition(b"\n")
        if not end:
            return
        lines = whole.split(b"\n")
        for text in lines:
            line = line_of(text)
            if line is None:
                self.damaged += 1
            else:
                self._add(line)
        self._at += len(whole) + 1
        self._last = lines[-1] + b"\n"
        if len(self.rows) > MOST:
            self._thin()

    def _add(self, line: Row) -> None:
        rows = self.rows
        if rows and rows[-1]["step"] > line["step"]:
            while rows and rows[-1]["step"] > line["step"]:
                rows.pop()
            self._dropped += 1
        if rows and rows[-1]["step"] == line["step"]:
            rows[-1] = rows[-1] | line
        else:
            rows.append(line)

    def _thin(self) -> None:
        """Make one of two rows, with all that either says."""
        pairs = zip(self.rows[::2], self.rows[1::2], strict=False)
        odd = self.rows[-1:] * (len(self.rows) % 2)
        self.rows = [a | b for a, b in pairs] + odd
        self._dropped += 1

    def after(self, number: int, epoch: str) -> dict[str, Any]:
        """Rows from a number on, in JSON's values, at most `SENT`; from the first of another epoch.

        The last row may still grow, and is worth asking for again.
        """
        start = min(max(0, number), len(self.rows)) if epoch == self.epoch else 0
        sent = [_plain(row) for row in self.rows[start : start + SENT]]
        return {"epoch": self.epoch, "after": start, "total": len(self.rows), "rows": sent}


def _plain(row: Row) -> dict[str, float | None]:
    """JSON has no NaN and no infinities."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}
