"""Run the trainings of a reproduction side by side, and show them all.

Small networks do not fill a machine, so each training is a process of its own with its share of
the cores; one that needs a teacher waits for it. A stage that has finished is not run again, and
one that was interrupted is taken up where it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fewstep.errors import FewstepError
from fewstep.recipes import RECIPES
from fewstep.recipes.directory import RunDirectory
from fewstep.report.plan import Stage
from fewstep.training.logbook import read_metrics

INTERRUPTED = 130  # exit code of a training that was asked to stop
POLL = 0.3  # seconds between two looks at the trainings


@dataclass
class Running:
    """A training process."""

    stage: Stage
    process: subprocess.Popen[bytes]
    log: Path


class Stages:
    """Runs stages in a folder.

    Args:
        stages: what to train.
        directory: the reproduction's folder; each stage has a subfolder.
        workers: trainings at a time; default one per core, at most as many as stages.
        shorten: factor on the number of steps of every training.
        device: where to train; default a GPU where there is one.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        directory: Path,
        *,
        workers: int | None = None,
        shorten: float = 1.0,
        device: str | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise FewstepError(f"the number of workers must be at least 1, got {workers}.")
        self.stages, self.directory = stages, directory
        self.shorten, self.device = shorten, device
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.workers = workers or max(1, min(cores or 1, len(stages)))
        self.threads = max(1, (cores or 1) // self.workers)
        self.console = Console(stderr=True)

    def folder(self, name: str) -> Path:
        """The run folder of a stage."""
        return self.directory / name

    def finished(self, stage: Stage) -> bool:
        return RunDirectory(self.folder(stage.name)).finished

    def steps(self, stage: Stage) -> int:
        """Training steps of a stage."""
        return max(1, round(RECIPES[stage.recipe]().training.steps * self.shorten))

    def run(self) -> None:
        """Train whatever is not trained yet.

        Raises:
            FewstepError: a training failed; its log is named.
            KeyboardInterrupt: after every training has saved its state.
        """
        waiting = [stage for stage in self.stages if not self.finished(stage)]
        running: list[Running] = []
        with self._bars() as bars:
            tasks = {s.name: self._task(bars, s) for s in self.stages}
            seen = any(self._pictures())
            try:
                while waiting or running:
                    self._launch(waiting, running)
                    time.sleep(POLL)
                    for stage in self.stages:
                        self._show(bars, tasks[stage.name], stage)
                    if not seen and (pictures := self._pictures()):
                        seen = True
                        self.console.print(f"first picture: {pictures[0]}", highlight=False)
                    running = [r for r in running if not self._done(r)]
            except BaseException:
                self._stop(running)
                raise

    def _launch(self, waiting: list[Stage], running: list[Running]) -> None:
        ready = [
            s for s in waiting if s.teacher is None or RunDirectory(self.folder(s.teacher)).finished
        ]
        for stage in ready[: self.workers - len(running)]:
            waiting.remove(stage)
            running.append(self._start(stage))

    def _start(self, stage: Stage) -> Running:
        command = [sys.executable, "-m", "fewstep", "train", stage.recipe, "--quiet"]
        command += ["--out", str(self.folder(stage.name)), "--steps", str(self.steps(stage))]
        if stage.teacher:
            command += ["--teacher", str(self.folder(stage.teacher))]
        if self.device:
            command += ["--device", self.device]
        log = self.directory / f"{stage.name}.log"
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment
            )
        return Running(stage, process, log)

    def _done(self, running: Running) -> bool:
        code = running.process.poll()
        if code is None:
            return False
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            lines = running.log.read_text(errors="replace").strip().splitlines()
            last = lines[-1].removeprefix("fewstep: ") if lines else f"exit code {code}"
            raise FewstepError(
                f"training {running.stage.recipe} failed: {last} (log: {running.log})"
            )
        self.console.print(f"trained {running.stage.name}", highlight=False)
        return True

    def _stop(self, running: list[Running]) -> None:
        """Ask the trainings to save and stop, and wait for them."""
        alive = [r for r in running if r.process.poll() is None]
        if alive:
            self.console.print("saving the trainings...")
        for r in alive:
            r.process.send_signal(signal.SIGTERM)
        for r in alive:
            r.process.wait()

    def _pictures(self) -> list[Path]:
        return sorted(self.directory.glob("*/samples/*.png"))

    def _bars(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )

    def _task(self, bars: Progress, stage: Stage) -> TaskID:
        return bars.add_task(
            f"{stage.name:<4} {RECIPES[stage.recipe]().objective.name}",
            total=self.steps(stage),
            status="waiting",
        )

    def _show(self, bars: Progress, task: TaskID, stage: Stage) -> None:
        lines = [line for line in read_metrics(self.folder(stage.name)) if "loss" in line]
        if lines:
            status = f"loss {lines[-1]['loss']:.4f}"
            bars.update(task, completed=int(lines[-1]["step"]), status=status)
