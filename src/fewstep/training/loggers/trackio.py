"""trackio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fewstep.training.loggers.base import (
    LOGGERS,
    PROJECT,
    Facts,
    Logger,
    Outcome,
    new_name,
)


@LOGGERS.register("trackio")
@dataclass
class Trackio(Logger):
    """trackio: on this machine, where `trackio show` shows it, or in a Space of the hub.

    Args:
        project: of the run.
        space: OWNER/NAME of a Space; default TRACKIO_SPACE_ID, else this machine.
    """

    project: str = PROJECT
    space: str | None = None
    library: ClassVar[str] = "trackio"
    extra: ClassVar[str] = "trackio"
    _run: Any = field(default=None, init=False, repr=False)

    def start(self, facts: Facts) -> str:
        import trackio

        name = facts.id or new_name(facts.name)  # it goes on by the name
        self._run = trackio.init(
            project=self.project,
            name=name,
            space_id=self.space,
            config=dict(facts.config),
            resume="allow",
            embed=False,
        )
        return name

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        import trackio

        self._run.log({name: trackio.Image(image)}, step=step)

    def finish(self, step: int, scores: Mapping[str, float], outcome: Outcome) -> None:
        self.numbers(step, scores)
        self._run.finish()
