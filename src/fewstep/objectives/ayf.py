"""Align Your Flow: distil a flow map in continuous time."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import FlowMapObjective, mean_square, mean_velocity
from fewstep.objectives.guided import FollowsTeacher
from fewstep.parameterization import expand
from fewstep.schedules import TimePairs
from fewstep.tangent import checked_tangent


@OBJECTIVES.register("ayf")
class AlignYourFlow(FollowsTeacher, FlowMapObjective):
    """Distil a flow map: ``|u - sg(u + g)|^2`` with the normalised derivative ``g`` of the map.

    Along the teacher's PF-ODE, of velocity ``v``, the map's end does not move where it is the flow:

        dX/dt = (v - u) - r (t - s) du/dt,        g = dX/dt / (|dX/dt| + c)

    with the root mean square ``|.|`` (Sabour et al. 2025, Eulerian map distillation, Algorithm 1).
    ``r`` rises from 0, where the loss is that of the teacher's velocity, to ``r_max`` over the
    first ``warmup`` of the training. Below 1 it leaves a little of that loss, which favours
    straight lines; with ``r_max = 1`` the minimum is the exact map.

    As in the paper the teacher may be guided by a weaker model (autoguidance, ``weak``), with the
    weight ``lambda`` as an input of the student (``guidance_range``); classifier-free guidance is a
    choice of ours. The paper's last part, a short adversarial fine-tuning, is not here.

    Args:
        f: the map in training, started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        times: distribution of the two times.
        r_max: last value of ``r``.
        warmup: part of the training in which ``r`` rises.
        c: what keeps small derivatives from being scaled up.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Sabour, Fidler, Kreis 2025, Algorithm 1 (Align Your Flow)"
    citation = "sabour2025align"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2, tangent=1, teacher=1)
    needs = Needs(
        teacher=TeacherUse.DISTIL,
        guided=True,
        two_time=True,
        processes=("rectified_flow",),
        flow=True,
    )

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        times: TimePairs | str = "gap_first(P_mean=-0.8, P_std=1.0)",
        r_max: float = 0.99,
        warmup: float = 0.1,
        c: float = 0.1,
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times)
        if not (0 < r_max <= 1 and 0 <= warmup <= 1 and c > 0):
            raise FewstepError(
                "ayf needs 0 < r_max <= 1, 0 <= warmup <= 1 and c > 0, got "
                f"{r_max}, {warmup} and {c}."
            )
        self.follow_guided(teacher, guidance, guidance_range, weak)
        self.r_max, self.warmup, self.c = r_max, warmup, c
        self.how = checked_tangent(tangent)

    def r(self, k: int) -> float:
        """``r`` of a step."""
        steps = self.warmup * self.K
        return min(self.r_max, k / steps) if steps else self.r_max

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        t, s = self.pair(x)
        return t, s, torch.full_like(t, self.r(k))

    def narrowed(self, times: tuple[Tensor, ...], gap: float) -> tuple[Tensor, ...]:
        t, s, r = times
        return t, s, 1 - gap * (1 - r)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t, s, r = times
        x_t, line = self.f.p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with torch.no_grad():
            v = self.velocity(x_t, t, line, condition)
        with dropout, torch.no_grad():  # v - u - (t - s) du/dt
            total = self.f.tangent(x_t, t, s, v, condition, how=self.how)[1]
        with dropout:
            u = mean_velocity(self.f, x_t, t, s, condition)
        share = expand(r, x)
        g = share * total + (1 - share) * (v - u.detach())
        g = g / (expand(mean_square(g).sqrt(), x) + self.c)
        return mean_square(u - (u + g).detach())

    def schedule(self, k: int) -> dict[str, float]:
        return {"r": self.r(k)}
