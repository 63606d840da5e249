"""The walk of a solver: the sampler of a diffusion model."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.guidance import Guided, guidance_of
from fewstep.mode import evaluating
from fewstep.parameterization import Parameterization, per_row
from fewstep.registry import spec_of
from fewstep.sampling.model import Model, flows
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.sampler import SAMPLERS, Sampler, checked_count
from fewstep.schedules import TIME_GRIDS, TimeGrid
from fewstep.solvers import SOLVERS, Denoiser, Integrator, default_grid, start_with_snr
from fewstep.trained import SOLVER_STEPS, Trained

COARSE = 10
"""Steps below which the grid ``straight`` is mostly better than Karras', of Euler and Heun."""


@SAMPLERS.register("walk")
@dataclass(frozen=True)
class Walk(Sampler):
    """From ``T`` to the data in steps of a solver, as ``fewstep list solvers`` shows them.

    The sampler of a diffusion model.

    Solvers that end at 0 walk ``N`` times from ``T`` to ``t_min`` and then a last step to 0, where
    the velocity is not defined and the Euler step is the denoiser (Karras et al. 2022,
    Algorithm 1): with Heun ``2 N - 1`` evaluations. The others end at ``t_min``, after ``N``
    steps.

    Args:
        N: number of steps; default 18. Adaptive solvers pay no heed to it.
        solver: a solver or its spec; see `fewstep.solvers.SOLVERS`.
        grid: a grid of times or its spec; default that of the solver's paper.
        budget: network evaluations to spend exactly, instead of ``N``; ``nfe`` in a spec.
        clip: clip the denoised ``D`` of every evaluation to [-1, 1]; see `Denoiser`.
        guidance: classifier-free guidance, as a weight or a spec such as ``guided(w=2, interval=
            (0.3, 5))``, or autoguidance, `fewstep.guidance.Autoguided`; default the model's own. A
            budget pays its second evaluations, too. A model that takes the weight as an input is
            told it, and needs none.
        unit: start from noise of deviation 1, as the library diffusers does with every process that
            preserves the variance, and not of ``sigma`` of the first time.

    Raises:
        FewstepError: no steps, both steps and a budget, an unknown solver or grid, or a budget that
            the solver cannot spend exactly.
    """

    spelled: ClassVar[Mapping[str, str]] = {"N": "steps", "budget": "nfe"}

    N: int | None = None
    solver: Integrator | str = "heun"
    grid: TimeGrid | str | None = None
    budget: int | None = None
    clip: bool = False
    guidance: Guided | float | str | None = None
    unit: bool = False
    _solver: Integrator = field(init=False, repr=False, compare=False)
    _spend: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _tells: bool = field(init=False, repr=False, compare=False, default=False)
    _measured: deque[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        solver = SOLVERS.build(self.solver)
        if isinstance(self.solver, str):  # however it was written
            object.__setattr__(self, "solver", spec_of(solver))
        if self.grid is not None:
            grid = TIME_GRIDS.build(self.grid)
            object.__setattr__(self, "grid", spec_of(grid) if isinstance(self.grid, str) else grid)
        if self.guidance is not None:
            object.__setattr__(self, "guidance", guidance_of(self.guidance))
        object.__setattr__(self, "_solver", solver)
        object.__setattr__(self, "_spend", self._spent(solver))
        object.__setattr__(self, "_measured", deque(maxlen=1))
        if solver.adaptive:
            object.__setattr__(self, "N", None)
            object.__setattr__(self, "budget", None)

    def _spent(self, solver: Integrator) -> tuple[int, ...]:
        """Network evaluations of each step; none where the solver chooses its steps."""
        N, budget = checked_count(self.N, "steps"), checked_count(self.budget, "nfe")
        if N is not None and budget is not None:
            raise FewstepError("give the number of steps or of network evaluations, not both.")
        if solver.adaptive or (budget is not None and self._doubles):
            return ()  # which the model decides
        return solver.evaluations(N or SOLVER_STEPS) if budget is None else solver.split(budget)

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps, so that `nfe` is measured."""
        return self._solver.adaptive

    @property
    def count(self) -> int:
        if self.adaptive:
            raise FewstepError(f"{self.solver} chooses its own steps, which nobody knows before.")
        return len(self._spend)

    @property
    def least(self) -> int:
        return self.budget or sum(self._spend)

    @property
    def deterministic(self) -> bool:
        return self._solver.convergence is not None and not self.adaptive

    @property
    def guided(self) -> Guided | None:
        """The guidance, where it takes second evaluations, of the network or of another."""
        guidance = self.guidance
        return guidance if isinstance(guidance, Guided) and not guidance.off else None

    @property
    def _doubles(self) -> bool:
        return self.guided is not None and self.guided.doubles and not self._tells

    @property
    def nfe(self) -> int:
        """Network evaluations per sample; of an adaptive solver the mean of its last batch.

        Raises:
            FewstepError: of an adaptive solver that has not sampled yet; of guidance in an interval
                of noise levels that has not met a model.
        """
        if not self.adaptive:
            if not self._doubles:
                return sum(self._spend)
            if self.budget is not None:
                return self.budget
            if self.guided is not None and self.guided.everywhere:
                return 2 * sum(self._spend)
        if not self._measured:
            who = "an adaptive solver" if self.adaptive else "guidance in an interval"
            raise FewstepError(f"{who} knows its evaluations only after sampling.")
        return round(self._measured[0])

    def check(self, trained: Trained) -> None:
        trained.check_solver("a solver, its time grid or clip")

    def fitted(self, f: Model) -> Walk:
        self.check(f.trained)
        f.trained.check_diagonal("a solver", flow=flows(f))
        if self.clip and f.latents is not None:
            raise FewstepError("clip is for pixels; this model works on an autoencoder's latents.")
        default = f.trained.guidance
        own = self if self.guidance is not None or default is None else self._with(default)
        if own._is_told(f):
            return own._telling(f)
        if own.guided is not None:
            own.guided.check(f)
        return own._counted(f.p) if own._doubles and not own.adaptive else own

    def _with(self, guidance: float) -> Walk:
        own = replace(self, guidance=guidance)
        object.__setattr__(own, "_measured", self._measured)
        return own

    def _is_told(self, f: Model) -> bool:
        """Whether the guidance is a weight that the network takes as an input."""
        return f.trained.weights is not None and type(self.guidance) is Guided

    def _telling(self, f: Model) -> Walk:
        """This walk, in which the network is told the weight, in one evaluation."""
        assert isinstance(self.guidance, Guided)
        f.trained.check_told(self.guidance.w, everywhere=self.guidance.everywhere)
        own = copy(self)
        object.__setattr__(own, "_tells", True)
        return own._spending(own._spent(self._solver))

    def _counted(self, p: Parameterization) -> Walk:
        """This walk of guided evaluations in a process, whose second ones are counted."""
        if self.budget is None:
            self._measured.append(self._cost(p, self._spend))
            return self
        own = self._spending(_split(self._solver, self.budget, partial(self._cost, p)))
        self._measured.append(self.budget)
        return own

    def _spending(self, spend: tuple[int, ...]) -> Walk:
        """This walk with so many evaluations of the denoiser in each step."""
        own = copy(self)
        object.__setattr__(own, "_spend", spend)
        return own

    def _cost(self, p: Parameterization, spend: tuple[int, ...]) -> int:
        """Network evaluations of a walk, from the times at which it asks the denoiser."""
        assert self.guided is not None
        x, own = torch.zeros(1, 1, dtype=torch.float64), self._spending(spend)
        model = Denoiser(p, lambda x, t: x, cost=partial(self.guided.evaluations, p))
        deque(self._solver.walk(model, x, own.times(p), spend, lambda: x), maxlen=0)
        return round(model.spent)

    def coarse(self, p: Parameterization) -> bool:
        """Whether it has so few steps that Karras' grid, which nobody asked for, is a bad one."""
        if self.grid is not None or self.adaptive or not 1 < len(self._spend) < COARSE:
            return False
        return self._solver.grid == "karras" and default_grid(self._solver, p) == "karras"

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

    def reached(self, p: Parameterization) -> list[float]:
        return self.times(p)[1:]

    def states(
        self, f: Model, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        model = self._denoiser(f, condition)
        t = self.times(f.p)
        z = noise.normal(f.device, f.x_dtype)
        x = z if self.unit else self._prior(f.p, t[0], z)
        with evaluating(self.guided and self.guided.other):
            yield from self._solver.walk(
                model, x, t, self._spend, lambda: noise.normal(f.device, f.x_dtype)
            )
        if self.adaptive:
            self._measured.append(model.spent)

    @staticmethod
    def _prior(p: Parameterization, t: float, z: Tensor) -> Tensor:
        """Where a walk from ``t`` starts, from ``z ~ N(0, I)`` [B, ...]."""
        return p.prior(z) if t == p.T else p.sigma(per_row(t, z))[0] * z

    def _denoiser(self, f: Model, condition: Condition) -> Denoiser:
        """The model as the solver sees it, guided where it is to be."""
        if self._is_told(f):
            return Denoiser(f.p, partial(self._told, f, condition), clip=self.clip)
        if self.guided is None:
            return Denoiser(f.p, lambda x, t: f.D(x, t, condition), clip=self.clip)
        D = self.guided(f).D
        cost = partial(self.guided.evaluations, f.p) if self.adaptive else None
        return Denoiser(f.p, lambda x, t: D(x, t, condition), clip=self.clip, cost=cost)

    def _told(self, f: Model, condition: Condition, x: Tensor, t: Tensor | float) -> Tensor:
        assert isinstance(self.guidance, Guided)
        return f.D(x, t, self.guidance.told(f.p, per_row(t, x), condition, x))


def _split(
    solver: Integrator, budget: int, cost: Callable[[tuple[int, ...]], int]
) -> tuple[int, ...]:
    """Evaluations of the denoiser in each step that cost a budget of the network's, exactly.

    Raises:
        FewstepError: there are none; the message names the nearest counts that can be spent.
    """

    def spends(count: int) -> tuple[int, ...]:
        while True:
            with suppress(FewstepError):
                return solver.split(count)
            count += 1

    least = bisect_left(range(1, budget + 1), budget, key=lambda n: cost(spends(n)))
    near = {cost(spend): spend for n in range(-3, 3) for spend in [spends(max(1, least + n))]}
    if budget in near:
        return near[budget]
    below = max((n for n in near if n < budget), default=None)
    above = min(n for n in near if n > budget)
    could = f"{above} is least" if below is None else f"it can spend {below} or {above}"
    raise FewstepError(f"a guided walk cannot spend exactly {budget} network evaluations: {could}.")


def ODE(
    N: int | None = None,
    solver: Integrator | str = "heun",
    grid: TimeGrid | str | None = None,
    budget: int | None = None,
    clip: bool = False,
) -> Walk:
    """A `Walk` along the PF-ODE: its solver draws no noise on the way.

    Raises:
        FewstepError: a solver that does; and as for `Walk`.
    """
    walk = Walk(N, solver, grid, budget, clip)
    if SOLVERS.build(solver).convergence is None:
        raise FewstepError(f"{solver} solves no ODE, it draws noise: use Walk.")
    return walk
