"""Variance preserving processes in continuous time, and sub-VP.

``x_t = alpha x + sigma z`` with ``sigma^2 = 1 - alpha^2`` (sub-VP: ``sigma = 1 - alpha^2``) on
[0, 1]. All of it follows from ``ln alpha(t)``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Citation
from fewstep.parameterization.process import PROCESSES, Process
from fewstep.precision import widest


@dataclass(frozen=True)
class VariancePreserving(Process):
    """What the processes of this file share."""

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """``ln alpha(t)``, 0 at ``t = 0``."""

    @abstractmethod
    def log_alpha_dot(self, t: Tensor) -> Tensor:
        """Its derivative, ``-beta(t) / 2``."""

    @abstractmethod
    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The inverse of `log_alpha`."""

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self.log_alpha_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -(self.alpha(t) ** 2) * self.log_alpha_dot(t) / self.sigma(t)

    @property
    def grid(self) -> str:
        """Even in log-SNR (Lu et al. 2022, Section 3.3): sigma/alpha runs to hundreds at ``T``."""
        return "log_snr"

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # alpha^2 = 1 / (1 + e^(-2 lambda)); near the data alpha rounds to 1, so its logarithm
        # is taken in double precision
        log_alpha = -torch.nn.functional.softplus(-2 * widest(log_snr)) / 2
        return self.time_of_log_alpha(log_alpha).to(log_snr.dtype)


@PROCESSES.register("vp")
@dataclass(frozen=True)
class LinearBetas(VariancePreserving):
    """DDPM's linear betas in continuous time: ``beta(t) = beta_min + t (beta_max - beta_min)``.

    ``ln alpha = -t^2 (beta_max - beta_min)/4 - t beta_min/2``; Song et al. 2021 (Score SDE),
    Eq. 33 of its Appendix C.
    """

    citation: ClassVar[Citation] = ("ho2020denoising", "song2021score")

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise FewstepError(
                f"need 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}."
            )

    def log_alpha(self, t: Tensor) -> Tensor:
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        return -(self.beta_min + t * (self.beta_max - self.beta_min)) / 2

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        # the positive root of the quadratic, in the form that does not cancel near 0
        half = self.beta_min / 2
        root = (half**2 - (self.beta_max - self.beta_min) * log_alpha).sqrt()
        return -2 * log_alpha / (half + root)


@PROCESSES.register("sub_vp")
@dataclass(frozen=True)
class SubVariancePreserving(LinearBetas):
    """Sub-VP: the alpha of ``vp`` with the smaller noise ``sigma = 1 - alpha^2``.

    Song et al. 2021 (Score SDE), Eq. 29 in Appendix B.
    """

    citation = "song2021score"

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -2 * self.alpha(t) ** 2 * self.log_alpha_dot(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # E = alpha / (1 - alpha^2) is a quadratic in alpha with the positive root
        # 2 E / (1 + sqrt(1 + 4 E^2)) = 2 / (1/E + sqrt(1/E^2 + 4)); its logarithm, with
        # asinh(1/(2E)) = ln(1/(2E) + sqrt(1/(4E^2) + 1)), has no cancellation
        log_alpha = -torch.asinh((-widest(log_snr)).exp() / 2)
        return self.time_of_log_alpha(log_alpha).to(log_snr.dtype)


@PROCESSES.register("vp_cosine")
@dataclass(frozen=True)
class Cosine(VariancePreserving):
    """The cosine schedule in continuous time: ``alpha = cos(u(t)) / cos(u(0))``.

    ``u(t) = pi/2 (t + s)/(1 + s)`` (Nichol & Dhariwal 2021, Eq. 17, whose alpha-bar is the square).
    ``alpha(1) = 0``, so the process ends a little earlier.

    Args:
        T: largest time; 0.9946 as in DPM-Solver (Lu et al. 2022, Appendix D.4).
        s: offset that keeps the first steps from being too small.
    """

    citation = "nichol2021improved"

    T: float = 0.9946
    s: float = 0.008

    def __post_init__(self) -> None:
        if not (self.s > 0 and self.T < 1):
            raise FewstepError(f"need s > 0 and T < 1, got s={self.s} and T={self.T}.")

    @property
    def _rate(self) -> float:
        """``du/dt``."""
        return math.pi / 2 / (1 + self.s)

    @property
    def _cos_0(self) -> float:
        return math.cos(self.s * self._rate)

    def log_alpha(self, t: Tensor) -> Tensor:
        # cos u - cos u_0 as a product, which keeps its digits where the two are close
        half, mean = t * (self._rate / 2), (t / 2 + self.s) * self._rate
        return torch.log1p(-2 * half.sin() * mean.sin() / self._cos_0)

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        return -((t + self.s) * self._rate).tan() * self._rate

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        angle = torch.acos((log_alpha.exp() * self._cos_0).clamp(max=self._cos_0))
        return angle / self._rate - self.s
