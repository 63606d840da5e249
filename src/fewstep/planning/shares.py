"""Lay stages out within a budget: each has a share of it, and as many steps as fit into that."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from fewstep.errors import FewstepError
from fewstep.stages.stage import Stage


def makespan(stages: Sequence[Stage], lengths: Mapping[str, float], workers: int) -> float:
    """When the last of several stages ends, run as `fewstep.stages.stages.Stages` runs them.

    Args:
        stages: in the order in which they wait; each starts once those that it requires have ended.
        lengths: how long each takes, by name.
        workers: stages at a time.

    Raises:
        FewstepError: a stage waits for one that there is not.
    """
    waiting, running = list(stages), list[tuple[float, str]]()
    finished, now = set[str](), 0.0
    while waiting or running:
        ready = [stage for stage in waiting if finished.issuperset(stage.requires)]
        for stage in ready[: workers - len(running)]:
            waiting.remove(stage)
            heapq.heappush(running, (now + lengths[stage.name], stage.name))
        if not running:
            missing = sorted({name for stage in waiting for name in stage.requires} - finished)
            raise FewstepError(f"stages wait for {', '.join(missing)}, which none of them makes.")
        now, name = heapq.heappop(running)
        finished.add(name)
    return now


def seconds_of(
    stages: Sequence[Stage], shares: Mapping[str, float], seconds: float, workers: int
) -> dict[str, float]:
    """Seconds for each stage, in the proportions of their shares, so that all end in time.

    Args:
        stages: what is to run.
        shares: relative lengths, by name.
        seconds: when the last of them has to end.
        workers: stages at a time.
    """
    unit = seconds / makespan(stages, shares, workers)
    return {stage.name: unit * shares[stage.name] for stage in stages}
