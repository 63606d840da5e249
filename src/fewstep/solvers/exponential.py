"""Exponential integrators of the PF-ODE: the linear part exactly, the network by a polynomial.

In ``lambda = ln(alpha/sigma)`` the PF-ODE from ``t`` to ``s`` reads

    x_s / alpha_s = x_t / alpha_t - int e^-lambda epsilon dlambda        (noise prediction)
    x_s / sigma_s = x_t / sigma_t + int e^lambda  D       dlambda        (data prediction)

(Lu et al. 2022, Prop. 3.1; Lu et al. 2022b, Prop. 4.1). A Taylor polynomial of epsilon about ``t``
leaves integrals of ``h = lambda_s - lambda_t``, with

    phi_1(h) = (e^h - 1) / h,    phi_2(h) = (phi_1(h) - 1) / h.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization
from fewstep.solvers.integrator import SOLVERS, Denoiser, Draw, Integrator, Level, Step

NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)


def phi(k: int, h: float) -> float:
    """``phi_1`` or ``phi_2`` of ``h``; by its series near 0, where the formula cancels."""
    if abs(h) < 0.05:
        return sum(h**n / math.factorial(n + k) for n in range(10))
    return math.expm1(h) / h if k == 1 else (phi(1, h) - 1) / h


@dataclass(frozen=True)
class _Exponential(Integrator):
    """What the exponential integrators share: a walk that ends at the grid's smallest time.

    Args:
        denoise: also take the step from there to 0, for one more evaluation.
    """

    needs_snr: ClassVar[bool] = True
    grid: ClassVar[str] = "log_snr"

    denoise: bool = False

    @property
    def to_zero(self) -> bool:
        return self.denoise

    @property
    def cost(self) -> int:
        return 1


Stage = tuple[float, tuple[tuple[int, int, float], ...]]
"""Node ``c``, and terms (stage j, index k of phi_k, weight) in ``epsilon_j - epsilon_0``."""

STAGES: dict[int, tuple[Stage, ...]] = {
    1: ((1.0, ()),),
    2: ((1 / 2, ()), (1.0, ((1, 1, 1.0),))),
    3: ((1 / 3, ()), (2 / 3, ((1, 2, 2.0),)), (1.0, ((2, 2, 3 / 2),))),
}
"""DPM-Solver-1, -2, -3 (Lu et al. 2022, Eq. 3.7, Algorithms 1, 2), r1 = 1/2; r1, r2 = 1/3, 2/3."""


class DPMSolver(_Exponential):
    """A single-step DPM-Solver: an exponential Runge-Kutta method, by its stages.

    Stage ``i`` with node ``c``, ``h = c (lambda_s - lambda_t)`` and ``t_i`` at ``lambda_t + h``:

        x_i = (alpha_i / alpha_t) x - sigma_i h [phi_1(h) e_0 + sum w phi_k(h) (e_j - e_0)]

    with ``e_j = epsilon(x_j, t_j)``; the last stage is the result. A step of ``k``
    evaluations is one of DPM-Solver-``k``: those of a walk may differ.
    """

    citation = "lu2022dpm"

    order: ClassVar[int]

    @property
    def convergence(self) -> int:
        return self.order

    @property
    def cost(self) -> int:
        return self.order

    def split(self, nfe: int) -> tuple[int, ...]:
        """Full steps, and lower orders at the end so that the sum is ``nfe``.

        Order 3 as Lu et al. 2022, Section 3.4 ("DPM-Solver-fast"): 3...3 2 1, 3...3 1 or 3...3 2.
        """
        last = (1,) if self.to_zero else ()
        full, left = divmod(nfe - len(last), self.order)
        steps = (self.order,) * full + ((left,) if left else ())
        if self.order == 3 and full and not left:
            steps = (*steps[:-1], 2, 1)
        return steps + last

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        return staged_step(f, x, f.epsilon(x, step.t.t), step.t, step.s, step.evaluations)


def staged_step(f: Denoiser, x: Tensor, epsilon: Tensor, t: Level, s: Level, order: int) -> Tensor:
    """A step of DPM-Solver-``order`` from ``t`` to ``s``, given ``epsilon(x, t)``: [B, ...]."""
    whole = s.log_snr - t.log_snr
    slopes = [epsilon]
    for c, terms in STAGES[order]:
        at = s if c == 1 else Level.of_log_snr(f.p, t.log_snr + c * whole)
        h = at.log_snr - t.log_snr
        change = phi(1, h) * slopes[0]
        for j, k, w in terms:
            change = change + w * phi(k, h) * (slopes[j] - slopes[0])
        moved = at.alpha / t.alpha * x - at.sigma * h * change
        if c < 1:
            slopes.append(f.epsilon(moved, at.t))
    return moved


@SOLVERS.register("dpm1")
class DPM1(DPMSolver):
    """DPM-Solver-1, which is DDIM on a log-SNR grid (Lu et al. 2022, Eq. 3.7). Order 1."""

    order = 1


@SOLVERS.register("dpm2")
class DPM2(DPMSolver):
    """DPM-Solver-2, the exponential midpoint rule (Lu et al. 2022, Algorithm 1). Order 2."""

    order = 2


@SOLVERS.register("dpm3")
class DPM3(DPMSolver):
    """DPM-Solver-3, for an NFE as DPM-Solver-fast (Lu et al. 2022, Algorithm 2). Order 3."""

    order = 3


@SOLVERS.register("dpmpp_2m")
class DPMpp2M(_Exponential):
    """DPM-Solver++(2M), multistep in data prediction (Lu et al. 2022b, Algorithm 2). Order 2.

    ``x_s = (sigma_s/sigma_t) x - alpha_s (e^-h - 1) [D_t + (D_t - D_before) h / (2 h_before)]``;
    the first step has no step before it and is of first order.
    """

    citation = "lu2022dpmpp"

    @property
    def convergence(self) -> int:
        return 2

    def walk(
        self, f: Denoiser, x: Tensor, t: Sequence[float], spend: Sequence[int], draw: Draw
    ) -> Iterator[Tensor]:
        yield from data_prediction(f.D, x, [Level.at(f.p, time) for time in t])


def data_prediction(
    D_of: Callable[[Tensor, float], Tensor], x: Tensor, levels: Sequence[Level]
) -> Iterator[Tensor]:
    """The points of DPM-Solver++(2M) at all levels but the first, where ``x`` is: [B, ...] each.

    Args:
        D_of: the denoiser.
        x: where it starts [B, ...].
        levels: decreasing; the last may be that of ``t = 0``.
    """
    before: tuple[Tensor, float] | None = None
    for now, after in pairwise(levels):
        D = D_of(x, now.t)
        if after.t == 0:
            yield D
            return
        h = after.log_snr - now.log_snr
        guess = D if before is None else D + (D - before[0]) * (h / (2 * before[1]))
        x = after.sigma / now.sigma * x - after.alpha * math.expm1(-h) * guess
        before = D, h
        yield x


@SOLVERS.register("deis")
@dataclass(frozen=True)
class DEIS(_Exponential):
    """DEIS tAB: epsilon extrapolated in time (Zhang & Chen 2022). tABr has order r + 1.

    ``x_s / alpha_s = x_t / alpha_t + sum_j C_j epsilon_j`` with ``C_j = int L_j d(sigma/alpha)``
    from ``t`` to ``s``, and ``L_j`` the Lagrange polynomials in ``t`` through the last
    ``order + 1`` times (its Eqs. 13 to 15).

    The first steps have fewer times behind them. In the paper they are of lower order: the first,
    of order 0, has an error of ``h^2``, so that on an ever finer grid the whole walk is of order 2
    at most, whatever ``r`` is. With few evaluations that matters little. ``staged`` takes the first
    ``r`` steps with DPM-Solver-``r`` instead, at ``r`` evaluations each, which keeps the order.

    Args:
        order: degree ``r`` of the polynomial, 1 to 3 (tAB1 to tAB3); 0 is DDIM.
        denoise: also take the step from the grid's smallest time to 0.
        staged: start with single steps of the full order.
    """

    citation = "zhang2023fast"

    grid: ClassVar[str] = "quadratic"

    denoise: bool = False
    order: int = 3
    staged: bool = False

    def __post_init__(self) -> None:
        if self.order not in range(4):
            raise FewstepError(f"deis needs an order from 0 to 3, got {self.order!r}.")

    @property
    def convergence(self) -> int:
        return self.order + 1 if self.staged else min(self.order + 1, 2)

    def evaluations(self, N: int) -> tuple[int, ...]:
        spend = super().evaluations(N)
        first = min(self.order, N - self.to_zero) if self.staged else 0
        return (max(1, self.order),) * first + spend[first:]

    def walk(
        self, f: Denoiser, x: Tensor, t: Sequence[float], spend: Sequence[int], draw: Draw
    ) -> Iterator[Tensor]:
        past: deque[tuple[float, Tensor]] = deque(maxlen=self.order + 1)
        levels = [Level.at(f.p, time) for time in t]
        for (now, after), evaluations in zip(pairwise(levels), spend, strict=True):
            if after.t == 0:
                yield f.D(x, now.t)
                return
            epsilon = f.epsilon(x, now.t)
            past.appendleft((now.t, epsilon))
            if evaluations > 1:
                x = staged_step(f, x, epsilon, now, after, evaluations)
                yield x
                continue
            C = tab_coefficients(f.p, now, after, [time for time, _ in past])
            change = sum(c * slope for c, (_, slope) in zip(C, past, strict=True))
            x = after.alpha * (x / now.alpha + change)
            yield x


def tab_coefficients(
    p: Parameterization, t: Level, s: Level, times: Sequence[float]
) -> list[float]:
    """``C_j = int_t^s L_j(tau) d(sigma/alpha)(tau)`` through ``times``; Zhang & Chen 2022, Eq. 15.

    By Gauss-Legendre quadrature in ``lambda``, where ``d(sigma/alpha) = -e^-lambda dlambda``
    is smooth for every process, also one that is given at discrete steps.
    """
    half = (s.log_snr - t.log_snr) / 2
    lmb = t.log_snr + half * (1 + NODES)
    tau = p.time_of_log_snr(torch.from_numpy(lmb)).numpy()
    kernel = -np.exp(-lmb) * WEIGHTS * half
    C = []
    for j, own in enumerate(times):
        others = [time for i, time in enumerate(times) if i != j]
        L_j = np.prod([(tau - time) / (own - time) for time in others], axis=0)
        C.append(float((kernel * L_j).sum()))
    return C
