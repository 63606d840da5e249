"""How stages are run: how many at a time, where, how long, and who else is told."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fewstep.errors import FewstepError
from fewstep.training.loggers import loggers_of

LONGEST = 100.0


@dataclass(frozen=True, kw_only=True)
class How:
    """How stages are run.

    Args:
        workers: stages at a time; default one per core, at most as many as there are.
        threads: of each stage; default its share of the cores.
        device: where to train; default a GPU where there is one.
        shorten: factor on the number of steps of every training, and on the number of pairs.
        log: loggers of every training, as its ``--log`` takes them.

    Raises:
        FewstepError: no workers, no sensible factor, a logger that there is not.
    """

    workers: int | None = None
    threads: int | None = None
    device: str | None = None
    shorten: float = 1.0
    log: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise FewstepError(f"the number of workers must be at least 1, got {self.workers}.")
        if not 0 < self.shorten <= LONGEST:
            raise FewstepError(f"shorten must be a factor above 0, got {self.shorten}.")
        loggers_of(self.log)


USUAL = How()
"""One at a time for each core, as long as it takes, and nobody else is told."""


def cores() -> int:
    """Cores of the CPU that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
