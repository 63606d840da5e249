"""Consistency mid-training."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.guided import FollowsTeacher
from fewstep.parameterization import per_row, time_dtype
from fewstep.schedules import LogSNRGrid
from fewstep.solvers import Level, data_prediction, start_with_snr
from fewstep.trained import CONSISTENCY
from fewstep.whole import whole


@OBJECTIVES.register("cmt")
class CMT(FollowsTeacher):
    """Learn a teacher's trajectories before a consistency training: every state gives their end.

    ``d(f(x_{t_i}, t_i), x_{t_N})`` over the states ``i = 0..N-1`` of a walk of the teacher's by
    DPM-Solver++(2M) in ``N`` steps, even in log-SNR, from ``x_T = alpha x + sigma z`` of an image
    and a noise. Nothing is bootstrapped and nothing stopped: it is a regression. Of a batch of
    ``B`` the first ``B/N`` images begin a walk each, and all states of all walks are trained on.
    What it makes is a consistency model already; the paper goes on with ECT at a constant gap.

    Args:
        f: the map in training, started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        N: steps of a walk, each one evaluation of the teacher; one more where ``eps = 0``.
        distance: ``d``, how two images are compared; the paper has LPIPS for images.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.

    Raises:
        FewstepError: fewer than one step.
    """

    makes = CONSISTENCY
    paper = "Hu, Lai, Mitsufuji, Ermon 2025 (CMT)"
    citation = "hu2025cmt"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=1, teacher=1)
    needs = Needs(teacher=TeacherUse.DISTIL, guided=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        N: int = 16,
        distance: Distance | str = "l2",
        guidance: float | str | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        super().__init__(f, K)
        if whole(N, "N") < 1:
            raise FewstepError(f"cmt walks in at least one step, got N={N}.")
        self.follow_guided(teacher, guidance, weak=weak)
        self.N, self.d = N, DISTANCES.build(distance)
        p = f.p
        times = LogSNRGrid()(N + 1, p, start_with_snr(p)).tolist()
        ends = times if p.eps else [*times, 0.0]
        self.levels = [Level.at(p, t) for t in ends]

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        """Which of the states of all walks stand in the rows [B], and their times [B]."""
        walks = -(-len(x) // self.N)
        rows = torch.randperm(walks * self.N)[: len(x)]
        t = torch.tensor([level.t for level in self.levels[: self.N]], dtype=torch.float64)
        return rows.to(x.device), t[rows % self.N].to(time_dtype(x)).to(x.device)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        (rows, t), N = times, self.N
        walk, state = rows // N, rows % N
        first = x[: -(-len(x) // N)]
        told = condition.rows(slice(0, len(first)))
        with torch.no_grad():
            states, end = self.walked(first, told)
        return self.d(self.f(states[state, walk], t, condition=condition.rows(walk)), end[walk])

    def walked(self, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """The states of a walk from each image ``x`` [W, *shape], and its end.

        [N, W, *shape] and [W, *shape].
        """
        start = per_row(self.levels[0].t, x)
        x_T = self.f.p.diffuse(x, start, torch.randn_like(x))
        states = [x_T]
        states += data_prediction(
            lambda x, t: self.guide.D(x, per_row(t, x), condition), x_T, self.levels
        )
        return torch.stack(states[: self.N]), states[-1]
