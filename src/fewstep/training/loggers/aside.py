"""A logger in a thread of its own, which nothing that becomes of it can hold up or stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from fewstep.threads import compute_alone
from fewstep.training.loggers.base import Logger

WAITING = 10_000  # calls that wait for a slow logger
LAST = 60.0  # seconds that it has for them when the training has ended

Call = Callable[[], None]


class Aside:
    """Makes calls one after the other, until one fails.

    Args:
        name: of the logger, as the user gave it.
        logger: whose calls they are.
        say: tells the user what went wrong, once.
    """

    def __init__(self, name: str, logger: Logger, say: Callable[[str], None]) -> None:
        self.name, self.logger, self.say = name, logger, say
        self.failed = False
        self._calls: queue.Queue[Call | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name=f"log {name}", daemon=True)
        self._thread.start()

    def __call__(self, call: Call) -> None:
        """Have a call made, some time."""
        if self.failed:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._fail("it does not keep up with the training")

    def end(self) -> None:
        """Wait for the calls that were given, as long as is decent."""
        self(lambda: None)
        try:
            self._calls.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(LAST)
        if self._thread.is_alive() and not self.failed:
            self._fail(f"it has not taken everything within {LAST:.0f} s")

    def _work(self) -> None:
        compute_alone()
        while (call := self._calls.get()) is not None:
            if self.failed:
                continue
            try:
                call()
            except BaseException as error:  # some libraries end the program, as if it were theirs
                words = " ".join(str(error).split()) or type(error).__name__
                self._fail(words[:300].rstrip("."))

    def _fail(self, why: str) -> None:
        self.failed = True
        self.say(f"note: the logger {self.name} is left out from here on: {why}.")
