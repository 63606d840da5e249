"""What a training says of itself: how far it is, a log that outlives it, TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.files import replacing
from fewstep.progress import Lines, on_terminal
from fewstep.terminal import column, console
from fewstep.training.events import Events
from fewstep.training.loggers import Logger, Outcome, Told
from fewstep.training.metrics import METRICS, read_metrics
from fewstep.training.stopping import Interrupted


class Logbook:
    """Writes ``metrics.jsonl`` and TensorBoard events, and shows how far the training is.

    That is a progress bar on a terminal, and a line now and then (`fewstep.progress.Lines`) in a
    log that is none.

    Args:
        directory: the run's folder.
        start: step that the run starts or resumes from; later lines are dropped.
        steps: total number of steps.
        title: what the training is called.
        active: false in all but the first process: then nothing is written or shown.
        quiet: neither bar nor such lines.
        loggers: others that are told, by spec.
        config: the training's settings, for them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        start: int,
        steps: int,
        title: str,
        active: bool = True,
        quiet: bool = False,
        loggers: Mapping[str, Logger] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.active, self.directory = active, directory
        self.console = console(stderr=True)
        if not active:
            return
        there = read_metrics(directory)
        kept = [line for line in there if line["step"] <= start]
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            with replacing(directory / METRICS) as partial:
                partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self._file = (directory / METRICS).open("a", buffering=1)
            self._events = Events(directory, start)
        self._bar = Progress(
            column("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            column("{task.fields[status]}"),
            TimeElapsedColumn(),
            column("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not on_terminal(),
        )
        self._lines = Lines(title, steps, start=start, unit="steps", say=self.say)
        self._lines_shown = not quiet and not on_terminal()
        self._task = self._bar.add_task(title, total=steps, completed=start, status="")
        self._told = Told(
            loggers or {},
            directory,
            name=title,
            config=config or {},
            before=kept,
            again=[line for line in there if line["step"] > start],
            say=self.say,
        )

    def __enter__(self) -> Logbook:
        if self.active:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.active:
            return
        self._told.finish(_outcome(error))
        self._bar.stop()
        # what stopped the training says more than a log that cannot be closed after it
        with self._writing() if error is None else suppress(OSError):
            self._close()

    def _close(self) -> None:
        try:
            self._file.close()
        finally:
            self._events.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is one clear error."""
        try:
            yield
        except OSError as error:
            raise FewstepError(
                f"cannot write the log of the run folder {self.directory}: {error}."
            ) from error

    def advance(self, step: int, status: Callable[[], str]) -> None:
        """Move the bar, or say where the training is if that is due.

        Args:
            step: number of steps made.
            status: what there is to say of the last ones; asked for only where a line is due.
        """
        if not self.active:
            return
        self._bar.update(self._task, completed=step)
        if self._lines_shown:
            self._lines.advance(step, status)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Log numbers of a step."""
        if not self.active:
            return
        with self._writing():
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._events.numbers(step, metrics)
        self._told.numbers(step, metrics)
        if "loss" in metrics:
            status = describe(metrics["loss"], metrics["images_per_second"])
            self._bar.update(self._task, status=status)

    def picture(self, step: int, image: Tensor) -> None:
        """Log a grid [C, H, W] uint8."""
        if self.active:
            with self._writing():
                self._events.picture(step, "samples", image)
            self._told.picture(step, "samples", image)

    def say(self, line: str) -> None:
        """Tell the user something, without breaking the bar."""
        if self.active:
            self.console.print(line, soft_wrap=True)


def _outcome(error: BaseException | None) -> Outcome:
    """How a training ended, by what ended it."""
    if error is None:
        return "finished"
    return "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"


def describe(loss: float, images_per_second: float) -> str:
    """A few words on a training's last steps."""
    return f"loss {loss:.4g}, {images_per_second:,.0f} images/s"
