"""How far long work is: a bar on a terminal, and lines in a log that is not one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from fewstep.terminal import column, console

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 2.0  # seconds without a sign
EARLY = 10.0  # seconds until the second line of a log
INTERVAL = 30.0  # seconds between the lines after it


def on_terminal() -> bool:
    """Whether what is shown is seen at once, so that a bar makes sense."""
    return sys.stderr is not None and sys.stderr.isatty()


class Lines:
    """Says now and then how far the work is: after 2 and 10 seconds, then twice a minute.

    Args:
        title: of the work.
        total: how much there is to do.
        start: how much was done before.
        unit: what it is counted in.
        say: called with each line; default it goes to stderr.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        start: float = 0,
        unit: str = "",
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.title, self.total, self.start, self.unit = title, total, start, unit
        self.say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._began = time.monotonic()
        self._due = PATIENCE

    def advance(self, done: float, status: Callable[[], str] | None = None) -> None:
        """Where a line is due, say how much is done.

        Args:
            done: of the total.
            status: what else there is to say; asked for only when a line is due.
        """
        seconds = time.monotonic() - self._began
        if seconds < self._due:
            return
        self._due = EARLY if seconds < EARLY else INTERVAL * (seconds // INTERVAL + 1)
        said = f"{self.title}: {int(done):,}/{self.total:,} {self.unit}".rstrip()
        extra = status() if status else ""
        self.say(said + f", {extra}" * bool(extra) + self._left(done, seconds))

    def _left(self, done: float, seconds: float) -> str:
        made = done - self.start
        if made <= 0:
            return ""
        left = timedelta(seconds=round(seconds / made * max(0, self.total - done)))
        return f", {left} left"


def _bar() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeRemainingColumn,
    )

    return Progress(
        column("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
    )


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function `advance(count)`; work longer than two seconds is shown with the time left.

    On a terminal that is a bar, elsewhere `Lines`.
    """
    started = time.monotonic()
    done = 0
    bar: Progress | None = None
    lines = None if on_terminal() else Lines(title, total)

    def advance(count: int) -> None:
        nonlocal bar, done
        done += count
        if lines is not None:
            lines.advance(done)
            return
        if bar is None and time.monotonic() - started > PATIENCE:
            bar = _bar()
            bar.start()
            bar.add_task(title, total=total)
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


@contextmanager
def working(title: str, *, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """A block whose length nobody knows: what it does, and for how long, is said as by `Lines`.

    Args:
        title: of the work.
        say: called with each line; default it goes to stderr.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        due = PATIENCE
        while not over.wait(due - (time.monotonic() - began)):
            say(f"{title}: {timedelta(seconds=round(time.monotonic() - began))} so far")
            due = EARLY if due < EARLY else INTERVAL * (due // INTERVAL + 1)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
