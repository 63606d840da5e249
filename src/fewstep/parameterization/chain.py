"""DDPM's chain of discrete steps as a process in continuous time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.errors import FewstepError, unknown
from fewstep.parameterization.constants import Constants
from fewstep.parameterization.preserving import VariancePreserving
from fewstep.parameterization.process import PROCESSES


def linear_betas(N: int, beta_1: float, beta_N: float) -> Tensor:
    """``beta_n`` evenly spaced; Ho et al. 2020, Section 4."""
    return torch.linspace(beta_1, beta_N, N, dtype=torch.float64)


def scaled_linear_betas(N: int, beta_1: float, beta_N: float) -> Tensor:
    """``sqrt(beta_n)`` evenly spaced; Rombach et al. 2022 (latent diffusion)."""
    return torch.linspace(beta_1**0.5, beta_N**0.5, N, dtype=torch.float64) ** 2


def cosine_betas(N: int, beta_1: float, beta_N: float) -> Tensor:
    """``beta_n = min(1 - alpha-bar_n / alpha-bar_{n-1}, 0.999)``; Nichol & Dhariwal 2021."""
    n = torch.arange(N + 1, dtype=torch.float64) / N
    alpha_bar = ((n + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


MOST_STEPS = 1_000_000
GIVEN = "given"  # betas that follow no formula, number by number
NEWTON_STEPS = 8  # the curve between two steps is nearly straight: 3 suffice for DDPM's betas

BETAS: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "cosine": cosine_betas,
}


def falling_cubics(y: Tensor) -> Tensor:
    """A smooth falling curve through ``y`` [N + 1] at 0, 1, ..., N, as cubics between: [4, N].

    The piece from ``n`` is ``y + u (m + u (c + u d))`` with u in [0, 1]. The slopes at the knots
    are those of the cubic spline, whose second derivative is continuous, limited to what keeps the
    curve falling: at most thrice the smaller of the neighbouring differences (Fritsch & Carlson
    1980, Section 3), and at least a tenth of it.
    """
    from scipy.interpolate import CubicSpline  # here, since `import fewstep` need not wait for it

    knots = range(len(y))
    m, drop = torch.from_numpy(CubicSpline(knots, y.numpy()).derivative()(knots)), y.diff()
    smaller = torch.maximum(torch.cat([drop[:1], drop]), torch.cat([drop, drop[-1:]]))
    m = m.clamp(3 * smaller, smaller / 10)
    c, d = 3 * drop - 2 * m[:-1] - m[1:], m[:-1] + m[1:] - 2 * drop
    return torch.stack([y[:-1], m[:-1], c, d])


@PROCESSES.register("vp_discrete")
@dataclass(frozen=True)
class Chain(VariancePreserving):
    """DDPM's chain of ``N`` steps: ``alpha(n/N)^2 = prod_{i <= n} (1 - beta_i)``.

    Between the steps ``ln alpha`` is a smooth curve, so that continuous-time samplers can use a
    network of discrete steps. Lu et al. 2022, Appendix D.2, draw a straight line from step to
    step; its kinks cost a Runge-Kutta method its order and an adaptive one its step size. Both
    curves agree at the steps, and within 1.3e-6 between those of DDPM's linear betas.

    Args:
        N: number of steps.
        betas: linear, scaled_linear, cosine or given.
        beta_1, beta_N: first and last beta; cosine has its own.
        given: the betas themselves, where they follow no formula.
    """

    citation = "ho2020denoising"

    N: int = 1000
    betas: str = "linear"
    beta_1: float = 1e-4
    beta_N: float = 0.02
    given: tuple[float, ...] = field(default=(), kw_only=True)
    _log_alphas: Constants = field(init=False, repr=False, compare=False)
    _cubics: Constants = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.betas not in (*BETAS, GIVEN):
            raise unknown("schedule of betas", self.betas, (*BETAS, GIVEN))
        if not 2 <= self.N <= MOST_STEPS or not 0 < self.beta_1 <= self.beta_N < 1:
            raise FewstepError(
                f"need N in 2..{MOST_STEPS} and 0 < beta_1 <= beta_N < 1, got N={self.N}, "
                f"beta_1={self.beta_1}, beta_N={self.beta_N}."
            )
        object.__setattr__(self, "given", tuple(map(float, self.given)))
        betas = self._betas()
        log_alphas = torch.cat([torch.zeros(1).double(), torch.log1p(-betas).cumsum(0) / 2])
        object.__setattr__(self, "_log_alphas", Constants(log_alphas))
        object.__setattr__(self, "_cubics", Constants(falling_cubics(log_alphas)))

    def _betas(self) -> Tensor:
        if self.betas != GIVEN:
            return BETAS[self.betas](self.N, self.beta_1, self.beta_N)
        if len(self.given) != self.N or not all(0 < beta < 1 for beta in self.given):
            raise FewstepError(
                f"betas={GIVEN!r} needs N={self.N} betas between 0 and 1 in given, got "
                f"{len(self.given)}."
            )
        return torch.tensor(self.given, dtype=torch.float64)

    def _cubic(self, n: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """``y, m, c, d`` of the piece ``y + u (m + u (c + u d))`` after step ``n``, u in [0, 1]."""
        return tuple(self._cubics.of(dtype, n.device)[:, n])

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The interval that holds ``t`` and the place in it; an end belongs to the one before."""
        n = (t * self.N).ceil().long().clamp(1, self.N) - 1
        return n, t * self.N - n

    def log_alpha(self, t: Tensor) -> Tensor:
        n, u = self._place(t)
        y, m, c, d = self._cubic(n, u.dtype)
        return y + u * (m + u * (c + u * d))

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        n, u = self._place(t)
        _, m, c, d = self._cubic(n, u.dtype)
        return self.N * (m + u * (2 * c + u * 3 * d))

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        table = self._log_alphas.of(log_alpha.dtype, log_alpha.device)
        n = torch.searchsorted(-table, -log_alpha.contiguous()).clamp(1, self.N) - 1
        y, m, c, d = self._cubic(n, log_alpha.dtype)
        low, high = torch.zeros_like(log_alpha), torch.ones_like(log_alpha)
        u = (log_alpha - y) / (table[n + 1] - table[n])
        for _ in range(NEWTON_STEPS):  # each within the bracket, or by halves
            over = y + u * (m + u * (c + u * d)) > log_alpha  # the curve falls: go on
            low, high = torch.where(over, u, low), torch.where(over, high, u)
            slope = m + u * (2 * c + u * 3 * d)
            newton = u - (y + u * (m + u * (c + u * d)) - log_alpha) / slope
            inside = (newton >= low) & (newton <= high)
            u = torch.where(inside, newton, (low + high) / 2)
        return (n + u) / self.N
