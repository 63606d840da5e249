"""Parameterizations on a finite interval between data and noise: TrigFlow and rectified flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization
from fewstep.parameterization.finite import Circle, StraightLines
from fewstep.parameterization.preconditioning import (
    MeanVelocity,
    Preconditioning,
    Trigonometric,
)
from fewstep.parameterization.process import Process


@PARAMETERIZATIONS.register("trigflow")
@dataclass(frozen=True)
class TrigFlow(Parameterization):
    """``x_t = cos(t) x + sin(t) sigma_data z`` on [0, pi/2] (Lu & Song 2024, Section 3.1)."""

    eps: float = 0.0
    T: float = math.pi / 2
    sigma_data: float = 0.5

    def _process(self) -> Process:
        return Circle(self.T, self.sigma_data)

    def _preconditioning(self) -> Preconditioning:
        return Trigonometric(self.sigma_data)


@PARAMETERIZATIONS.register("rectified_flow")
@dataclass(frozen=True)
class RectifiedFlow(Parameterization):
    """``x_t = (1 - t) x + t z`` on [0, 1]; ``F`` is the mean velocity (Liu et al. 2022)."""

    eps: float = 0.0
    T: float = 1.0

    def _process(self) -> Process:
        return StraightLines(self.T)

    def _preconditioning(self) -> Preconditioning:
        return MeanVelocity(self.sigma_data)
