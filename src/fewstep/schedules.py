"""Time grids, and everything that varies with the training step: values, never callbacks.

Notation of Song et al. 2023: ``N(k)`` grid points at training step ``k`` of ``K``, ``mu(k)`` the
decay of the target's running average, ``t_1 = eps < ... < t_N = T`` the grid. iCT's forms are of
Song & Dhariwal 2023, ECT's of Geng et al. 2024.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization
from fewstep.precision import widest
from fewstep.registry import Registry


@lru_cache(maxsize=64)
def karras_grid(
    N: int,
    p: Parameterization,
    rho: float = 7.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``t_i = (a + (i-1)/(N-1) (b - a))^rho`` with ``a = eps^(1/rho)``, ``b = T^(1/rho)``: [N].

    Increasing; the ends are exact. Karras et al. 2022, Eq. 5; Song et al. 2023, Section 2.
    """
    if N < 2:
        raise FewstepError(f"a time grid needs at least 2 points, got N={N}.")
    return power_grid(N, p.t_min, p.T, rho).to(dtype).to(device)


def power_grid(N: int, start: float, end: float, rho: float) -> Tensor:
    """``N`` points from ``start`` to ``end``, evenly spaced in ``t^(1/rho)``; exact ends: [N]."""
    a, b = start ** (1 / rho), end ** (1 / rho)
    t = torch.linspace(a, b, N, dtype=torch.float64) ** rho
    t[0], t[-1] = start, end
    return t


# Time grids of samplers


class TimeGrid(ABC):
    """At which times a sampler evaluates the network."""

    needs_snr: ClassVar[bool] = False
    """Whether ``ln(alpha/sigma)`` must be finite at the start."""

    @abstractmethod
    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        """``N >= 2`` decreasing times from ``start`` to the last before 0, in float64: [N]."""


TIME_GRIDS: Registry[TimeGrid] = Registry("time grid")


@TIME_GRIDS.register("karras")
@dataclass(frozen=True)
class KarrasGrid(TimeGrid):
    """Evenly spaced in ``(sigma/alpha)^(1/rho)``: many small noises (Karras et al. 2022, Eq. 5).

    The paper's ``sigma_i`` are noise levels of unscaled data and its ``t_i = sigma^-1(sigma_i)``
    the times of any process that have them (Algorithm 1); EDM's time is the noise level itself.
    """

    needs_snr: ClassVar[bool] = True

    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.rho <= 1000:  # beyond, powers of the noise levels overflow or are all 1
            raise FewstepError(f"a time grid needs rho from 0.1 to 1000, got {self.rho}.")

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        last, first = (-p.log_snr(torch.tensor([p.t_min, start], dtype=torch.float64))).exp()
        noise = power_grid(N, float(last), float(first), self.rho).flip(0)
        t = p.time_of_log_snr(-noise.log())
        t[0], t[-1] = start, p.t_min
        return t


@TIME_GRIDS.register("time")
@dataclass(frozen=True)
class UniformGrid(TimeGrid):
    """Evenly spaced in the process's time ``t`` (Ho et al. 2020; Song et al. 2021)."""

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        return power_grid(N, p.t_min, start, 1.0).flip(0)


@TIME_GRIDS.register("quadratic")
@dataclass(frozen=True)
class QuadraticGrid(TimeGrid):
    """Evenly spaced in ``sqrt(t)`` (DDIM, Song et al. 2020, Appendix D.2; DEIS, Section 4)."""

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        return power_grid(N, p.t_min, start, 2.0).flip(0)


@TIME_GRIDS.register("log_snr")
@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """Evenly spaced in ``lambda = ln(alpha/sigma)`` (DPM-Solver, Lu et al. 2022, Section 3.3)."""

    needs_snr: ClassVar[bool] = True

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        first, last = p.log_snr(torch.tensor([start, p.t_min], dtype=torch.float64))
        t = p.time_of_log_snr(torch.linspace(float(first), float(last), N, dtype=torch.float64))
        t[0], t[-1] = start, p.t_min
        return t


@TIME_GRIDS.register("flow")
@dataclass(frozen=True)
class FlowGrid(TimeGrid):
    """``N`` equal steps to 0: ``start (1 - i/N)`` for i in 0..N-1 (Liu et al. 2022, Section 2)."""

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        return torch.linspace(start, 0, N + 1, dtype=torch.float64)[:-1]


def karras_time(u: Tensor, p: Parameterization, rho: float = 7.0) -> Tensor:
    """``tau(u) = (a + u (b - a))^rho``, u in [0, 1]: the grid is ``t_n = tau((n-1)/(N-1))``."""
    a, b = p.t_min ** (1 / rho), p.T ** (1 / rho)
    return (a + u * (b - a)) ** rho


def karras_spacing(t: Tensor, p: Parameterization, rho: float = 7.0) -> Tensor:
    """``tau'(tau^-1(t)) = rho (b - a) t^(1 - 1/rho)``: the limit of ``(N-1) (t_{n+1} - t_n)``.

    ``1 / (tau^-1)'(t)`` in Song et al. 2023, Appendix B.
    """
    a, b = p.t_min ** (1 / rho), p.T ** (1 / rho)
    return rho * (b - a) * t ** (1 - 1 / rho)


def nested_times(N: int, p: Parameterization) -> Tensor:
    """``T = t_0 > ... > t_N``: a grid whose every second point is the grid of ``N / 2``: [N + 1].

    Karras' grid of ``N + 1`` points, which ends at `Parameterization.t_min`, or a uniform one to 0
    where the flow is meant to be straight. Progressive distillation halves it.
    """
    if p.straight:
        return torch.linspace(p.T, 0, N + 1, dtype=torch.float64)
    return karras_grid(N + 1, p, dtype=torch.float64).flip(0)


# Number of grid points N(k)


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


# Decay of the target's running average mu(k)


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


# Distributions of training times


class IndexDistribution(ABC):
    """Which pair ``(t_n, t_{n+1})`` of a grid a training example uses."""

    @abstractmethod
    def probabilities(self, t: Tensor) -> Tensor:
        """Weights over ``n = 1..N-1``, as [N-1], for the grid ``t`` [N]; need not sum to 1."""

    def sample(self, t: Tensor, B: int) -> Tensor:
        """``B`` indices ``n - 1`` in 0..N-2 [B] from the global random stream."""
        return torch.multinomial(self.probabilities(t), B, replacement=True)

    @abstractmethod
    def quantile(self, u: Tensor, p: Parameterization) -> Tensor:
        """The time below which a part ``u`` of the times ``t_n`` lies as N -> infinity."""


INDEX_DISTRIBUTIONS: Registry[IndexDistribution] = Registry("distribution of time indices")


@INDEX_DISTRIBUTIONS.register("uniform")
@dataclass(frozen=True)
class UniformIndex(IndexDistribution):
    """``n ~ U{1, ..., N-1}``; Song et al. 2023, Algorithms 2 and 3."""

    def probabilities(self, t: Tensor) -> Tensor:
        return torch.ones_like(t[1:])

    def quantile(self, u: Tensor, p: Parameterization) -> Tensor:
        return karras_time(u, p)


@INDEX_DISTRIBUTIONS.register("lognormal")
@dataclass(frozen=True)
class LogNormalIndex(IndexDistribution):
    """``p(n)`` = mass of ``ln t ~ N(P_mean, P_std^2)`` in ``[t_n, t_{n+1}]``; iCT, Section 3.5."""

    P_mean: float = -1.1
    P_std: float = 2.0

    def probabilities(self, t: Tensor) -> Tensor:
        below = self._erf(widest(t))
        return (below[1:] - below[:-1]).float()

    def quantile(self, u: Tensor, p: Parameterization) -> Tensor:
        wide = widest(u)
        ends = torch.tensor([p.t_min, p.T], dtype=wide.dtype, device=u.device)
        low, high = self._erf(ends)
        z = math.sqrt(2) * torch.erfinv(low + wide * (high - low))
        return (self.P_mean + self.P_std * z).exp().clamp(p.t_min, p.T).to(u.dtype)

    def _erf(self, t: Tensor) -> Tensor:
        return torch.erf((t.log() - self.P_mean) / (math.sqrt(2) * self.P_std))


@dataclass(frozen=True)
class LogNormal:
    """``ln t ~ N(P_mean, P_std^2)``; Karras et al. 2022, Table 1."""

    P_mean: float = -1.2
    P_std: float = 1.2

    def sample(self, x: Tensor) -> Tensor:
        """One time per example of ``x``: [B]."""
        z = torch.randn(len(x), device=x.device)
        return (self.P_mean + self.P_std * z).exp()


# Gap between the two times of ECT


@dataclass(frozen=True)
class SigmoidGap:
    """``r(t, k) = max(0, t (1 - q^-(stage+1) (1 + a sigmoid(-b t))))``; ECT's mapping.

    ``stage = floor(stages k / K)``: the gap ``t - r`` shrinks by ``q`` from stage to stage.
    Where ``r = 0`` the target is the data itself, so that stage 0 with ``q = 2`` is close to
    training a diffusion model.
    """

    K: int
    stages: int = 8
    q: float = 2.0
    a: float = 8.0
    b: float = 1.0

    def __post_init__(self) -> None:
        if self.stages < 1 or self.q <= 1:
            raise FewstepError(f"need stages >= 1 and q > 1, got {self.stages} and {self.q}.")

    def __call__(self, t: Tensor, k: int) -> Tensor:
        stage = min(self.stages * k // self.K, self.stages - 1)
        gap = (1 + self.a * torch.sigmoid(-self.b * t)) / self.q ** (stage + 1)
        return (t * (1 - gap)).clamp(min=0)
