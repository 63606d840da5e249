"""What a training is doing: its loss, its gradient and its speed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.training.logbook import describe


@dataclass(frozen=True)
class Reading:
    """What steps have made.

    Args:
        steps: their number.
        seconds: what they took.
        means: of each turn that was made, its mean loss and mean norm of the gradient.
    """

    steps: int
    seconds: float
    means: dict[str, tuple[float, float]]


class Meter:
    """Sums of each turn's loss and gradient's norm, kept on the device so that no step waits.

    The first step whose loss or gradient is not finite is remembered.

    Args:
        group: the processes that train together.
        saved: step of the last good checkpoint; 0 for none.
        turns: names of the objective's turns.
    """

    def __init__(self, group: Processes, saved: int, turns: Sequence[str]) -> None:
        self.group = group
        self.saved = saved
        self.turns = tuple(turns)
        self._bad = {turn: torch.tensor(math.inf, device=group.device) for turn in self.turns}
        self._reset()

    def _reset(self) -> None:
        self._sums = {turn: torch.zeros(2, device=self.group.device) for turn in self.turns}
        self._made = dict.fromkeys(self.turns, 0)
        self._steps, self._since = 0, time.perf_counter()

    def add(self, k: int, made: Mapping[str, Tensor]) -> None:
        """Loss and norm [2] of each turn that step ``k`` made."""
        for turn, values in made.items():
            bad = torch.where(values.isfinite().all(), math.inf, float(k))
            self._bad[turn] = torch.minimum(self._bad[turn], bad)
            self._sums[turn] += values
            self._made[turn] += 1
        self._steps += 1

    def check(self) -> None:
        """Raise `FewstepError` if a loss or gradient was not finite."""
        first = {turn: -self.group.max(-bad) for turn, bad in self._bad.items()}
        turn = min(first, key=lambda turn: first[turn])
        if first[turn] < math.inf:
            of = f" of the turn {turn}" if len(self.turns) > 1 else ""
            rest = f" The last good checkpoint is of step {self.saved}." if self.saved else ""
            raise FewstepError(
                f"the loss{of} or its gradient is not finite at step {first[turn]:.0f}.{rest} Try "
                "a lower lr, a longer warmup, clip, or precision fp32; and look for NaN in the "
                "data."
            )

    def read(self) -> Reading:
        """What came since the last call; raises as `check` does."""
        self.check()
        means = {turn: self._mean(turn) for turn, made in self._made.items() if made}
        steps, seconds = self._steps, time.perf_counter() - self._since
        self._reset()
        return Reading(steps, seconds, means)

    def _mean(self, turn: str) -> tuple[float, float]:
        loss, norm = (self.group.mean(self._sums[turn]) / self._made[turn]).tolist()
        return loss, norm

    def glance(self, turn: str, batch: int) -> str:
        """A turn's mean loss here since the last `read`, and the images a second of all."""
        seconds = time.perf_counter() - self._since
        loss = float(self._sums[turn][0]) / max(1, self._made[turn])
        return describe(loss, self._steps * batch / seconds)
