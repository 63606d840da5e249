"""Explicit Runge-Kutta methods: each is a Butcher tableau.

One step from ``t`` to ``s`` of ``dx/dt = v(x, t)``, with ``h = s - t``:

    v_i = v(x + h sum_j a_ij v_j, t + c_i h)        x <- x + h sum_i b_i v_i
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fewstep.parameterization import expand
from fewstep.registry import Registry
from fewstep.solvers.integrator import SOLVERS, Denoiser, Draw, Integrator, Level, Step

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``v(x, t)``: points [B, ...] and their times [B] -> velocities [B, ...]."""


class Solver(Integrator):
    """``Phi``: one step of an ODE. ``order`` is that of the global error."""

    order: ClassVar[int]
    stages: ClassVar[int]
    """Velocities evaluated per step."""

    @property
    def convergence(self) -> int:
        return self.order

    @property
    def cost(self) -> int:
        return self.stages

    def step(self, v: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """``x`` at times ``t`` [B] moved to times ``s`` [B]."""
        raise NotImplementedError

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        return self.step(f.velocity, x, f.time(step.t.t, x), f.time(step.s.t, x))


PHI: Registry[Solver] = Registry("solver")
"""The one-step methods among `SOLVERS`, which are the ``Phi`` of distillation too."""


class RungeKutta(Solver):
    """An explicit Runge-Kutta method; `a`, `b`, `c` are its Butcher tableau."""

    a: ClassVar[tuple[tuple[float, ...], ...]]
    b: ClassVar[tuple[float, ...]]
    c: ClassVar[tuple[float, ...]]

    def __init_subclass__(cls) -> None:
        cls.stages = len(cls.b)

    def step(self, v: Velocity, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        h = s - t
        slopes: list[Tensor] = []
        for row, c in zip(self.a, self.c, strict=True):
            slopes.append(v(_move(x, h, row, slopes), t + c * h))
        return _move(x, h, self.b, slopes)


def _move(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = [w * slope for w, slope in zip(weights, slopes, strict=True) if w]
    return x + expand(h, x) * sum(terms[1:], start=terms[0]) if terms else x


@SOLVERS.register("euler")
@PHI.register("euler")
class Euler(RungeKutta):
    """Euler's method; in EDM's time it is DDIM (Song et al. 2020). Order 1."""

    citation = "song2021denoising"

    order, a, b, c = 1, ((),), (1.0,), (0.0,)


@SOLVERS.register("heun")
@PHI.register("heun")
class Heun(RungeKutta):
    """The explicit trapezoidal rule, EDM's sampler (Karras et al. 2022, Algorithm 1). Order 2."""

    citation = "karras2022elucidating"

    order, a, b, c = 2, ((), (1.0,)), (0.5, 0.5), (0.0, 1.0)


@SOLVERS.register("midpoint")
@PHI.register("midpoint")
class Midpoint(RungeKutta):
    """The explicit midpoint rule. Order 2."""

    order, a, b, c = 2, ((), (0.5,)), (0.0, 1.0), (0.0, 0.5)


@SOLVERS.register("rk4")
@PHI.register("rk4")
class RK4(RungeKutta):
    """The classical Runge-Kutta method. Order 4."""

    order = 4
    a = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    b = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
    c = (0.0, 0.5, 0.5, 1.0)


@SOLVERS.register("in_noise_level")
@dataclass(frozen=True)
class InNoiseLevel(Integrator):
    """A Runge-Kutta method in ``x / alpha`` along ``sigma / alpha``, whatever the process.

    There every PF-ODE is EDM's, ``dy/dn = (y - D) / n`` with ``y = x / alpha`` and
    ``n = sigma / alpha`` (Karras et al. 2022, Eq. 4 without its scale). Heun's method so is what
    the library diffusers calls by that name.

    Args:
        of: euler, heun, midpoint or rk4.

    Raises:
        FewstepError: another method.
    """

    citation = "karras2022elucidating"

    needs_snr: ClassVar[bool] = True

    of: str = "heun"
    _of: RungeKutta = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_of", PHI.build(self.of))

    @property
    def convergence(self) -> int:
        return self._of.order

    @property
    def cost(self) -> int:
        return self._of.stages

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        t, s = step.t, step.s
        stages = iter([self._at(f, step, c) for c in self._of.c])

        def v(y: Tensor, _: Tensor) -> Tensor:
            at = next(stages)
            return (y - f.D(at.alpha * y, at.t)) * (at.alpha / at.sigma)

        start, end = (f.time(level.sigma / level.alpha, x) for level in (t, s))
        return s.alpha * self._of.step(v, x / t.alpha, start, end)

    def _at(self, f: Denoiser, step: Step, c: float) -> Level:
        """The level after the share ``c`` of a step."""
        t, s = step.t, step.s
        if c in (0, 1):
            return s if c else t
        start, end = t.sigma / t.alpha, s.sigma / s.alpha
        return Level.of_log_snr(f.p, -math.log(start + c * (end - start)))
