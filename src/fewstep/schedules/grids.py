"""Time grids: of consistency losses, ``t_1 = eps < ... < t_N = T``, and of samplers, downwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization
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
