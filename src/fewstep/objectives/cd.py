"""Consistency distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.consistency import ConsistencyObjective, neighbours
from fewstep.objectives.guided import FollowsTeacher
from fewstep.schedules import INDEX_DISTRIBUTIONS, ConstantN, IndexDistribution
from fewstep.solvers import PHI, Solver
from fewstep.weightings import Weighting


@OBJECTIVES.register("cd")
class CD(FollowsTeacher, ConsistencyObjective):
    """Distil a diffusion model: agree along its PF-ODE.

    ``lambda_(t_{n+1}, t_n) d(f(x_{n+1}, t_{n+1}), f_minus(x_hat_n, t_n))`` with
    ``x_{n+1} = x + t_{n+1} z`` and ``x_hat_n`` one step ``Phi`` of the teacher's PF-ODE from there.

    Args:
        f: the map in training, usually started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        N: number of grid points.
        solver: ``Phi``, a one-step solver or its spec.
        mu: decay of ``f_minus``; 0 makes it ``f`` under stop-gradient.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.
        times: distribution of ``n``, the place on the grid: uniform or lognormal.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
    """

    paper = "Song, Dhariwal, Chen, Sutskever 2023, Algorithm 2 (consistency distillation)"
    citation = "song2023consistency"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2, teacher=2)
    needs = Needs(teacher=TeacherUse.DISTIL, guided=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        N: int = 18,
        solver: Solver | str = "heun",
        mu: float = 0.0,
        distance: Distance | str = "l2",
        weighting: Weighting | str = "uniform",
        times: IndexDistribution | str = "uniform",
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        if not 0 <= mu < 1:
            raise FewstepError(f"CD needs 0 <= mu < 1, got mu={mu}.")
        decay: Callable[[int], float] | None = (lambda k: mu) if mu else None
        super().__init__(f, K, mu=decay, distance=distance, weighting=weighting)
        self.follow_guided(teacher, guidance, guidance_range, weak)
        self.N = ConstantN(N)
        self.Phi = PHI.build(solver)
        self.times = INDEX_DISTRIBUTIONS.build(times)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return neighbours(self.N(k), self.times, self.f.p, x)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t_next, t_n = times
        x_next = self.f.p.diffuse(x, t_next, torch.randn_like(x))
        with torch.no_grad():
            x_hat = self.Phi.step(
                lambda x, t: self.guide.velocity(x, t, condition), x_next, t_next, t_n
            )
        return self.loss(x_next, t_next, x_hat, t_n, condition)
