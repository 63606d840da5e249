"""A score whose error is known, and whose differences between two models are known better still."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SURE = 2.0  # errors that a difference must have to count


class Score(float):
    """An estimate that depends on each sample and each real image a little.

    Args:
        value: the estimate; lower is better.
        of_samples: how much each of the samples adds to it, up to a constant: its influence.
        of_images: the same of each real image.
    """

    of_samples: tuple[float, ...]
    of_images: tuple[float, ...]

    def __new__(
        cls, value: float, of_samples: Sequence[float] = (), of_images: Sequence[float] = ()
    ) -> Score:
        """A number with its influences; without them its error is not known, and taken as 0."""
        score = super().__new__(cls, value)
        score.of_samples, score.of_images = tuple(of_samples), tuple(of_images)
        return score

    @property
    def error(self) -> float:
        """Its standard error."""
        return math.hypot(_error(self.of_samples), _error(self.of_images))

    def error_of_difference(self, other: Score) -> float:
        """Standard error of ``self - other``.

        Two models that were given the same noises and labels, and compared with the same real
        images, share most of the luck in these: what counts is how their influences differ.
        """
        pairs = ((self.of_samples, other.of_samples), (self.of_images, other.of_images))
        return math.hypot(*(_error_of_difference(a, b) for a, b in pairs))

    def tells(self, other: Score) -> bool:
        """Whether it is lower by more than two errors of the difference."""
        return other - self > SURE * self.error_of_difference(other)


def _error(influence: Sequence[float]) -> float:
    n = len(influence)
    return float(np.std(influence, ddof=1)) / math.sqrt(n) if n > 1 else 0.0


def _error_of_difference(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) != len(b):
        return math.hypot(_error(a), _error(b))
    return _error(np.subtract(a, b).tolist())
