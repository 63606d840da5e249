"""``N(k)``: how many points a grid has at training step ``k`` of ``K``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass

from fewstep.errors import FewstepError


class GridSize(ABC):
    """``N(k)``: how many points the time grid has at training step ``k``."""

    @abstractmethod
    def __call__(self, k: int) -> int: ...


@dataclass(frozen=True)
class ConstantN(GridSize):
    """``N(k) = N``."""

    N: int

    def __call__(self, k: int) -> int:
        return self.N


@dataclass(frozen=True)
class SquareRootN(GridSize):
    """``N(k) = ceil(sqrt(k/K ((s1+1)^2 - s0^2) + s0^2) - 1) + 1``; Song et al. 2023, App. C.

    At least 2, where ``s0 = 1`` would give 1 point at the first step, as in the authors' code.
    """

    s0: int
    s1: int
    K: int

    def __post_init__(self) -> None:
        _check_range(self.s0, self.s1, self.K)

    def __call__(self, k: int) -> int:
        root = math.sqrt(k / self.K * ((self.s1 + 1) ** 2 - self.s0**2) + self.s0**2)
        return max(1, math.ceil(root - 1)) + 1


@dataclass(frozen=True)
class DoublingN(GridSize):
    """``N(k) = min(s0 2^floor(k/K'), s1) + 1``, ``K' = floor(K/(log2 floor(s1/s0) + 1))``; iCT."""

    s0: int
    s1: int
    K: int

    def __post_init__(self) -> None:
        _check_range(self.s0, self.s1, self.K)

    def __call__(self, k: int) -> int:
        every = max(1, math.floor(self.K / (math.log2(self.s1 // self.s0) + 1)))
        return min(self.s0 * 2 ** (k // every), self.s1) + 1


@dataclass(frozen=True)
class GeometricN(GridSize):
    """``N(k) = round(s0 (s1/s0)^min(1, k/steps))``: even in its logarithm, then ``s1``.

    The teacher's steps of multistep consistency models (Heek, Hoogeboom, Salimans 2024).
    Like `HalvingN` it counts steps, not points.
    """

    s0: int
    s1: int
    steps: int

    def __post_init__(self) -> None:
        _check_range(self.s0, self.s1, self.steps)

    def __call__(self, k: int) -> int:
        return round(self.s0 * (self.s1 / self.s0) ** min(1.0, k / self.steps))


@dataclass(frozen=True)
class HalvingN(GridSize):
    """``N(k)``: the student's steps, ``start / 2``, ``start / 4``, ..., ``final``, round by round.

    Rounds of 1 and 2 steps last twice as long as the others (Salimans & Ho 2022, Section 5).
    Unlike the other sizes it counts steps, not points.
    """

    start: int
    final: int
    K: int

    def __post_init__(self) -> None:
        halvings = self.start / max(1, self.final)
        if self.final < 1 or halvings < 2 or not math.log2(halvings).is_integer():
            raise FewstepError(
                "progressive distillation halves start_steps once or more down to final_steps, "
                f"such as from 16 to 1; got {self.start} and {self.final}."
            )

    @property
    def rounds(self) -> list[int]:
        """The student's steps of each round."""
        count = int(math.log2(self.start // self.final))
        return [self.start >> (i + 1) for i in range(count)]

    @property
    def ends(self) -> list[int]:
        """The first step after each round."""
        lengths = [2 if N <= 2 else 1 for N in self.rounds]
        return [sum(lengths[: i + 1]) * self.K // sum(lengths) for i in range(len(lengths))]

    def _index(self, k: int) -> int:
        return min(bisect_right(self.ends, k), len(self.rounds) - 1)

    def __call__(self, k: int) -> int:
        return self.rounds[self._index(k)]

    def round_of(self, k: int) -> tuple[int, int]:
        """First step of the round of step ``k``, and first step after it."""
        i = self._index(k)
        return ([0, *self.ends][i], self.ends[i])


def _check_range(s0: int, s1: int, K: int) -> None:
    if not (1 <= s0 <= s1 and K >= 1):
        raise FewstepError(f"need 1 <= s0 <= s1 and K >= 1, got s0={s0}, s1={s1}, K={K}.")
