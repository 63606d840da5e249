"""Flow-anchored consistency models: a shortcut to the data that is held by the flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.adaptive import adaptive
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import FlowMapObjective, mean_square, mean_velocity
from fewstep.objectives.guided import FollowsTeacher
from fewstep.parameterization import expand
from fewstep.schedules import TRAINING_TIMES, TrainingTimes
from fewstep.tangent import checked_tangent
from fewstep.trained import CONSISTENCY


@OBJECTIVES.register("facm")
class FACM(FollowsTeacher, FlowMapObjective):
    """``sin(pi t/2) |u_0 - sg(u_0 + b(t) clamp(g))|^2 + |u_t - v|^2 + 1 - cos(u_t, v)``.

    ``u_0 = u(x_t, t, 0)`` leads to the data, ``g = v - u_0 - t du_0/dt`` is how its end moves along
    the teacher's flow of velocity ``v``, clamped to [-1, 1], and ``b(t) = 1 - (1 - t)^relaxation``
    makes the step smaller near the data: the accelerator (Peng et al. 2025, Eq. 9 and 10, and the
    published code, whose time runs the other way). ``u_t = u(x_t, t, t)`` is the flow itself: the
    anchor, without which the accelerator drifts. The paper tells the network which of both it is
    asked by times beyond 1; here by the end of the map. The accelerator's mean square ``e`` is
    divided by ``sg(e + c)^power``.

    Args:
        f: the map in training, started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        times: distribution of ``t``.
        relaxation: exponent of ``b``; larger is a bolder step.
        power: of the weight.
        c: of the weight.
        cosine: weight of the anchor's ``1 - cos``.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=1.75, interval=(0, 7))``; it becomes part of the student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    makes = CONSISTENCY
    paper = "Peng, Zhu, Liu, Wu, Li, Sun, Wu 2025, Eq. 9 and 10 (FACM)"
    citation = "peng2025flow"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=3, backward=2, tangent=1, teacher=1)
    needs = Needs(
        teacher=TeacherUse.DISTIL,
        guided=True,
        two_time=True,
        processes=("rectified_flow",),
        flow=True,
        eps_zero=True,
    )

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        times: TrainingTimes | str = "arctan(P_mean=-0.8, P_std=1.6)",
        relaxation: float = 0.5,
        power: float = 0.5,
        c: float = 1e-3,
        cosine: float = 1.0,
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times="sorted")
        if not (relaxation > 0 and cosine >= 0):
            raise FewstepError(
                f"facm needs relaxation > 0 and cosine >= 0, got {relaxation} and {cosine}."
            )
        self.follow_guided(teacher, guidance, guidance_range, weak)
        self.training_times = TRAINING_TIMES.build(times)
        self.relaxation, self.cosine, self.power, self.c = relaxation, cosine, power, c
        self.how = checked_tangent(tangent)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return (self.training_times.sample(x, self.f.p),)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (t,) = self.f, times
        x_t, line = f.p.draw(x, t, torch.randn_like(x))
        zero, dropout = torch.zeros_like(t), SharedDropout()
        with torch.no_grad():
            v = self.velocity(x_t, t, line, condition)
        with dropout, torch.no_grad():
            g = f.tangent(x_t, t, zero, v, condition, how=self.how)[1].clamp(-1, 1)
        with dropout:
            u_0 = mean_velocity(f, x_t, t, zero, condition)
        with dropout:
            u_t = mean_velocity(f, x_t, t, t, condition)
        step = expand(1 - (1 - t).clamp(min=0) ** self.relaxation, x)
        square = mean_square(u_0 - (u_0 + step * g).detach())
        accelerator = torch.sin(math.pi / 2 * t) * adaptive(square, self.power, self.c)
        anchor = mean_square(u_t - v)
        if self.cosine:
            angle = functional.cosine_similarity(u_t.flatten(1), v.flatten(1))
            anchor = anchor + self.cosine * (1 - angle)
        return accelerator + anchor
