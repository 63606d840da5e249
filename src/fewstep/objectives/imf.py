"""Improved MeanFlow: the mean velocity by a regression on the data alone."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import checked_interval
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import WeighedByError, mean_velocity, sum_square
from fewstep.objectives.guided import check_guides_itself, learned_range
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
    ~ 1/w, and ``v`` becomes ``v + (1 - 1/w) (v_own - v_null)`` where the class is not hidden. The
    paper's networks are also told the interval of times that is guided; these are not.

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
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Geng, Lu, Wu, Shechtman, Kolter, He 2025, Algorithm 1 (improved MeanFlow)"
    citation = "geng2025improved"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=3, backward=2, tangent=1)

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
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times, apart=apart, power=power, c=c)
        if not auxiliary >= 0:
            raise FewstepError(f"the weight of the auxiliary loss is at least 0, not {auxiliary}.")
        self.auxiliary = auxiliary
        self.weights = _range_of(f, guidance_range)
        self.how = checked_tangent(tangent)

    def conditioned(self, condition: Condition, x: Tensor) -> Condition:
        condition = super().conditioned(condition, x)
        if self.weights is None:
            return condition
        low, high = (math.log(w) for w in self.weights)
        w = (low + (high - low) * torch.rand(len(x), device=x.device)).exp()
        wanted = condition.wanted(self.f.num_classes)
        if wanted is not None:  # a row without its class is not guided
            w = torch.where(wanted, w, 1.0)
        return replace(condition, w=w)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (t, s) = self.f, times
        x_t, line = f.p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with torch.set_grad_enabled(self.auxiliary > 0 and torch.is_grad_enabled()), dropout:
            own = mean_velocity(f, x_t, t, t, condition)
        along = own.detach()
        with dropout, torch.no_grad():
            v = self.guided(x_t, t, line, along, condition)
        with dropout, torch.no_grad():
            g = f.tangent(x_t, t, s, along, condition, how=self.how)[1]
        with dropout:
            u = mean_velocity(f, x_t, t, s, condition)
        compound = u + (along - u - g).detach()  # u + (t - s) sg(du/dt)
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
        without = replace(condition.null(), w=torch.ones_like(condition.w))
        return v + expand(1 - 1 / condition.w, x_t) * (
            own - mean_velocity(self.f, x_t, t, t, without)
        )


def _range_of(f: FlowMap, weights: tuple[float, float] | None) -> tuple[float, float] | None:
    """Guidance weights of a map that learns them as an input and guides itself.

    Raises:
        FewstepError: see `learned_range`; a range below 1; a network that learns no null class.
    """
    if weights is None or not f.network.guidance_embedding:
        return learned_range(f, weights)
    low, _ = checked_interval(weights)
    if low < 1:
        raise FewstepError(f"a map that guides itself learns weights from 1 on, not from {low:g}.")
    check_guides_itself(f)
    return learned_range(f, weights)
