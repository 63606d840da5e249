"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fewstep.training.loggers.base import LOGGERS, PROJECT, Facts, Logger, Outcome, new_name

INIT = 60.0  # seconds for the service to answer,
FINISH = 45.0  # and to take the rest; what it has not by then stays for `wandb sync`
CODES: dict[Outcome, int] = {"finished": 0, "interrupted": 130, "failed": 1}


@LOGGERS.register("wandb")
@dataclass
class WeightsAndBiases(Logger):
    """Weights & Biases (wandb): online, or offline with WANDB_MODE=offline.

    Nobody is asked to log in: without a login, and without the mode offline, there is no log.

    Args:
        project: of the run.
        entity: user or team; default the one that is logged in.
    """

    project: str = PROJECT
    entity: str | None = None
    library: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"
    _run: Any = field(default=None, init=False, repr=False)

    def start(self, facts: Facts) -> str:
        import wandb

        # Nobody is there to be asked for a login, which only settings of the whole library know.
        wandb.setup(settings=wandb.Settings(silent=True))
        id = facts.id or new_name(facts.name)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=facts.name,
            id=id,
            resume="allow",
            settings=wandb.Settings(
                console="off",  # the bar is no log
                init_timeout=INIT,
                finish_timeout=FINISH,
            ),
        )
        self._run.config.update(dict(facts.config), allow_val_change=True)
        if not self._run.offline:
            facts.say(f"wandb: {self._run.url}")
        return id

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        import wandb

        self._run.log({name: wandb.Image(image)}, step=step)

    def finish(self, step: int, scores: Mapping[str, float], outcome: Outcome) -> None:
        self._run.summary.update(dict(scores))
        self._run.finish(exit_code=CODES[outcome])
