"""MeanFlow: the mean velocity between any two times."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import GuidesItself, WeighedByError, mean_velocity, sum_square
from fewstep.objectives.guided import Folded
from fewstep.schedules import TimePairs
from fewstep.tangent import checked_tangent


@OBJECTIVES.register("meanflow")
class MeanFlow(GuidesItself, WeighedByError):
    """Learn the mean velocity from scratch: ``|u - sg(v - (t - s) du/dt)|^2``.

    The right side is what ``u`` has to be where ``X(x_t, t, s)`` does not change along the line,
    ``du/dt = J_x u v + d_t u`` (Eq. 6 and 8 of the paper). Each image's square ``e`` is divided by
    ``sg(e + c)^power``. Of the images with ``s = t`` it is the loss of a rectified flow.

    With guidance ``v`` is ``omega (z - x) + kappa u(x_t, t, t | class) + (1 - omega - kappa)
    u(x_t, t, t | no class)`` (Eq. 19 and 21), where the class is not hidden: the map is then guided
    by itself, with the weight ``omega / (1 - kappa)``.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        apart: share of the images whose times differ.
        power: of the weight: 0 is the plain square, 1 makes images count alike.
        c: of the weight.
        omega: share of the data's velocity, for guidance.
        kappa: share of the map's own velocity, for guidance.
        interval: noise levels ``sigma / alpha`` that are guided; default all.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Geng, Deng, Bai, Kolter, He 2025, Algorithm 1 and Eq. 21 (MeanFlow)"
    citation = "geng2025mean"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=1.25, tangent=0.25)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str = "sorted(times=lognormal(P_mean=-0.4, P_std=1.0))",
        apart: float = 0.25,
        power: float = 1.0,
        c: float = 0.01,
        omega: float = 1.0,
        kappa: float = 0.0,
        interval: tuple[float, float] | None = None,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times, apart=apart, power=power, c=c)
        self.fold = Folded.by_shares(f, omega, kappa, interval)
        self.how = checked_tangent(tangent)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t, s = times
        x_t, line = self.f.p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            v = target = self.velocity(x_t, t, line, condition)
        with dropout:
            u = mean_velocity(self.f, x_t, t, s, condition)
        if n := self.first_apart(len(x)):
            first = slice(n)
            points = x_t[first], t[first], s[first], v[first], condition.rows(first)
            with dropout, torch.no_grad():  # v - u - (t - s) du/dt
                g = self.f.tangent(*points, how=self.how)[1]
            target = torch.cat([u[first].detach() + g, v[n:]])
        return self.weighed(sum_square(u - target))
