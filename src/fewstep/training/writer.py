"""Checkpoints that are written beside the training."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from fewstep.threads import compute_alone
from fewstep.training.checkpoint import Checkpoint, Checkpoints, Snapshot


class Writer:
    """Writes checkpoints beside the training, one at a time.

    What goes wrong is raised by the next call of `write` or `join`. Used in a ``with`` block, which
    ends when the last checkpoint is on the disk.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=compute_alone)
        self._pending: Future[Checkpoint] | None = None

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write, once the one before is on the disk."""
        self.join()
        self._pending = self._thread.submit(self.checkpoints.write, snapshot)

    def join(self) -> None:
        """Wait until everything is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._thread.shutdown()
        if kind is None:  # else the user reads of what came first
            self.join()
