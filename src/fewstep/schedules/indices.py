"""Which neighbours on a time grid a training example uses, and the limit of ever finer grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization import Parameterization
from fewstep.precision import widest
from fewstep.registry import Registry
from fewstep.schedules.grids import karras_grid, karras_time
from fewstep.schedules.times import LogNormal


class IndexDistribution(Cited, ABC):
    """Which pair ``(t_n, t_{n+1})`` of a grid a training example uses."""

    @abstractmethod
    def probabilities(self, t: Tensor, p: Parameterization) -> Tensor:
        """Weights over ``n = 1..N-1``, as [N-1], for the grid ``t`` [N]; need not sum to 1."""

    def neighbours(
        self, N: int, p: Parameterization, x: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """``t_{n+1}, t_n`` [B] of the grid of ``N`` points for each example of ``x`` [B, ...].

        The indices come from the global random stream.
        """
        # eps = t_1 < ... < t_N = T                                                            [N]
        t = karras_grid(N, p, device=x.device, dtype=dtype)
        weights = _probabilities(self, N, p, x.device, dtype)
        n = torch.multinomial(weights, len(x), replacement=True)  # n - 1 of the paper's       [B]
        return t[n + 1], t[n]

    @abstractmethod
    def quantile(self, u: Tensor, p: Parameterization) -> Tensor:
        """The time below which a part ``u`` of the times ``t_n`` lies as N -> infinity."""


@lru_cache(maxsize=64)
def _probabilities(
    times: IndexDistribution, N: int, p: Parameterization, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Of a grid; it changes a few times in a training, and each step wants it."""
    return times.probabilities(karras_grid(N, p, device=device, dtype=dtype), p)


INDEX_DISTRIBUTIONS: Registry[IndexDistribution] = Registry("distribution of time indices")


@INDEX_DISTRIBUTIONS.register("uniform")
@dataclass(frozen=True)
class UniformIndex(IndexDistribution):
    """``n ~ U{1, ..., N-1}``; Song et al. 2023, Algorithms 2 and 3."""

    citation = "song2023consistency"

    def probabilities(self, t: Tensor, p: Parameterization) -> Tensor:
        return torch.ones_like(t[1:])

    def quantile(self, u: Tensor, p: Parameterization) -> Tensor:
        return karras_time(u, p)


@INDEX_DISTRIBUTIONS.register("lognormal")
@dataclass(frozen=True)
class LogNormalIndex(IndexDistribution):
    """The mass of `LogNormal` noise levels between ``t_n`` and ``t_{n+1}``; iCT, Section 3.5.

    The paper's ``ln t ~ N(P_mean, P_std^2)``, where time is the noise level; in another process the
    same noise levels.

    Args:
        P_mean, P_std: mean and standard deviation of ``ln(sigma/alpha)``.
    """

    citation = "song2023improved"

    P_mean: float = -1.1
    P_std: float = 2.0

    def __post_init__(self) -> None:
        if not self.P_std > 0:
            raise FewstepError(f"indices lognormal need P_std > 0, got {self.P_std}.")

    @property
    def levels(self) -> LogNormal:
        """The distribution of noise levels."""
        return LogNormal(self.P_mean, self.P_std)

    def probabilities(self, t: Tensor, p: Parameterization) -> Tensor:
        below = self.levels.erf(p.noise_level(widest(t)))
        return (below[1:] - below[:-1]).float()

    def quantile(self, u: Tensor, p: Parameterization) -> Tensor:
        wide = widest(u)
        ends = torch.tensor([p.t_min, p.T], dtype=wide.dtype, device=u.device)
        low, high = self.levels.erf(p.noise_level(ends))
        level = self.levels.level(low + wide * (high - low))
        return p.time_of_noise_level(level).clamp(p.t_min, p.T).to(u.dtype)
