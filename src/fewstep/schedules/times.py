"""At which times a model is trained: distributions of ``t``, in every process.

Together with the weighting they say how much each noise level counts: the loss is the mean of
``lambda_(t)`` times the error over these times, not divided by their density.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization import Parameterization
from fewstep.registry import Registry

TRAINING_TIMES: Registry[TrainingTimes] = Registry("distribution of training times")
MOST_NOISE = 1e3  # of a process that ends without a signal
POINTS = 4097  # of a distribution that has no inverse in closed form


class TrainingTimes(Cited, ABC):
    """Times of training examples."""

    @abstractmethod
    def sample(self, x: Tensor, p: Parameterization) -> Tensor:
        """One time in ``[t_min, T]`` per example of ``x``: [B]."""


@TRAINING_TIMES.register("uniform")
@dataclass(frozen=True)
class UniformTimes(TrainingTimes):
    """``t ~ U(t_min, T)`` (Song et al. 2021, Eq. 7); of EDM and VE ``ln t`` is uniform instead.

    There time is the noise level, and its logarithm the uniform time of the paper's geometric VE
    schedule (Eq. 9).
    """

    citation = "song2021score"

    def sample(self, x: Tensor, p: Parameterization) -> Tensor:
        u = torch.rand(len(x), device=x.device)
        if p.time_is_noise_level:
            return (math.log(p.t_min) + u * math.log(p.T / p.t_min)).exp()
        return p.t_min + u * (p.T - p.t_min)


@TRAINING_TIMES.register("lognormal")
@dataclass(frozen=True)
class LogNormal(TrainingTimes):
    """``ln(sigma/alpha) ~ N(P_mean, P_std^2)``: EDM's noise levels (Karras et al. 2022, Table 1).

    They do not depend on the process, so that models of two processes that are trained at these
    times and weighted alike learn the same task. Levels beyond the process are moved to its ends.

    Args:
        P_mean, P_std: mean and standard deviation of ``ln(sigma/alpha)``.
    """

    citation = "karras2022elucidating"

    P_mean: float = -1.2
    P_std: float = 1.2

    def __post_init__(self) -> None:
        if not self.P_std >= 0:
            raise FewstepError(f"times lognormal need P_std >= 0, got {self.P_std}.")

    def sample(self, x: Tensor, p: Parameterization, *, least: float | None = None) -> Tensor:
        """One time in ``[least, T]`` per example of ``x``: [B]; ``least`` is ``t_min`` if None."""
        z = torch.randn(len(x), device=x.device)
        t = p.time_of_log_snr(-(self.P_mean + self.P_std * z))
        return t.clamp(p.t_min if least is None else least, p.T)

    def erf(self, level: Tensor) -> Tensor:
        """``2 P(sigma/alpha < level) - 1``, which keeps its digits in both tails."""
        return torch.erf((level.log() - self.P_mean) / (math.sqrt(2) * self.P_std))

    def level(self, erf: Tensor) -> Tensor:
        """The inverse of `erf`."""
        return (self.P_mean + self.P_std * (math.sqrt(2) * torch.erfinv(erf))).exp()


@TRAINING_TIMES.register("student_t")
@dataclass(frozen=True)
class StudentT(TrainingTimes):
    """``ln(sigma/alpha)`` of Student's t distribution, truncated to levels from ``least`` on.

    The noise levels of truncated consistency models (Lee et al. 2024): with so few
    degrees of freedom they are nearly even in their logarithm, with a peak where that is 0.

    Args:
        df: degrees of freedom.
        scale: of the logarithm.
        least: smallest noise level; the largest is the process's, or `MOST_NOISE`.
    """

    citation = "lee2024truncated"

    df: float = 0.01
    scale: float = 0.2
    least: float = 1.0

    def __post_init__(self) -> None:
        if not (self.df > 0 and self.scale > 0 and self.least > 0):
            raise FewstepError(
                f"times student_t need df, scale and least > 0, got {self.df}, {self.scale} and "
                f"{self.least}."
            )

    def sample(self, x: Tensor, p: Parameterization) -> Tensor:
        u = torch.rand(len(x), device=x.device)
        most = float(p.noise_level(torch.tensor(p.T, dtype=torch.float64)))
        level, part = self._table(min(most, MOST_NOISE))
        i = torch.searchsorted(part.to(x.device), u).clamp(1, POINTS - 1)
        start, end = part.to(x.device)[i - 1], part.to(x.device)[i]
        inside = i - 1 + ((u - start) / (end - start)).clamp(0, 1)
        log_level = level[0] + (level[1] - level[0]) * inside / (POINTS - 1)
        return p.time_of_log_snr(-log_level).clamp(max=p.T)

    def _table(self, most: float) -> tuple[tuple[float, float], Tensor]:
        """The logarithms of the ends, and the part of the levels below each point between them."""
        if most <= self.least:
            raise FewstepError(
                f"times student_t begin at the noise level {self.least:g}, and the process ends at "
                f"{most:g}."
            )
        ends = math.log(self.least), math.log(most)
        z = torch.linspace(*ends, POINTS, dtype=torch.float64) / self.scale
        density = (1 + z.square() / self.df).pow(-(self.df + 1) / 2)
        part = torch.cat([torch.zeros(1), (density[1:] + density[:-1]).cumsum(0)])
        return ends, (part / part[-1]).float()


@TRAINING_TIMES.register("arctan")
@dataclass(frozen=True)
class ArctanTimes(TrainingTimes):
    """``t = T (2 / pi) arctan(e^n)`` with ``n ~ N(P_mean, P_std^2)``, on a finite interval.

    FACM's times (Peng et al. 2025): those of a lognormal angle, which is no noise level here.

    Args:
        P_mean, P_std: mean and standard deviation of ``n``.
    """

    citation = "peng2025flow"

    P_mean: float = -0.8
    P_std: float = 1.6

    def sample(self, x: Tensor, p: Parameterization) -> Tensor:
        n = self.P_mean + self.P_std * torch.randn(len(x), device=x.device)
        return (p.T * (2 / math.pi) * torch.atan(n.exp())).clamp(p.t_min, p.T)
