"""What is going to be done, and why."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewstep.flow_map import FlowMap
from fewstep.planning.choices import Choices
from fewstep.planning.prepared import Prepared
from fewstep.planning.round import Round
from fewstep.planning.state import State
from fewstep.stages.clock import ALL, Clock

DATA, FEW = "data", "few"
"""Names in a plan's folder: of its images, and of each round's model of few steps."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is going to be done, and why.

    Args:
        title: of its page.
        lead: the page's first sentence.
        said: sentences on what it begins with.
        choices: with their reasons.
        round: the stages that are left.
        state: of the folder.
        teacher: file of the diffusion model, in the folder, or where it will be.
        prepared: images that the folder does not hold yet.
        copied: the diffusion model, where the folder is to hold a copy of it.
        began: when it began to be made, by `time.perf_counter`: that is a part of the budget.
    """

    title: str
    lead: str
    said: tuple[str, ...]
    choices: Choices
    round: Round
    state: State
    teacher: Path
    prepared: Prepared | None = None
    copied: FlowMap | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def few(self) -> str:
        """Name of the model of few steps."""
        return few_of(self.state)

    def begin(self, clock: Clock) -> State:
        """Fill the folder with what the stages need, and count the time since it was looked at."""
        directory = self.round.directory
        if self.prepared is not None:
            self.prepared.write(directory / DATA)
        if self.copied is not None and not self.teacher.exists():
            self.copied.save(self.teacher)
        clock.add(ALL, time.perf_counter() - self.began)
        return self.state.write(directory)

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        chosen = self.choices.made.items()
        named = [f"{name:<12}{shown(choice.value)}: {choice.why}" for name, choice in chosen]
        left = self.round.budget - Clock(self.round.directory)[ALL]
        return [*self.said, *named, *self.round.lines(self.state, left)]


def few_of(state: State) -> str:
    """The name of a round's model of few steps."""
    return f"{FEW}-{len(state.rounds) + 1}"


def shown(value: Any) -> str:
    """A choice's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
