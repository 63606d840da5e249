"""Time grids: of consistency losses, ``t_1 = eps < ... < t_N = T``, and of samplers, downwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError, unknown
from fewstep.papers import Also, Cited
from fewstep.parameterization import Parameterization
from fewstep.parameterization.chain import Chain
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

    Increasing; the ends are exact. Karras et al. 2022, Eq. 5; Song et al. 2023, Section 2. It is
    the grid of consistency losses, in the number ``t`` of any process. `KarrasGrid`, which samplers
    take, is even in the noise level; in EDM's time both are the same.
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


class TimeGrid(Cited, ABC):
    """At which times a sampler evaluates the network."""

    needs_snr: ClassVar[bool] = False
    """Whether ``ln(alpha/sigma)`` must be finite at the start."""
    to_zero: ClassVar[bool] = False
    """Whether the last point lies a step of its own above 0, and not at ``t_min``."""

    @abstractmethod
    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        """``N >= 2`` decreasing times from ``start`` to the last before 0, in float64: [N].

        A grid to 0 has one point, too.
        """

    def short_of_zero(self, N: int, p: Parameterization, start: float) -> Tensor:
        """``N >= 1`` steps from ``start`` for a solver that never steps to 0: [N + 1].

        They end at ``t_min``, and those of a grid to 0 below it where they are so fine.
        """
        if self.to_zero and (t := self(N, p, start))[-1] > p.t_min:
            return torch.cat([t, t.new_tensor([p.t_min])])
        return self(N + 1, p, start)


TIME_GRIDS: Registry[TimeGrid] = Registry("time grid")


@TIME_GRIDS.register("karras")
@dataclass(frozen=True)
class KarrasGrid(TimeGrid):
    """Evenly spaced in ``(sigma/alpha)^(1/rho)``: many small noises (Karras et al. 2022, Eq. 5).

    The paper's ``sigma_i`` are noise levels of unscaled data and its ``t_i = sigma^-1(sigma_i)``
    the times of any process that have them (Algorithm 1); EDM's time is the noise level itself.
    """

    citation = "karras2022elucidating"

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

    citation = "ho2020denoising"

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        return power_grid(N, p.t_min, start, 1.0).flip(0)


@TIME_GRIDS.register("quadratic")
@dataclass(frozen=True)
class QuadraticGrid(TimeGrid):
    """Evenly spaced in ``sqrt(t)`` (DDIM, Song et al. 2020, Appendix D.2; DEIS, Section 4)."""

    citation = "song2021denoising"

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        return power_grid(N, p.t_min, start, 2.0).flip(0)


@TIME_GRIDS.register("log_snr")
@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """Evenly spaced in ``lambda = ln(alpha/sigma)`` (DPM-Solver, Lu et al. 2022, Section 3.3)."""

    citation = "lu2022dpm"

    needs_snr: ClassVar[bool] = True

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        first, last = p.log_snr(torch.tensor([start, p.t_min], dtype=torch.float64))
        t = p.time_of_log_snr(torch.linspace(float(first), float(last), N, dtype=torch.float64))
        t[0], t[-1] = start, p.t_min
        return t


@TIME_GRIDS.register("flow")
@dataclass(frozen=True)
class FlowGrid(TimeGrid):
    """``N`` equal steps to 0: ``start (1 - i/N)`` for i in 0..N-1 (Liu et al. 2022, Section 2).

    Shifted, a point ``u = t / T`` becomes ``s u / (1 + (s - 1) u)``: more steps at strong noise, as
    large images want them (Esser et al. 2024, Eq. 23, whose root of ``m / n`` is ``s`` and whose
    ``T`` is 1).

    Args:
        shift: ``s``; 1 is none.
        last: the last point before 0, before it is shifted; default a step from 0.
    """

    citation = "liu2022flow"
    to_zero: ClassVar[bool] = True
    also_cites = (Also("shift", "esser2024scaling", lambda shift: shift != 1),)

    shift: float = 1.0
    last: float | None = None

    def __post_init__(self) -> None:
        if not 0.01 <= self.shift <= 100 or not (self.last is None or 0 < self.last < 1):
            raise FewstepError(
                "the grid flow needs shift from 0.01 to 100 and last between 0 and 1, got "
                f"shift={self.shift} and last={self.last}."
            )

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        if self.last is None:
            t = torch.linspace(start, 0, N + 1, dtype=torch.float64)[:-1]
        else:
            t = torch.linspace(start, self.last, N, dtype=torch.float64)
        return t if self.shift == 1 else p.T * self._shifted(t / p.T)

    def _shifted(self, u: Tensor) -> Tensor:
        """Of a share ``u`` of the whole time, which 1 ends to the bit."""
        return (self.shift * u / (1 + (self.shift - 1) * u)).clamp(max=1)


@TIME_GRIDS.register("straight")
@dataclass(frozen=True)
class StraightGrid(TimeGrid):
    """Equal steps to 0 in ``u = sigma / (alpha + sigma)``, the time of straight lines.

    ``u_0 (1 - i/N)`` for i in 0..N-1 with the start's ``u_0``: the noise levels at which a
    rectified flow takes equal steps (Liu et al. 2022, Section 2), ``sigma/alpha = u / (1 - u)``, in
    any process. Of a few steps more fall on the noise at which images are decided than Karras' grid
    has there.
    """

    citation = "liu2022flow"
    to_zero: ClassVar[bool] = True

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        now = torch.tensor([start], dtype=torch.float64)
        alpha, sigma = p.alpha(now), p.sigma(now)
        u = float(sigma / (alpha + sigma)) * (1 - torch.arange(N, dtype=torch.float64) / N)
        t = p.time_of_log_snr((1 / u - 1).log())
        t[0] = start
        return t


SPACINGS = ("leading", "trailing", "linspace", "even")


@TIME_GRIDS.register("chain")
@dataclass(frozen=True)
class ChainGrid(TimeGrid):
    """Steps of DDPM's chain, chosen as the schedulers of the library diffusers choose theirs.

    The indices ``n - 1`` of the steps, which the network is told, are, of a chain of ``M`` (the
    names are those of Lin et al. 2023, Table 2):

    - leading: ``i (M // N)`` for i in 0..N-1;
    - trailing: ``round(M - i M / N) - 1`` for i in 0..N-1;
    - linspace: ``N`` even ones from 0 to ``M - 1``, rounded;
    - even: as linspace, not rounded.

    Args:
        spacing: one of these.
        offset: added to each index of leading.
        beyond: lay one more, at index 0, and leave it out, as the schedulers of DPM-Solver do.
        ends: the last point is index 0, where a solver ends that takes no step to the data.
    """

    citation = "lin2024common"

    spacing: str = "leading"
    offset: int = 0
    beyond: bool = False
    ends: bool = False

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise unknown("spacing of the grid chain", self.spacing, SPACINGS)

    def __call__(self, N: int, p: Parameterization, start: float) -> Tensor:
        chain = p.network_process
        if not isinstance(chain, Chain):
            raise FewstepError(
                "the grid chain is of steps: it needs a network of the process vp_discrete, not "
                f"{p.config['name']}."
            )
        index = self._indices(N - self.ends, chain.N)
        index = torch.cat([index, index.new_zeros(1)]) if self.ends else index
        if index[0] > chain.N - 1 or not bool((index.diff() < 0).all()):
            raise FewstepError(
                f"the grid chain({self.spacing}) has no {N} steps that fall among {chain.N}."
            )
        t = (index + 1) / chain.N
        return t if p.process is chain else p.time_of_log_snr(chain.log_snr(t))

    def _indices(self, N: int, M: int) -> Tensor:
        """Decreasing indices of ``N`` steps among ``M``: [N]."""
        points = N + self.beyond
        if self.spacing == "trailing":
            i = torch.arange(N, dtype=torch.float64)
            return (M - i * M / N).round() - 1
        if self.spacing == "leading":
            i = torch.arange(points, dtype=torch.float64) * (M // points) + self.offset
        else:
            i = torch.linspace(0, M - 1, points, dtype=torch.float64)
            i = i.round() if self.spacing == "linspace" else i
        return i.flip(0)[:N]


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


def nested_times(N: int, p: Parameterization, *, uniform: bool = False) -> Tensor:
    """``T = t_0 > ... > t_N``: a grid whose every second point is the grid of ``N / 2``: [N + 1].

    Karras' grid of ``N + 1`` points, which ends at `Parameterization.t_min`, or a uniform one to 0
    where the flow is meant to be straight, or it is asked for. Progressive distillation halves it.
    """
    if p.straight or uniform:
        return torch.linspace(p.T, 0, N + 1, dtype=torch.float64)
    return karras_grid(N + 1, p, dtype=torch.float64).flip(0)
