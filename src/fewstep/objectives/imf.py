"""Improved MeanFlow: the mean velocity by a regression on the data alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition, everywhere
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import WeighedByError, mean_velocity, sum_square
from fewstep.objectives.self_guided import (
    at_time,
    drawn_intervals,
    log_uniform,
    own_range,
    with_weights,
    without_class,
)
from fewstep.parameterization import expand
from fewstep.schedules import TimePairs
from fewstep.tangent import checked_tangent


@OBJECTIVES.register("imf")
class ImprovedMeanFlow(WeighedByError):
    """``|u + (t - s) sg(du/dt) - v|^2``, with ``du/dt`` along the map's own velocity.

    What is compared with the data's velocity ``v = z - x`` is a function of ``x_t`` alone, so that
    the loss is a plain regression, where MeanFlow's target has the noise of ``v`` twice. The map's
    own velocity is ``v_own = u(x_t, t, t)``: the paper's first choice (its Section 4.1), which any
    network of two times can give. The paper's larger models have a second head for it, dropped
    after the training; here the diagonal is that head, and ``auxiliary`` weighs its loss
    ``|v_own - v|^2``. Both squares ``e`` are divided by ``sg(e + c)^power``.

    With ``guidance_range`` the weight ``w`` is an input of the network, drawn from a density
    ~ 1/w, and ``v`` becomes ``v + (1 - 1/w) (v_own - v_null)`` where the class is not hidden. With
    ``guidance_intervals`` it becomes so at the times of an interval alone, which is an input as
    well: as times on straight lines it begins evenly below 1/2 and ends evenly above, and where
    ``s = t`` it is all of them. The network is told their noise levels ``sigma / alpha``, from 0 to
    infinity. ``v_own`` is asked with the whole interval, and outside of the drawn one with the
    weight 1 (the published ``guidance_fn``). A row whose class is hidden is told the weight 1,
    where the published code tells it the drawn one.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        apart: share of the images whose times differ.
        power: of the weight: 0 is the plain square, 1 makes images count alike.
        c: of the weight.
        auxiliary: weight of the loss of the map's own velocity.
        guidance_range: lowest and highest of the guidance weights that are drawn, on a network
            with ``guidance_embedding``.
        guidance_intervals: draw the interval that is guided, too, on a network with
            ``interval_embedding``. Sampling then takes ``guided(w=7.5, interval=(0.67, 1.86))``.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Geng, Lu, Wu, Shechtman, Kolter, He 2025, Algorithm 1 (improved MeanFlow)"
    citation = "geng2025improved"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=2, backward=1.5, tangent=0.5)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str = "sorted(times=lognormal(P_mean=-0.4, P_std=1.0))",
        apart: float = 0.5,
        power: float = 1.0,
        c: float = 0.01,
        auxiliary: float = 1.0,
        guidance_range: tuple[float, float] | None = None,
        guidance_intervals: bool = False,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times, apart=apart, power=power, c=c)
        if not auxiliary >= 0:
            raise FewstepError(f"the weight of the auxiliary loss is at least 0, not {auxiliary}.")
        self.auxiliary = auxiliary
        self.weights = own_range(f, guidance_range, intervals=guidance_intervals)
        self.intervals = guidance_intervals
        self.how = checked_tangent(tangent)

    def conditioned(self, condition: Condition, x: Tensor) -> Condition:
        condition = super().conditioned(condition, x)
        if self.weights is None:
            return condition
        condition = with_weights(self.f, condition, log_uniform(self.weights, x))
        return condition.within(drawn_intervals(x)) if self.intervals else condition

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (t, s) = self.f, times
        condition = _of_pairs(condition, t, s)
        here = at_time(f.p, t, condition)
        x_t, line = f.p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with dropout:
            u = compound = own = mean_velocity(f, x_t, t, s, condition)  # own: where s = t
        if n := self.first_apart(len(x)):
            first = slice(n)
            x_1, t_1, s_1 = x_t[first], t[first], s[first]
            with torch.set_grad_enabled(self.auxiliary > 0 and torch.is_grad_enabled()), dropout:
                own_1 = mean_velocity(f, x_1, t_1, t_1, here.rows(first))
            along = own_1.detach()
            with dropout, torch.no_grad():
                points = x_1, t_1, s_1, along, condition.rows(first)
                rest = along - u[first] - f.tangent(*points, how=self.how)[1]  # (t - s) du/dt
            compound = torch.cat([u[first] + rest, u[n:]])
            own = torch.cat([own_1, u[n:]])
        with dropout, torch.no_grad():
            v = self.guided(x_t, t, line, own, here)
        loss = self.weighed(sum_square(compound - v))
        if self.auxiliary:
            loss = loss + self.auxiliary * self.weighed(sum_square(own - v))
        return loss

    def guided(
        self, x_t: Tensor, t: Tensor, v: Tensor, own: Tensor, condition: Condition
    ) -> Tensor:
        """``v + (1 - 1/w) (own - v_null)``, with the weight of each row."""
        if condition.w is None:
            return v
        null = mean_velocity(self.f, x_t, t, t, without_class(condition))
        return v + expand(1 - 1 / condition.w, x_t) * (own - null)


def _of_pairs(condition: Condition, t: Tensor, s: Tensor) -> Condition:
    """A condition whose interval is of two times: all noise levels where they are one."""
    if condition.interval is None:
        return condition
    same = (t == s)[:, None]
    whole = everywhere(condition.interval[:, 0])
    return replace(condition, interval=torch.where(same, whole, condition.interval))
