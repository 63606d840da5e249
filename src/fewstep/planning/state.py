"""What a plan's folder keeps, so that the next call goes on with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.files import read_json, write_json
from fewstep.records import record_of
from fewstep.runs.directory import KINDS
from fewstep.stages.clock import CLOCK

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class State:
    """A plan's folder so far.

    Args:
        kind: fit or distil.
        source: what it is made from: images or a teacher.
        fingerprint: of these images or that teacher.
        choices: value and reason of each.
        steps: of each stage that was begun, or that is to be.
        rounds: budgets that were spent, in seconds.
        budget: that is being spent; 0 where none is.
    """

    kind: str
    source: str
    fingerprint: str
    choices: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    rounds: tuple[float, ...] = ()
    budget: float = 0.0

    def write(self, directory: Path) -> State:
        """Keep it in a folder."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / PLAN, asdict(self))
        return self


def read_state(directory: Path, kind: str) -> State | None:
    """What a folder keeps; None where nothing was begun there.

    Raises:
        FewstepError: it is damaged, or of the other command.
    """
    path = directory / PLAN
    for file, what in KINDS.items():
        if (directory / file).is_file() and file != PLAN and not (file == CLOCK and path.exists()):
            raise FewstepError(f"{directory} holds {what}: give another --out.")
    if not path.exists():
        return None
    state = read_json(path, lambda stored: record_of(State, stored, "it"), "a plan")
    if state.kind != kind:
        raise FewstepError(
            f"{directory} is of fewstep {state.kind}, not {kind}: give another --out."
        )
    return state
