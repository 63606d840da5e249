"""One budget, spent on stages one after the other, each as long as what is left allows.

How many steps a stage makes is decided when it begins: from the time that is left then, its share
of that, and how long a step takes here. It is kept, so that a stage that was interrupted ends where
it was to end.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.planning.budget import duration
from fewstep.planning.state import State
from fewstep.planning.throughput import seconds_per_step
from fewstep.runs.directory import RunDirectory
from fewstep.runs.run import Run
from fewstep.stages.clock import ALL, Clock
from fewstep.stages.how import How
from fewstep.stages.stage import Stage, Training
from fewstep.stages.stages import Stages

LEAST = 60  # steps that a training must be worth
STARTUP = 6.0  # seconds until a stage's first step, and after its last
MEASURED = 0.004  # part of a budget that timing a stage's steps takes
MOST_MEASURED = 3.0  # seconds of it
SLACK = 1.2  # times its share of a budget that a stage may take


@dataclass(frozen=True)
class Timed:
    """A stage whose length is a share of a budget.

    Args:
        name: of its folder.
        share: of the budget, beside those of the other stages and of what comes after them.
        stage: makes the stage of so many steps.
        run: a training to time; None for what is not timed by its steps.
        seconds: of a step, where there is no run.
        there: steps that are made already.
        unit: what is counted.
        at_once: how many of these take as long as a step.
    """

    name: str
    share: float
    stage: Callable[[int], Stage]
    run: Run | None = None
    seconds: float = 0.0
    there: int = 0
    unit: str = "steps"
    at_once: float = 1.0


class Round:
    """A budget and the stages that it is spent on.

    Args:
        directory: of the plan.
        budget: seconds, of all calls together.
        stages: in their order.
        after: share that is left for what comes after them.
        data: images, to time steps on.
        how: the stages are run, one at a time.
    """

    def __init__(
        self,
        directory: Path,
        budget: float,
        stages: Sequence[Timed],
        after: float,
        data: Dataset,
        how: How,
    ) -> None:
        self.directory, self.budget, self.stages, self.after = directory, budget, stages, after
        self.data, self.how = data, replace(how, workers=1)
        self._step: dict[str, float] = {}

    def step_seconds(self, timed: Timed) -> float:
        """How long a step of a stage takes here, measured once a call."""
        if timed.name not in self._step:
            brief = min(MOST_MEASURED, MEASURED * self.budget)
            self._step[timed.name] = (
                timed.seconds
                if timed.run is None
                else seconds_per_step(
                    timed.run,
                    self.data,
                    device=self.how.device,
                    threads=self.how.threads,
                    seconds=brief,
                )
                / timed.at_once
            )
        return self._step[timed.name]

    def steps(self, timed: Timed, left: float) -> int:
        """How many steps a stage makes in its share of the seconds that are left."""
        seconds = self._share(timed) * left - STARTUP
        return timed.there + max(1, int(max(0.0, seconds) / self.step_seconds(timed)))

    def _share(self, timed: Timed) -> float:
        """Of what is left when it begins."""
        rest = self.stages[self.stages.index(timed) :]
        return timed.share / (sum(other.share for other in rest) + self.after)

    def check(self, left: float) -> None:
        """Raise `FewstepError` for a budget in which a stage would not be worth its start."""
        shortest = max(
            (LEAST * self.step_seconds(timed) + STARTUP) / self._of_all(timed)
            for timed in self.stages
        )
        if left < shortest:
            done = self.budget - left
            raise FewstepError(
                f"a budget of {duration(self.budget)} is too short here: the shortest that is "
                f"worth it is --budget {duration(_rounded(done + shortest))}."
            )

    def _of_all(self, timed: Timed) -> float:
        return timed.share / (sum(other.share for other in self.stages) + self.after)

    def lines(self, state: State, left: float) -> list[str]:
        """What each stage is going to do, for people."""
        found = []
        for timed in self.stages:
            if (begun := state.steps.get(timed.name)) is not None:
                found.append(f"{timed.name:<12}{begun:,} {timed.unit}, which were begun")
                continue
            seconds = max(0.0, self._of_all(timed) * left)
            n = max(1, int(max(0.0, seconds - STARTUP) / self.step_seconds(timed)))
            there = f" more, on top of {timed.there:,}" if timed.there else ""
            found.append(f"{timed.name:<12}{duration(seconds)}: about {n:,} {timed.unit}{there}")
        after = self.after / (sum(timed.share for timed in self.stages) + self.after) * left
        return [*found, f"{'scores':<12}{duration(max(0.0, after))}: samples, scores, the page"]

    def run(self, state: State, clock: Clock) -> State:
        """Run what is not there yet; the folder's state afterwards."""
        made: list[Stage] = []
        for timed in self.stages:
            left = self.budget - clock.so_far(ALL)
            if timed.name not in state.steps:
                state = self._lasting(state, timed, self.steps(timed, left))
            stage = timed.stage(state.steps[timed.name])
            within = SLACK * max(self._share(timed) * left, self.budget / 10)
            if not self._run([*made, stage], clock, within):
                state, stage = self._cut(state, timed, stage)
                self._run([*made, stage], clock)
            made.append(stage)
        return state

    def _run(self, stages: Sequence[Stage], clock: Clock, within: float = math.inf) -> bool:
        return Stages(stages, self.directory, clock, self.how).run(within)

    def _lasting(self, state: State, timed: Timed, steps: int) -> State:
        """The state with a number of steps, which is kept."""
        kept = replace(state, steps={**state.steps, timed.name: steps})
        return kept.write(self.directory)

    def _cut(self, state: State, timed: Timed, stage: Stage) -> tuple[State, Stage]:
        """A stage that took longer than foreseen, ended with the steps that it has made.

        One that has made none, or all of them, goes on until nothing is left to do.
        """
        latest = RunDirectory(self.directory / timed.name).checkpoints.latest()
        planned = state.steps[timed.name]
        if not isinstance(stage, Training) or latest is None or latest.step >= planned:
            return state, stage
        warnings.warn(
            f"{timed.name} was slower than measured: it ends after {latest.step:,} of "
            f"{planned:,} steps, so that the budget is kept.",
            FewstepWarning,
            stacklevel=3,
        )
        state = self._lasting(state, timed, latest.step)
        return state, timed.stage(latest.step)


def _rounded(seconds: float) -> float:
    """Up to a number that people say."""
    unit = 10.0 if seconds < 120 else 60.0
    return unit * -(-seconds // unit)
