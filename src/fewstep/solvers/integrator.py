"""Walks from noise to data along a grid of times: what every solver of a diffusion model shares.

A solver sees a model as its denoiser ``D(x, t)`` alone (`Denoiser`); all else follows from the
process. The times of a walk are the same for all samples, so the coefficients of a step are
numbers, computed in double precision. `Integrator.evaluations` says what each step spends: the
number of network evaluations of a walk is known before it starts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization import Parameterization, expand, per_row
from fewstep.registry import Registry

Draw = Callable[[], Tensor]
"""The next standard normal noise [B, ...], one stream per sample."""

Cost = Callable[[Tensor], Tensor]
"""Network evaluations of a denoiser at times [B]: [B]."""

NO_DATA = 1e-6  # alpha(T) below it is zero up to rounding: ln(alpha/sigma) has no value there
LEAST_SNR = 1e-3  # alpha/sigma where walks that need the logarithm start instead


class Denoiser:
    """A diffusion model as solvers see it, and a count of its evaluations.

    Every method evaluates the network once. Times are numbers, or tensors [B].

    Args:
        p: the process.
        D: ``(x [B, ...], t [B]) -> E[x_0 | x_t = x]``.
        clip: clip ``D`` to [-1, 1], the range of the images that it is a mean of. All else follows
            from the clipped ``D``: ``clip_denoised`` in the code of Ho et al. 2020, static
            thresholding in Saharia et al. 2022 (Imagen), Section 2.3.
        cost: ``t [B] -> [B]``, network evaluations of ``D`` at these times; default 1.
    """

    def __init__(
        self,
        p: Parameterization,
        D: Callable[[Tensor, Tensor], Tensor],
        *,
        clip: bool = False,
        cost: Cost | None = None,
    ) -> None:
        self.p = p
        self.clip = clip
        self.spent = 0.0
        """Evaluations per sample; an adaptive solver's mean over the samples."""
        self._D = D
        self.cost = cost

    def time(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``t`` as one time per sample [B]."""
        return per_row(t, x)

    def D(self, x: Tensor, t: Tensor | float) -> Tensor:
        """``E[x_0 | x_t = x]``."""
        return self.free_and_clipped(x, t)[1]

    def free_and_clipped(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``D`` as the model gives it, and as `D` has it."""
        t = self.time(t, x)
        self.spent += 1 if self.cost is None else float(self.cost(t).mean())
        D = self._D(x, t)
        return D, D.clamp(-1, 1) if self.clip else D

    def epsilon(self, x: Tensor, t: Tensor | float) -> Tensor:
        """``(x - alpha D) / sigma``, the noise in ``x``."""
        t = self.time(t, x)
        return (x - expand(self.p.alpha(t), x) * self.D(x, t)) / expand(self.p.sigma(t), x)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """``grad log p_t(x)``."""
        t = self.time(t, x)
        return self.p.score(x, self.D(x, t), t)

    def velocity(self, x: Tensor, t: Tensor | float) -> Tensor:
        """``dx/dt`` of the PF-ODE."""
        t = self.time(t, x)
        return self.p.velocity(x, self.D(x, t), t)


@dataclass(frozen=True)
class Level:
    """What the process is at one time: ``t``, ``alpha``, ``sigma``, as numbers."""

    t: float
    alpha: float
    sigma: float

    @classmethod
    def at(cls, p: Parameterization, t: float) -> Level:
        time = torch.tensor(t, dtype=torch.float64)
        return cls(t, float(p.alpha(time)), float(p.sigma(time)))

    @classmethod
    def of_log_snr(cls, p: Parameterization, log_snr: float) -> Level:
        return cls.at(p, float(p.time_of_log_snr(torch.tensor(log_snr, dtype=torch.float64))))

    @property
    def log_snr(self) -> float:
        """``lambda = ln(alpha / sigma)``."""
        return math.log(self.alpha) - math.log(self.sigma)

    def transition(self, s: Level) -> tuple[float, float]:
        """``a`` and ``b`` of the forward process from ``s`` to here: ``x_t = a x_s + b z``."""
        a = self.alpha / s.alpha
        return a, math.sqrt(max(0.0, self.sigma**2 - (a * s.sigma) ** 2))


@dataclass(frozen=True)
class Step:
    """One step of a walk, from level ``t`` down to ``s``, one of ``N``."""

    t: Level
    s: Level
    evaluations: int
    N: int


class Integrator(Cited, ABC):
    """A solver of the PF-ODE or of the reverse SDE along a decreasing grid of times."""

    adaptive: ClassVar[bool] = False
    """Whether the solver chooses its own steps, so that its evaluations are measured."""
    needs_snr: ClassVar[bool] = False
    """Whether the coefficients need ``alpha > 0`` at the start; see `start_with_snr`."""
    grid: ClassVar[str] = "karras"
    """Grid of the solver's paper, a spec of `fewstep.schedules.TIME_GRIDS`."""

    @property
    def convergence(self) -> int | None:
        """Order of the global error; None for a solver that draws noise."""
        return None

    @property
    def to_zero(self) -> bool:
        """Whether the walk has a last step from the smallest time of the grid to 0."""
        return True

    @property
    @abstractmethod
    def cost(self) -> int:
        """Network evaluations of a step that does not end at 0."""

    @property
    def last_cost(self) -> int:
        """Network evaluations of the step to 0, where there is one."""
        return 1

    def evaluations(self, N: int) -> tuple[int, ...]:
        """Network evaluations of each of ``N`` steps."""
        if N < 1:
            raise FewstepError(f"sampling needs at least 1 step, got steps={N}.")
        last = (self.last_cost,) * self.to_zero
        return (self.cost,) * (N - len(last)) + last

    def split(self, nfe: int) -> tuple[int, ...]:
        """Steps that spend exactly ``nfe`` network evaluations in total.

        Raises:
            FewstepError: there are none; the message names the nearest counts that can be spent.
        """
        N = 1 + bisect_left(range(1, nfe), nfe, key=lambda N: sum(self.evaluations(N)))
        above = sum(self.evaluations(N))
        if above == nfe:
            return self.evaluations(N)
        near = f"{above} is least"
        if N > 1:
            near = f"it can spend {sum(self.evaluations(N - 1))} or {above}"
        name = SOLVERS.name_of(type(self))
        raise FewstepError(f"{name} cannot spend exactly {nfe} network evaluations: {near}.")

    def walk(
        self, f: Denoiser, x: Tensor, t: Sequence[float], spend: Sequence[int], draw: Draw
    ) -> Iterator[Tensor]:
        """What stands after each step: [B, ...].

        Args:
            f: the model.
            x: points at time ``t[0]`` [B, ...].
            t: decreasing times, the last of which may be 0.
            spend: network evaluations of each step, as `evaluations` or `split` gives them.
            draw: noise, which deterministic solvers do not touch.
        """
        levels = [Level.at(f.p, time) for time in t]
        for (now, after), evaluations in zip(pairwise(levels), spend, strict=True):
            step = Step(now, after, evaluations, len(spend))
            x = self.advance(f, x, step, draw) if after.t else self.finish(f, x, step, draw)
            yield x

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        """``x`` at ``step.t`` moved to ``step.s > 0``."""
        raise NotImplementedError

    def finish(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        """``x`` at ``step.t`` moved to 0: in every process the Euler step to 0 is the denoiser."""
        return f.D(x, step.t.t)


SOLVERS: Registry[Integrator] = Registry("solver")
"""Every solver of a diffusion model, by name; `PHI` are those that are also a ``Phi``."""


def start_with_snr(p: Parameterization) -> float:
    """The largest time at which ``ln(alpha/sigma)`` and the SDE's drift are finite: mostly ``T``.

    Where nothing of the data is left at ``T`` (``alpha = 0``: rectified flow, TrigFlow) it is
    the time of ``sigma = 1000 alpha``, a little lower.
    """
    if Level.at(p, p.T).alpha < NO_DATA:
        return Level.of_log_snr(p, math.log(LEAST_SNR)).t
    return p.T


def default_grid(solver: Integrator, p: Parameterization) -> str:
    """The grid of the solver's paper; for Karras' grid that of the process, which it was made for.

    Even and quadratic spacing in time are meant for processes on a bounded interval. The time of
    a variance exploding process is its noise level, which needs small steps at the end: Karras'
    grid replaces them.
    """
    if solver.grid == "karras":
        return p.grid
    uneven = p.time_is_noise_level and solver.grid in ("time", "quadratic")
    return "karras" if uneven else solver.grid
