"""Dormand and Prince's adaptive method of order 5(4), with the coefficients of scipy's RK45.

Every sample has a time, a step size and an error control of its own, so that it depends on
nothing but itself; the network sees them side by side. With one sample it takes the very steps
of ``scipy.integrate.solve_ivp``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError, NotFinite
from fewstep.parameterization import expand, time_dtype
from fewstep.precision import widest
from fewstep.solvers.integrator import SOLVERS, Cost, Denoiser, Draw, Integrator

SAFETY, LEAST, MOST = 0.9, 0.2, 10.0  # of a change of the step size, as scipy has them
TOO_SMALL = 1e-12  # a step below this share of the interval makes no progress


def rk45(
    v: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    start: float,
    end: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    cost: Cost | None = None,
) -> tuple[Tensor, Tensor]:
    """Solve ``dx/dt = v(x, t)`` from ``start`` to ``end``, each sample with steps of its own.

    Args:
        v: velocities [B, ...] of points [B, ...] at times [B].
        x: points at ``start`` [B, ...].
        rtol, atol: a step's error may be ``atol + rtol |x|`` in root mean square.
        cost: network evaluations of ``v`` at times [B]; default 1.

    Returns:
        The points at ``end``, and the network evaluations that each needed [B].

    Raises:
        FewstepError: the velocity is not a finite number, or changes too fast.
    """
    solve = _Solve(v, x, start, end, rtol, atol, cost)
    while bool(solve.active.any()):
        solve.step()
    return solve.x, solve.evaluations


class _Solve:
    """The state of a solve: all of it one row per sample."""

    def __init__(
        self,
        v: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        start: float,
        end: float,
        rtol: float,
        atol: float,
        cost: Cost | None = None,
    ) -> None:
        from scipy.integrate import RK45  # here: its import takes a while

        self.v, self.x, self.end, self.cost = v, x, end, cost
        self.rtol, self.atol = rtol, atol
        self.A, self.B, self.C, self.E = (c.tolist() for c in (RK45.A, RK45.B, RK45.C, RK45.E))
        self.sign = 1.0 if end > start else -1.0
        self.span = abs(end - start)
        self.t = widest(x.new_zeros(len(x))).fill_(start)
        self.active = self.t != end
        self.evaluations = torch.zeros(len(x), device=x.device)
        self.slope = self.velocity(x, self.t)
        self.h = self.first_step()
        self.rejected = torch.zeros_like(self.active)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.to(time_dtype(x))
        self.evaluations += self.active if self.cost is None else self.active * self.cost(t)
        return self.v(x, t)

    def norm(self, error: Tensor, scale: Tensor) -> Tensor:
        """Root mean square of ``error / scale`` [B]."""
        return widest((error / scale).flatten(1)).square().mean(1).sqrt()

    def first_step(self) -> Tensor:
        """Hairer, Norsett & Wanner, Solving ODEs I, Section II.4."""
        scale = self.atol + self.x.abs() * self.rtol
        d0, d1 = self.norm(self.x, scale), self.norm(self.slope, scale)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
        h0 = h0.clamp(max=self.span)
        moved = self.x + self._column(h0) * self.slope
        d2 = self.norm(self.velocity(moved, self.t + self.sign * h0) - self.slope, scale) / h0
        most = torch.maximum(d1, d2)
        h1 = torch.where(most <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / most) ** (1 / 5))
        return torch.minimum(100 * h0, h1).clamp(max=self.span)

    def step(self) -> None:
        """Try one step of every sample that has not arrived."""
        left = (self.end - self.t).abs()
        h = torch.where(self.active, torch.minimum(self.h, left), torch.zeros_like(left))
        slopes, moved = self._stages(h)
        scale = self.atol + torch.maximum(self.x.abs(), moved.abs()) * self.rtol
        estimate = sum(e * k for e, k in zip(self.E, slopes, strict=True))
        error = self.norm(self._column(h) * estimate, scale)
        self._check(error, h)
        accepted = self.active & (error < 1)
        factor = SAFETY * error.clamp(min=1e-30) ** (-1 / 5)
        most = torch.where(self.rejected, 1.0, MOST)  # no growth right after a rejection
        grown = torch.where(accepted, torch.minimum(factor, most), factor.clamp(min=LEAST))
        self.h = torch.where(self.active, h * grown, self.h)
        self.rejected = self.active & ~accepted
        rows = expand(accepted, self.x)
        self.x = torch.where(rows, moved, self.x)
        self.slope = torch.where(rows, slopes[-1], self.slope)
        arrives = accepted & (h >= left)
        self.t = torch.where(accepted, self.t + self.sign * h, self.t)
        self.t = torch.where(arrives, torch.full_like(self.t, self.end), self.t)
        self.active = self.active & ~arrives

    def _stages(self, h: Tensor) -> tuple[list[Tensor], Tensor]:
        """The seven slopes, the last of them at the end of the step, and the points there."""
        column, slopes = self._column(h), [self.slope]
        for row, c in zip(self.A[1:], self.C[1:], strict=True):
            change = sum(a * k for a, k in zip(row, slopes, strict=False))
            slopes.append(self.velocity(self.x + column * change, self.t + self.sign * c * h))
        change = sum(b * k for b, k in zip(self.B, slopes, strict=True))
        moved = self.x + column * change
        slopes.append(self.velocity(moved, self.t + self.sign * h))
        return slopes, moved

    def _column(self, h: Tensor) -> Tensor:
        return expand(self.sign * h, self.x).to(self.x.dtype)

    def _check(self, error: Tensor, h: Tensor) -> None:
        if bool((self.active & ~error.isfinite()).any()):
            raise NotFinite("rk45: the model's velocity is not finite (NaN or infinity).")
        stuck = self.active & (error >= 1) & (h < TOO_SMALL * self.span)
        if bool(stuck.any()):
            raise FewstepError(
                f"rk45 cannot reach rtol={self.rtol:g}, atol={self.atol:g}: allow larger errors."
            )


@SOLVERS.register("rk45")
@dataclass(frozen=True)
class AdaptiveRK45(Integrator):
    """Adaptive RK45 of Dormand and Prince on the PF-ODE (Song et al. 2021). Order 5.

    The number of network evaluations follows from the tolerances, sample by sample, and is
    measured. The walk ends at the smallest time, as Score SDE's does.

    Args:
        rtol, atol: relative and absolute tolerance of a step.
        denoise: also take the step from the smallest time to 0.
    """

    citation = ("dormand1980family", "song2021score")

    adaptive: ClassVar[bool] = True

    rtol: float = 1e-5
    atol: float = 1e-5
    denoise: bool = False

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0):
            raise FewstepError(f"rk45 needs rtol, atol > 0, got {self.rtol} and {self.atol}.")

    @property
    def convergence(self) -> int:
        return 5

    @property
    def to_zero(self) -> bool:
        return self.denoise

    @property
    def cost(self) -> int:
        raise FewstepError("rk45 chooses its own steps: set rtol and atol, not --steps or --nfe.")

    def walk(
        self, f: Denoiser, x: Tensor, t: Sequence[float], spend: Sequence[int], draw: Draw
    ) -> Iterator[Tensor]:
        spent = f.spent
        low = t[-2] if t[-1] == 0 else t[-1]
        x, evaluations = rk45(f.velocity, x, t[0], low, self.rtol, self.atol, f.cost)
        f.spent = spent + float(evaluations.mean())
        yield f.D(x, low) if t[-1] == 0 else x
