"""TensorBoard events, written as they come: no thread that could die of a full disk unseen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

VERSION = "brain.Event:2"  # of the file


class Events:
    """An events file in a folder.

    Args:
        directory: the folder.
        start: step from which a run goes on: TensorBoard then drops later ones of earlier files.

    Raises:
        OSError: here or in any method: the disk is full, or not writable.
    """

    def __init__(self, directory: Path, start: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._file = EventsWriter(str(directory / "events"))
        self._event = Event
        if start:
            self._write(start, file_version=VERSION)
            self._write(start, session_log=SessionLog(status=SessionLog.START))

    def numbers(self, step: int, numbers: dict[str, float]) -> None:
        """Numbers of a step, by name."""
        from tensorboardX.summary import scalar

        for name, value in numbers.items():
            self._write(step, summary=scalar(name, value))
        self._file.flush()

    def picture(self, step: int, name: str, image: Any) -> None:
        """An image [C, H, W] uint8."""
        from tensorboardX.summary import image as summary

        self._write(step, summary=summary(name, image.numpy(), dataformats="CHW"))

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, **what: Any) -> None:
        self._file.write_event(self._event(wall_time=time.time(), step=step, **what))
