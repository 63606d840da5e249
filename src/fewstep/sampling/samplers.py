"""Samplers: one step, multistep, the walk of a solver, an autoencoder's prior."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, cast

from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import Autoencoder
from fewstep.parameterization import Parameterization
from fewstep.registry import Registry
from fewstep.sampling.noise import NoiseStreams
from fewstep.schedules import TIME_GRIDS, TimeGrid, nested_times
from fewstep.solvers import SOLVERS, Denoiser, Integrator, ddim_step, default_grid, start_with_snr
from fewstep.trained import Trained


class Sampler(ABC):
    """From noise at time ``T`` to images."""

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Network evaluations per sample."""

    @abstractmethod
    def check(self, trained: Trained) -> None:
        """Raise `FewstepError` where a model was trained for something else."""

    @abstractmethod
    def states(
        self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        """What stands after each step, in the space of the model: [B, *f.shape]."""

    def steps(
        self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        """What stands after each step, one row per stream of ``noise``: [B, *f.image_shape].

        The last are the images, about [-1, 1], not clipped. States of a latent space are decoded.
        """
        self.check(f.trained)
        return (f.image(x) for x in self.states(f, noise, condition))

    def __call__(self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE) -> Tensor:
        """One image per stream of ``noise``: [B, *f.image_shape], about [-1, 1], not clipped."""
        self.check(f.trained)
        (x,) = deque(self.states(f, noise, condition), maxlen=1)
        return f.image(x)


SAMPLERS: Registry[Sampler] = Registry("sampler")
"""What turns noise into images, by name."""


@SAMPLERS.register("jumps")
@dataclass(frozen=True)
class Multistep(Sampler):
    """``x <- f(x_T, T)``; then for each ``tau``: noise up to ``tau``, and ``x <- f(x_tau, tau)``.

    Multistep consistency sampling, Song et al. 2023, Algorithm 1; without ``taus`` it is the
    one-step sampler.

    Args:
        taus: decreasing times between ``T`` and ``eps``.
    """

    taus: tuple[float, ...] = ()

    @property
    def nfe(self) -> int:
        return 1 + len(self.taus)

    def check(self, trained: Trained) -> None:
        trained.check_jumps(self.nfe)

    def states(
        self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        p = f.p
        check_taus(self.taus, p)
        x = f(p.prior(noise.normal(f.device, f.x_dtype)), p.T, condition=condition)
        yield x
        eps = f.time(p.eps, x)
        for tau in self.taus:
            t = f.time(tau, x)
            x = f(p.renoise(x, eps, t, noise.normal(f.device, f.x_dtype)), t, condition=condition)
            yield x


def check_taus(taus: Sequence[float], p: Parameterization) -> None:
    """Raise `FewstepError` unless ``T > taus[0] > taus[1] > ... > eps``."""
    times = [p.T, *taus, p.eps]
    if any(not later < earlier for earlier, later in pairwise(times)):
        raise FewstepError(
            f"time points must decrease between T={p.T:g} and eps={p.eps:g}, got "
            f"{', '.join(f'{tau:g}' for tau in taus)}."
        )


@SAMPLERS.register("walk")
@dataclass(frozen=True)
class Walk(Sampler):
    """From ``T`` to the data in the steps of a solver: the sampler of a diffusion model.

    Solvers that end at 0 walk ``N`` times from ``T`` to ``t_min`` and then a last step to 0, where
    the velocity is not defined and the Euler step is the denoiser (Karras et al. 2022,
    Algorithm 1): with Heun ``2 N - 1`` evaluations. The others end at ``t_min``, after ``N``
    steps.

    Args:
        N: number of steps. Adaptive solvers pay no heed to it.
        solver: a solver or its spec; see `fewstep.solvers.SOLVERS`.
        grid: a grid of times or its spec; default that of the solver's paper.
        budget: network evaluations to spend exactly, instead of ``N``.
        clip: clip the denoised ``D`` of every evaluation to [-1, 1]; see `Denoiser`.

    Raises:
        FewstepError: no steps, an unknown solver or grid, or a budget that the solver cannot
            spend exactly.
    """

    N: int = 18
    solver: Integrator | str = "heun"
    grid: TimeGrid | str | None = None
    budget: int | None = None
    clip: bool = False
    _solver: Integrator = field(init=False, repr=False, compare=False)
    _spend: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _measured: deque[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        solver = SOLVERS.build(self.solver)
        if self.grid is not None:
            TIME_GRIDS.build(self.grid)
        if solver.adaptive:
            spend: tuple[int, ...] = ()
        else:
            spend = solver.evaluations(self.N) if self.budget is None else solver.split(self.budget)
        object.__setattr__(self, "_solver", solver)
        object.__setattr__(self, "_spend", spend)
        object.__setattr__(self, "_measured", deque(maxlen=1))

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps, so that `nfe` is measured."""
        return self._solver.adaptive

    @property
    def deterministic(self) -> bool:
        """Whether the noise at ``T`` decides the sample, after known steps."""
        return self._solver.convergence is not None and not self.adaptive

    @property
    def nfe(self) -> int:
        """Network evaluations per sample; of an adaptive solver the mean of its last batch.

        Raises:
            FewstepError: of an adaptive solver that has not sampled yet.
        """
        if not self.adaptive:
            return sum(self._spend)
        if not self._measured:
            raise FewstepError("an adaptive solver knows its evaluations only after sampling.")
        return round(self._measured[0])

    def check(self, trained: Trained) -> None:
        trained.check_solver()

    def times(self, p: Parameterization) -> list[float]:
        """The decreasing times of the walk, in a process."""
        grid = TIME_GRIDS.build(self.grid or default_grid(self._solver, p))
        start = start_with_snr(p) if self._solver.needs_snr or grid.needs_snr else p.T
        zero = [0.0] * self._solver.to_zero
        points = len(self._spend) + (not zero)
        if self.adaptive:
            return [start, p.t_min, *zero]
        if points == 1:
            return [start, *zero]
        return [*grid(points, p, start).tolist(), *zero]

    def states(
        self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        model = Denoiser(f.p, lambda x, t: f.D(x, t, condition), clip=self.clip)
        t = self.times(f.p)
        z = noise.normal(f.device, f.x_dtype)
        x = f.p.prior(z) if t[0] == f.p.T else f.p.sigma(f.time(t[0], z))[0] * z
        yield from self._solver.walk(
            model, x, t, self._spend, lambda: noise.normal(f.device, f.x_dtype)
        )
        self._measured.append(model.spent)


@dataclass(frozen=True)
class ODE(Walk):
    """A `Walk` along the PF-ODE: a solver that draws no noise on the way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._solver.convergence is None:
            raise FewstepError(f"{self.solver} solves no ODE, it draws noise: use Walk.")


@SAMPLERS.register("nested_ddim")
@dataclass(frozen=True)
class NestedDDIM(Sampler):
    """``N`` DDIM steps on the grid of a model that was distilled for just these steps.

    The grid is `fewstep.schedules.nested_times`; Salimans & Ho 2022, Algorithm 2.
    """

    N: int
    deterministic: ClassVar[bool] = True

    @property
    def nfe(self) -> int:
        return self.N

    def check(self, trained: Trained) -> None:
        trained.check_nested(self.N)

    def times(self, p: Parameterization) -> list[float]:
        """``T`` and the time that each step reaches."""
        return nested_times(self.N, p).tolist()

    def states(
        self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        x = f.p.prior(noise.normal(f.device, f.x_dtype))
        for now, after in pairwise(self.times(f.p)):
            t, s = f.time(now, x), f.time(after, x)
            x = ddim_step(x, f.D(x, t, condition), t, s, f.p)
            yield x


@SAMPLERS.register("prior")
@dataclass(frozen=True)
class Prior(Sampler):
    """``g(z)`` of ``z ~ N(0, I)``: what an autoencoder by itself makes of noise.

    Kingma & Welling 2014. The latent is the first numbers of the sample's noise.
    """

    @property
    def nfe(self) -> int:
        return 1

    def check(self, trained: Trained) -> None:
        trained.check_prior()

    def states(
        self, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        autoencoder = cast("Autoencoder", f.network)
        d = math.prod(autoencoder.latent_shape)
        z = (
            noise.normal(f.device, f.x_dtype)
            .flatten(1)[:, :d]
            .unflatten(1, autoencoder.latent_shape)
        )
        yield autoencoder.decode(z.to(f.dtype)).to(z.dtype)
