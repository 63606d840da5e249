"""Run stages side by side, and show them all.

Small networks do not fill a machine, so each stage is a process of its own with its share of
the cores; one that needs another's model or pairs waits for it. A stage that has finished is not
run again, and one that was interrupted is taken up where it was.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeRemainingColumn,
)

from fewstep.errors import FewstepError
from fewstep.progress import Lines, on_terminal
from fewstep.stages.clock import Clock
from fewstep.stages.how import USUAL, How, cores
from fewstep.stages.stage import Stage, Training
from fewstep.terminal import column, console

INTERRUPTED = 130  # exit code of a training that was asked to stop
KEPT = 10.0  # seconds between two times that the clock is kept
POLL = 0.3  # seconds between two looks at the trainings


@dataclass
class Running:
    """A stage's process.

    Args:
        stage: what it makes.
        process: as it was started.
        log: what it prints, behind what earlier processes have printed.
        begins: where in the log that begins, in bytes.
        started: when.
        processor: seconds of all its threads once it has ended; 0 where the system does not tell.
    """

    stage: Stage
    process: subprocess.Popen[bytes]
    log: Path
    begins: int
    started: float
    processor: float = 0.0

    @property
    def why(self) -> str:
        """What made it fail, once it has: a signal, or else the last line that it printed."""
        code = self.process.returncode
        if code < 0:
            return _killed(-code)
        with self.log.open("rb") as file:
            file.seek(self.begins)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("fewstep: ") if lines else f"exit code {code}"

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if hasattr(os, "wait4"):
            self._reap(os.WNOHANG)
        return self.process.poll()

    def wait(self) -> None:
        """Until it has ended."""
        if hasattr(os, "wait4"):
            self._reap(0)
        self.process.wait()

    def _reap(self, flags: int) -> None:
        """Take the exit code together with what the process has used, which is told once."""
        if self.process.returncode is not None:
            return
        with suppress(ChildProcessError):  # taken by somebody else: Popen knows what to do
            pid, status, used = os.wait4(self.process.pid, flags)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.processor = used.ru_utime + used.ru_stime


def _killed(number: int) -> str:
    """What a signal that ended a process mostly means, and what to do."""
    name = {s.value: s.name for s in signal.Signals}.get(number, "")
    killed, again = f"it was killed by signal {number} {name}".rstrip(), "the same command goes on"
    if name == "SIGKILL":
        return f"{killed}, most often for want of memory: free some, then {again} where it was"
    return f"{killed}: {again} where it was"


class Stages:
    """Runs stages in a folder.

    Args:
        stages: what to make.
        directory: the reproduction's folder; each stage has a subfolder.
        clock: counts each stage's seconds.
        how: at how many a time, where, how long.
    """

    def __init__(
        self, stages: Sequence[Stage], directory: Path, clock: Clock, how: How = USUAL
    ) -> None:
        self.stages, self.directory, self.clock, self.how = stages, directory, clock, how
        self.workers = how.workers or min(cores(), len(stages))
        self.threads = how.threads or max(1, cores() // self.workers)
        self.console = console(stderr=True)

    def run(self, within: float = math.inf) -> bool:
        """Make whatever is not there yet.

        Args:
            within: seconds after which the stages that run save their state and stop.

        Returns:
            Whether all is there.

        Raises:
            FewstepError: a stage failed; its log is named.
            KeyboardInterrupt: after every stage has saved its state.
        """
        for stage in self.stages:
            stage.check_same(self.directory, self.how.shorten)
        finished = {s.name for s in self.stages if s.finished(self.directory)}
        waiting = [stage for stage in self.stages if stage.name not in finished]
        running: list[Running] = []
        with self._bars() as bars:
            shown = _Shown(bars, self.stages, self.directory, self.how.shorten)
            seen, kept = any(self._pictures()), time.perf_counter()
            end = kept + within
            try:
                while waiting or running:
                    if time.perf_counter() > end:
                        self._stop(running)
                        return False
                    self._launch(waiting, running, finished)
                    time.sleep(POLL)
                    shown.update([r.stage for r in running], len(finished))
                    if time.perf_counter() > kept + KEPT:
                        kept = time.perf_counter()
                        self.clock.keep()
                    if not seen and (pictures := self._pictures()):
                        seen = True
                        self.console.print(f"first picture: {pictures[0]}")
                    for done in [r for r in running if self._done(r)]:
                        running.remove(done)
                        finished.add(done.stage.name)
            except BaseException:
                self._stop(running)
                raise
        return True

    def _launch(self, waiting: list[Stage], running: list[Running], finished: set[str]) -> None:
        names = {stage.name for stage in self.stages}  # what is no stage is there already
        ready = [s for s in waiting if finished.issuperset(names.intersection(s.requires))]
        for stage in ready[: self.workers - len(running)]:
            waiting.remove(stage)
            running.append(self._start(stage))

    def _start(self, stage: Stage) -> Running:
        command = [sys.executable, "-m", "fewstep.cli.child"]
        command += stage.command(self.directory, self.how.shorten)
        if isinstance(stage, Training):
            command.append("--quiet")
            if self.how.log:
                command += ["--log", *self.how.log]
        if self.how.device:
            command += ["--device", self.how.device]
        log = self.directory / f"{stage.name}.log"
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with log.open("ab") as file:
            begins = file.seek(0, os.SEEK_END)
            # A pipe, which closes however this process ends: then the stage ends too.
            process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.PIPE, env=environment
            )
        return Running(stage, process, log, begins, time.perf_counter())

    def _done(self, running: Running) -> bool:
        code = running.poll()
        if code is None:
            return False
        self._count(running)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            raise FewstepError(f"{running.stage.name} failed: {running.why} (log: {running.log})")
        self.console.print(f"made {running.stage.name}")
        return True

    def _count(self, running: Running) -> None:
        seconds = time.perf_counter() - running.started
        self.clock.add(running.stage.name, seconds, running.processor)

    def _stop(self, running: list[Running]) -> None:
        """Ask the stages to save and stop, by closing their pipes, and wait for them."""
        alive = [r for r in running if r.poll() is None]
        if alive:
            self.console.print("saving what is there...")
        for r in alive:
            assert r.process.stdin is not None
            r.process.stdin.close()
        for r in alive:
            r.wait()
            self._count(r)

    def _pictures(self) -> list[Path]:
        return sorted(self.directory.glob("*/samples/*.png"))

    def _bars(self) -> Progress:
        return Progress(
            column("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            column("{task.fields[status]}"),
            column("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not on_terminal(),
        )


class _Shown:
    """A bar for each stage that runs or has run, and one for all of them; lines in a log.

    Args:
        bars: where they stand.
        stages: what there is to make.
        directory, shorten: of the reproduction.
    """

    def __init__(
        self, bars: Progress, stages: Sequence[Stage], directory: Path, shorten: float
    ) -> None:
        self.bars, self.stages, self.directory, self.shorten = bars, stages, directory, shorten
        self._width = max(len(stage.name) for stage in stages)
        self._tasks: dict[str, TaskID] = {}
        self._all: TaskID | None = None
        self._lines: Lines | None = None

    def _begin(self, percent: float) -> TaskID:
        """What an earlier call has made counts as done, and not as made in no time."""
        if not on_terminal():
            self._lines = Lines("all", 100, start=percent, unit="%")
        return self._bar("all", 100, percent)

    def _bar(self, name: str, total: int, done: float = 0) -> TaskID:
        title = f"{name:<{self._width}}"
        return self.bars.add_task(title, total=total, completed=int(done), status="")

    def update(self, running: Sequence[Stage], finished: int) -> None:
        """Move the bars of those that run, and take away those of others that are done."""
        far = [(s, s.progress(self.directory), s.total(self.shorten)) for s in running]
        percent = 100 * (finished + sum(now.done / n for _, now, n in far)) / len(self.stages)
        if self._all is None:
            self._all = self._begin(percent)
        for stage, now, total in far:
            if stage.name not in self._tasks:
                self._tasks[stage.name] = self._bar(stage.name, total, now.done)
            self.bars.update(self._tasks[stage.name], completed=now.done, status=now.status)
        for name in self._tasks.keys() - {stage.name for stage in running}:
            self.bars.remove_task(self._tasks.pop(name))
        status = f"{finished} of {len(self.stages)} made"
        self.bars.update(self._all, completed=percent, status=status)
        if self._lines is not None:
            lines = [f"{stage.name} {now.done:,} of {n:,}" for stage, now, n in far]
            self._lines.advance(percent, lambda: "; ".join([status, *lines]))
