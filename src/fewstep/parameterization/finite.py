"""Processes between data and noise on a finite interval: TrigFlow's and rectified flow's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.parameterization.process import PROCESSES, Process


@PROCESSES.register("trigflow")
@dataclass(frozen=True)
class Circle(Process):
    """``x_t = cos(t) x + sin(t) sigma_data z`` on [0, pi/2] (Lu & Song 2024, Section 3.1).

    Args:
        sigma_data: standard deviation of the data, and here of the noise.
    """

    citation = "lu2024simplifying"

    T: float = math.pi / 2
    sigma_data: float = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        return t.cos()

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * t.sin()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -t.sin()

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.sigma_data * t.cos()

    @property
    def grid(self) -> str:
        """Equal angles: ``dx/dt`` has the same size at all of them (Lu & Song 2024)."""
        return "time"

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.atan((-log_snr).exp() / self.sigma_data)


@PROCESSES.register("rectified_flow")
@dataclass(frozen=True)
class StraightLines(Process):
    """``x_t = (1 - t) x + t z`` on [0, 1] (Liu et al. 2022)."""

    citation = "liu2022flow"

    straight: ClassVar[bool] = True

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)
