"""alpha-Flow: from trajectories to MeanFlow by a gap that closes."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import (
    GuidesItself,
    WeighedByError,
    mean_square,
    mean_velocity,
    moved,
)
from fewstep.objectives.guided import Folded
from fewstep.parameterization import expand
from fewstep.schedules import SigmoidFall, TimePairs


@OBJECTIVES.register("alphaflow")
class AlphaFlow(GuidesItself, WeighedByError):
    """``alpha |u - sg(alpha v + (1 - alpha) u(x_m, m, s))|^2`` at ``m = t - alpha (t - s)``.

    ``x_m = x_t - (t - m) v`` is on the line of the data. With ``alpha = 1`` it is the regression on
    whole lines, which is easy and not the flow; as ``alpha`` falls its minimum becomes the flow map
    and its gradient that of MeanFlow (the paper's Theorem 1). No derivative in forward mode is
    needed. ``alpha(k) = 1 - sigmoid(...)`` falls from 1 to ``least``, where the published code goes
    over to MeanFlow's derivative; what that changes is of the order of ``least``. Each image's mean
    square ``e`` is divided by ``sg(e + c)^power``. Guidance is that of MeanFlow.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        apart: share of the images whose times differ; of the others ``alpha = 1``.
        start: part of the training at which alpha begins to fall.
        end: part of the training at which it has fallen.
        steepness: of the fall.
        least: the last alpha.
        clip: largest value of the target; None for no limit.
        power: of the weight.
        c: of the weight.
        omega: share of the data's velocity, for guidance.
        kappa: share of the map's own velocity, for guidance.
        interval: noise levels ``sigma / alpha`` that are guided; default all.
    """

    paper = "Zhang, Siarohin, Menapace, Vasilkovsky, Tulyakov, Qu, Skorokhodov 2025 (alpha-Flow)"
    citation = "zhang2025alphaflow"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=1.5)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str = "sorted(times=lognormal(P_mean=-0.4, P_std=1.0))",
        apart: float = 0.5,
        start: float = 0.0,
        end: float = 1.0,
        steepness: float = 25.0,
        least: float = 0.005,
        clip: float | None = None,
        power: float = 1.0,
        c: float = 1e-3,
        omega: float = 1.0,
        kappa: float = 0.0,
        interval: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(f, K, times=times, apart=apart, power=power, c=c)
        if clip is not None and not clip > 0:
            raise FewstepError(f"the largest value of a target is above 0, not {clip}.")
        self.alpha = SigmoidFall(K, start, end, steepness, least)
        self.clip = clip
        self.fold = Folded.by_shares(f, omega, kappa, interval)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        t, s = super().draw_times(x, k)
        return t, s, torch.where(s < t, self.alpha(k), 1.0)

    def narrowed(self, times: tuple[Tensor, ...], gap: float) -> tuple[Tensor, ...]:
        t, s, alpha = times
        return t, s, torch.where(s < t, gap * alpha, alpha)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (t, s, alpha) = self.f, times
        x_t, line = f.p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            v = target = self.velocity(x_t, t, line, condition)
        with dropout:
            u = mean_velocity(f, x_t, t, s, condition)
        if n := self.first_apart(len(x)):
            first = slice(n)
            t_1, s_1, share = t[first], s[first], expand(alpha[first], x)
            m = t_1 - alpha[first] * (t_1 - s_1)
            with dropout, torch.no_grad():
                x_m = moved(x_t[first], v[first], t_1, m)
                u_m = mean_velocity(f, x_m, m, s_1, condition.rows(first))
            target = torch.cat([share * v[first] + (1 - share) * u_m, v[n:]])
        target = target if self.clip is None else target.clamp(-self.clip, self.clip)
        return alpha * self.weighed(mean_square(u - target))

    def schedule(self, k: int) -> dict[str, float]:
        return {"alpha": self.alpha(k)}
