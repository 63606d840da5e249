"""The walk of a solver: the sampler of a diffusion model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization, per_row
from fewstep.registry import spec_of
from fewstep.sampling.model import Model
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.sampler import SAMPLERS, Sampler, checked_count
from fewstep.schedules import TIME_GRIDS, TimeGrid
from fewstep.solvers import SOLVERS, Denoiser, Integrator, default_grid, start_with_snr
from fewstep.traced import constant
from fewstep.trained import SOLVER_STEPS, Trained


@SAMPLERS.register("walk")
@dataclass(frozen=True)
class Walk(Sampler):
    """From ``T`` to the data in the steps of a solver: the sampler of a diffusion model.

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
    _solver: Integrator = field(init=False, repr=False, compare=False)
    _spend: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _measured: deque[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        solver = SOLVERS.build(self.solver)
        if isinstance(self.solver, str):  # however it was written
            object.__setattr__(self, "solver", spec_of(solver))
        if isinstance(self.grid, str):
            object.__setattr__(self, "grid", spec_of(TIME_GRIDS.build(self.grid)))
        object.__setattr__(self, "_solver", solver)
        object.__setattr__(self, "_spend", self._spent(solver))
        object.__setattr__(self, "_measured", deque(maxlen=1))

    def _spent(self, solver: Integrator) -> tuple[int, ...]:
        """Network evaluations of each step; none where the solver chooses its steps."""
        N, budget = checked_count(self.N, "steps"), checked_count(self.budget, "nfe")
        if N is not None and budget is not None:
            raise FewstepError("give the number of steps or of network evaluations, not both.")
        if solver.adaptive:
            return ()
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
    def deterministic(self) -> bool:
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
        trained.check_solver("a solver, its time grid or clip")

    def fitted(self, f: Model) -> Walk:
        self.check(f.trained)
        if self.clip and f.latents is not None:
            raise FewstepError("clip is for pixels; this model works on an autoencoder's latents.")
        return self

    @constant
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
        model = Denoiser(f.p, lambda x, t: f.D(x, t, condition), clip=self.clip)
        t = self.times(f.p)
        z = noise.normal(f.device, f.x_dtype)
        x = f.p.prior(z) if t[0] == f.p.T else f.p.sigma(per_row(t[0], z))[0] * z
        yield from self._solver.walk(
            model, x, t, self._spend, lambda: noise.normal(f.device, f.x_dtype)
        )
        self._measured.append(model.spent)


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
