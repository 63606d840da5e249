"""A number that falls over a training: values ``a(k)``, from 1 or another start towards 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewstep.errors import FewstepError


@dataclass(frozen=True)
class SigmoidFall:
    """``1 - sigmoid(steepness (2 k / K - a - b) / (2 (b - a)))`` on steps ``a K`` to ``b K``.

    alpha-Flow (Zhang et al. 2025): 1 at the start, next to 0 at the end, at 1/2 in the middle. What
    is within ``least`` of an end is that end: 1 above, ``least`` below.

    Args:
        K: total number of training steps.
        start: ``a``, part of the training at which it begins to fall.
        end: ``b``, part of the training at which it has fallen.
        steepness: of the fall.
        least: where it ends.
    """

    K: int
    start: float = 0.0
    end: float = 1.0
    steepness: float = 25.0
    least: float = 0.005

    def __post_init__(self) -> None:
        if not (0 <= self.start < self.end <= 1 and self.steepness > 0 and 0 < self.least < 1):
            raise FewstepError(
                "what falls needs 0 <= start < end <= 1, steepness > 0 and 0 < least < 1, got "
                f"{self.start}, {self.end}, {self.steepness} and {self.least}."
            )

    def __call__(self, k: int) -> float:
        middle, width = (self.start + self.end) / 2, self.end - self.start
        x = self.steepness * (k / self.K - middle) / width
        value = 1 / (1 + math.exp(min(x, 700.0)))
        return 1.0 if value > 1 - self.least else max(value, self.least)


@dataclass(frozen=True)
class ExponentialFall:
    """``first (last / first)^(k / K)``; SoFlow (Luo et al. 2025).

    Args:
        K: total number of training steps.
        first: at the first step.
        last: at the end.
    """

    K: int
    first: float
    last: float

    def __post_init__(self) -> None:
        if not 0 < self.last <= self.first <= 1:
            raise FewstepError(
                "what falls needs 0 < last <= first <= 1, got last "
                f"{self.last} and first {self.first}."
            )

    def __call__(self, k: int) -> float:
        return self.first * (self.last / self.first) ** min(k / self.K, 1.0)
