"""What a training is doing: its loss, its gradient and its speed."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.training.logbook import describe


class Meter:
    """Sums of the loss and the gradient's norm, kept on the device so that no step waits for it.

    The first step whose loss or gradient is not finite is remembered.

    Args:
        group: the processes that train together.
        saved: step of the last good checkpoint; 0 for none.
    """

    def __init__(self, group: Processes, saved: int) -> None:
        self.group = group
        self.saved = saved
        self._bad = torch.tensor(math.inf, device=group.device)
        self._reset()

    def _reset(self) -> None:
        self._sums = torch.zeros(2, device=self.group.device)
        self._steps, self._since = 0, time.perf_counter()

    def add(self, k: int, loss: Tensor, norm: Tensor) -> None:
        values = torch.stack([loss, norm])
        bad = torch.where(values.isfinite().all(), math.inf, float(k))
        self._bad = torch.minimum(self._bad, bad)
        self._sums += values
        self._steps += 1

    def check(self) -> None:
        """Raise `FewstepError` if a loss or gradient was not finite."""
        step = -self.group.max(-self._bad)
        if step < math.inf:
            rest = f" The last good checkpoint is of step {self.saved}." if self.saved else ""
            raise FewstepError(
                f"the loss or its gradient is not finite at step {step:.0f}.{rest} Try a lower "
                "lr, a longer warmup, clip, or precision fp32; and look for NaN in the data."
            )

    def read(self) -> tuple[int, float, float, float]:
        """Steps, seconds, mean loss and mean norm since the last call; raises as `check` does."""
        self.check()
        loss, norm = (self.group.mean(self._sums) / self._steps).tolist()
        steps, seconds = self._steps, time.perf_counter() - self._since
        self._reset()
        return steps, seconds, loss, norm

    def glance(self, batch: int) -> str:
        """The mean loss in this process since the last `read`, and the images per second of all."""
        seconds = time.perf_counter() - self._since
        loss = float(self._sums[0]) / max(1, self._steps)
        return describe(loss, self._steps * batch / seconds)
