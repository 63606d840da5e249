"""``mu(k)``: the decay of the target's running average at training step ``k``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewstep.errors import FewstepError
from fewstep.schedules.sizes import GridSize


@dataclass(frozen=True)
class TargetDecay:
    """``mu(k) = exp(s0 ln(mu0) / N(k))``; Song et al. 2023, Appendix C."""

    s0: int
    mu0: float
    N: GridSize

    def __post_init__(self) -> None:
        if not 0 < self.mu0 < 1:
            raise FewstepError(f"need 0 < mu0 < 1, got mu0={self.mu0}.")

    def __call__(self, k: int) -> float:
        return math.exp(self.s0 * math.log(self.mu0) / self.N(k))
