"""Terminal velocity matching: the map's end moves with the velocity there."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import GuidesItself, mean_square, mean_velocity
from fewstep.objectives.guided import Folded
from fewstep.parameterization import time_dtype
from fewstep.schedules import TRAINING_TIMES, TimePairs, TrainingTimes
from fewstep.tangent import checked_tangent


@OBJECTIVES.register("tvm")
class TVM(GuidesItself):
    """``|dX/ds - sg(u_minus(X, s, s))|^2 + |u(x_r, r, r) - v|^2``, both divided by ``w^2``.

    ``X = X(x_t, t, s)``, ``dX/ds`` is a derivative in forward mode that the gradient goes through,
    and ``u_minus`` the running average, which knows the velocity where the map ends (Zhou et al.
    2025, Section 3, and the published code). The second term is the loss of a flow at a time ``r``
    of its own. Together they bound the Wasserstein distance of the map's samples to the data.

    With guidance ``v`` is ``w (z - x) + (1 - w) u_minus(x_r, r, r | no class)`` where the class is
    not hidden. The published networks scale their output by ``w``, ``X = x_t - (t - s) w F`` (their
    ``do_scale_param``), and have semi-Lipschitz norms; these do not, and learn the scale.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        velocity_times: distribution of ``r``.
        mu: decay of ``u_minus``.
        guidance: ``w``; 1 is no guidance.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Zhou, Parger, Haque, Song 2025, Section 3 (terminal velocity matching)"
    citation = "zhou2025terminal"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=3, backward=4, tangent=1)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str = "gap_first(P_mean=-0.8, P_std=1.0, s_mean=-0.4, s_std=1.0)",
        velocity_times: TrainingTimes | str = "lognormal(P_mean=-0.4, P_std=1.0)",
        mu: float = 0.99,
        guidance: float = 1.0,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times, mu=mu)
        self.velocity_times = TRAINING_TIMES.build(velocity_times)
        self.fold = Folded.of(f, guidance)
        self.how = checked_tangent(tangent)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return *self.pair(x), self.velocity_times.sample(x, self.f.p).to(time_dtype(x))

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (t, s, r) = self.f, times
        z = torch.randn_like(x)
        x_t, (x_r, line) = f.p.diffuse(x, t, z), f.p.draw(x, r, z)
        dropout = SharedDropout()
        with dropout:
            X, moving = f.rate(x_t, t, s, condition, how=self.how)
        with torch.no_grad():
            with dropout:
                there = mean_velocity(self.f_minus, X.detach(), s, s, condition)
            with dropout:
                v = self.velocity(x_r, r, line, condition)
        with dropout:
            u = mean_velocity(f, x_r, r, r, condition)
        loss = mean_square(moving - there) + mean_square(u - v)
        return loss / self.fold.w**2
