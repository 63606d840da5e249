"""What is going to be done, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fewstep.planning.choices import Choices
from fewstep.planning.prepared import Prepared
from fewstep.planning.round import Round
from fewstep.planning.state import State


@dataclass(frozen=True)
class Plan:
    """What is going to be done, and why.

    Args:
        said: sentences on what it begins with.
        choices: with their reasons.
        round: the stages that are left.
        state: of the folder.
        few: name of the model of few steps.
        prepared: images that the folder does not hold yet.
        spent: seconds of earlier budgets.
    """

    said: tuple[str, ...]
    choices: Choices
    round: Round
    state: State
    few: str
    prepared: Prepared | None = None
    spent: float = 0.0

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        chosen = self.choices.made.items()
        named = [f"{name:<12}{shown(choice.value)}: {choice.why}" for name, choice in chosen]
        return [*self.said, *named, *self.round.lines(self.state, self.round.budget - self.spent)]


def shown(value: Any) -> str:
    """A choice's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
