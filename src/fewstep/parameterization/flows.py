"""Processes between data and noise on a finite interval: TrigFlow and rectified flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization


@PARAMETERIZATIONS.register("trigflow")
@dataclass(frozen=True)
class TrigFlow(Parameterization):
    """``x_t = cos(t) x + sin(t) sigma_data z`` on [0, pi/2] (Lu & Song 2024, Section 3.1)."""

    eps: float = 0.0
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

    def c_in(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 1 / self.sigma_data)

    def c_noise(self, t: Tensor) -> Tensor:
        return t

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return (t - s).cos()

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return -self.sigma_data * (t - s).sin()


@PARAMETERIZATIONS.register("rectified_flow")
@dataclass(frozen=True)
class RectifiedFlow(Parameterization):
    """``x_t = (1 - t) x + t z`` on [0, 1]; ``F`` is the mean velocity (Liu et al. 2022)."""

    straight: ClassVar[bool] = True

    eps: float = 0.0
    T: float = 1.0

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

    def c_in(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor) -> Tensor:
        return t

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return s - t
