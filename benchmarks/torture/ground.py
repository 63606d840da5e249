"""Where commands are tortured: children of one process that has imported everything already.

A command is a fork of this process, so that it costs some hundredths of a second instead of the
seconds that importing torch takes, and thousands can be tried.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ALLOWED = (0, 1, 2, 130)  # done; something was not scored; a user's mistake; interrupted
MOST_LINES = 12  # of an error
GIB = 2**30


@dataclass
class Outcome:
    """How a command ended.

    Args:
        arguments: what was called.
        code: exit code; below 0 the signal that ended it; None where it ran over its time.
        said: what it wrote to stdout and stderr.
        error: what it wrote to stderr.
    """

    arguments: list[str]
    code: int | None
    said: str
    error: str

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None for a command that did its work or refused clearly."""
        if self.code is None:
            return "did not end in its time"
        if self.code < 0:
            return f"was ended by {signal.Signals(-self.code).name}"
        if "Traceback (most recent call last)" in self.said:
            return f"traceback: {self.last_line}"
        if self.code not in ALLOWED:
            return f"exit code {self.code}: {self.last_line}"
        if self.code and not self.error.strip():
            return f"exit code {self.code} without a word"
        if self.code and len(self.error.splitlines()) > MOST_LINES:
            return f"an error of {len(self.error.splitlines())} lines"
        return None

    @property
    def last_line(self) -> str:
        return (self.error.strip().splitlines() or [""])[-1][:200]


@dataclass
class Tally:
    """What a campaign tried and what went wrong."""

    name: str
    tried: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def count(self, what: str, fault: str | None = None) -> None:
        self.tried[what] = self.tried.get(what, 0) + 1
        if fault is not None:
            self.faults.append(f"{what}: {fault}")

    def judge(self, what: str, outcome: Outcome) -> None:
        """Count a command, and its fault if it has one."""
        words = " ".join(map(repr, outcome.arguments))
        told = None if outcome.fault is None else f"{outcome.fault} -- fewstep {words[:300]}"
        self.count(what, told)


class Ground:
    """A folder to work in, and a way to call fewstep there.

    Args:
        folder: an empty folder; commands run in it, with a cache of their own.
        seconds: how long a command may take.
        memory: bytes that a command may allocate beyond what this process has.
    """

    def __init__(self, folder: Path, seconds: float = 60.0, memory: int = 4 * GIB) -> None:
        self.folder, self.seconds, self.memory = folder, seconds, memory
        os.environ["FEWSTEP_CACHE"] = str(folder / "cache")
        os.environ["OMP_NUM_THREADS"] = "1"
        _import_everything()

    def start(self, *arguments: object, before: Callable[[], object] | None = None) -> Child:
        """Start a command; ``before`` is called in its process first."""
        return Child([str(a) for a in arguments], self, before)

    def run(self, *arguments: object, before: Callable[[], object] | None = None) -> Outcome:
        """Run a command to its end."""
        return self.start(*arguments, before=before).wait()


class Child:
    """A command that runs."""

    def __init__(
        self, arguments: list[str], ground: Ground, before: Callable[[], object] | None
    ) -> None:
        self.arguments, self.ground = arguments, ground
        self.out, self.error = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(before)

    def _become(self, before: Callable[[], object] | None) -> None:
        code = 70
        try:
            os.setsid()
            os.chdir(self.ground.folder)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for number, file in enumerate((nothing, self.out.fileno(), self.error.fileno())):
                os.dup2(file, number)
            limit = _allocated() + self.ground.memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            if before is not None:
                before()
            sys.argv = ["fewstep", *self.arguments]
            from fewstep.cli import run

            code = run(self.arguments)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float | None = None) -> Outcome:
        """How it ended, or that it did not: then it is killed."""
        end = time.monotonic() + (seconds or self.ground.seconds)
        code: int | None = None
        while code is None and time.monotonic() < end:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.005)
        if code is None:
            self.kill()
        texts = [self._text(file) for file in (self.out, self.error)]
        return Outcome(self.arguments, code, "".join(texts), texts[1])

    def kill(self) -> None:
        """End it, with SIGKILL, and what it started."""
        os.killpg(os.getpgid(self.pid), signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @staticmethod
    def _text(file: object) -> str:
        file.seek(0)  # type: ignore[attr-defined]
        return file.read().decode(errors="replace")  # type: ignore[attr-defined]


def _allocated() -> int:
    """Bytes of address space of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _import_everything() -> None:
    """Import what commands import, on one thread, so that a fork has no thread to miss."""
    import pyarrow.parquet
    import sklearn.datasets  # noqa: F401
    import torch

    torch.set_num_threads(1)
    import fewstep.cli.edit
    import fewstep.cli.evaluate
    import fewstep.cli.pairs
    import fewstep.cli.sample
    import fewstep.cli.serve
    import fewstep.cli.train
    import fewstep.cli.tune_steps
    import fewstep.runs.execute
    import fewstep.serving  # noqa: F401

    pyarrow.set_cpu_count(1)


SMALL_RUN = (
    "--steps=24",
    "--batch=16",
    "--log-every=4",
    "--sample-every=12",
    "--samples=4",
    "--checkpoint-every=3",
    "--warmup=4",
    "--network.width=16",
    "--network.blocks=1",
    "--device=cpu",
    "--quiet",
)
"""Flags of a training of the digits that takes a second."""
