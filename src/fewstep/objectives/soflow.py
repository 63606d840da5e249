"""SoFlow: solution functions of the flow by differences that shrink."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
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
from fewstep.schedules import TRAINING_TIMES, ExponentialFall, TimePairs, TrainingTimes

LEAST_GAP = 1e-4


@OBJECTIVES.register("soflow")
class SoFlow(GuidesItself, WeighedByError):
    """``|u - sg(u + q)|^2 / 2`` with the difference quotient ``q`` of ``X`` along a line.

    ``q = (X(x_t, t, s) - X(x_m, m, s)) / (t - m)`` with ``x_m = x_t - (t - m) v`` and
    ``m = t - rho(k) (t - s)``, ``rho`` falling from ``first`` to ``last`` as
    ``first (last / first)^(k/K)``: as it vanishes ``q`` is ``dX/dt``, without forward mode. Its
    gradient in ``u`` is that of the published code's linear loss, ``-q`` times the weight. Of the
    images with ``s = t`` the loss is ``|u(x_t, t, t) - v|^2``. Each mean square ``e`` is divided by
    ``sg(e + c)^power``.

    With guidance ``v`` is ``mix (v + (w - 1) fade(t) (v - v_null)) + (1 - mix) v_class``, where the
    guidance fades out towards the noise: ``fade = 1`` up to ``t = 0.8`` and ``1 - exp(-0.025 d /
    (1 - d))`` with ``d = (1 - t) / 0.2`` beyond.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        apart: share of the images whose times differ.
        velocity_times: distribution of the time of the others.
        first: ``rho`` at the first step.
        last: ``rho`` at the last.
        power: of the weight.
        c: of the weight.
        guidance: ``w``; 1 is no guidance.
        mix: share of the data's velocity where there is guidance.
    """

    paper = "Luo, Yuan, Liu 2025, Section 4 (SoFlow)"
    citation = "luo2025soflow"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=1.25)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str = (
            "separate(t=lognormal(P_mean=0.2, P_std=0.8), s=lognormal(P_mean=-1.0, P_std=0.8))"
        ),
        apart: float = 0.25,
        velocity_times: TrainingTimes | str = "lognormal(P_mean=-0.2, P_std=1.0)",
        first: float = 0.1,
        last: float = 0.002,
        power: float = 1.0,
        c: float = 0.01,
        guidance: float = 1.0,
        mix: float = 0.25,
    ) -> None:
        super().__init__(f, K, times=times, apart=apart, power=power, c=c)
        self.velocity_times = TRAINING_TIMES.build(velocity_times)
        self.rho = ExponentialFall(K, first, last)
        self.fold = Folded.of(f, guidance, 1.0 if guidance == 1 else mix, fade=fade)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        t, s = self.pair(x)
        apart = self.drawn_apart(t)
        t = torch.where(apart, t, self.velocity_times.sample(x, self.f.p).to(t))
        s = torch.where(apart, torch.minimum(s, t - LEAST_GAP), t)
        m = torch.minimum(t - self.rho(k) * (t - s), t - LEAST_GAP)
        return t, s, torch.where(apart, torch.maximum(m, s), t)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (t, s, m) = self.f, times
        x_t, line = f.p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            v = self.velocity(x_t, t, line, condition)
        with dropout:
            u = mean_velocity(f, x_t, t, s, condition)
        target, apart = v, s < t
        if n := self.first_apart(len(x)):
            first = slice(n)
            at = t[first], s[first], m[first]
            q = self.quotient(x_t[first], u[first], v[first], at, condition.rows(first), dropout)
            two = torch.where(expand(apart[first], x), u[first].detach() + q, v[first])
            target = torch.cat([two, v[n:]])
        return self.weighed(mean_square(u - target)) * torch.where(apart, 0.5, 1.0)

    @torch.no_grad()
    def quotient(
        self,
        x_t: Tensor,
        u: Tensor,
        v: Tensor,
        times: tuple[Tensor, Tensor, Tensor],
        condition: Condition,
        dropout: SharedDropout,
    ) -> Tensor:
        """``q`` of images whose times are ``t``, ``s``, and ``m`` between: [n, *shape]."""
        t, s, m = times
        x_m = moved(x_t, v, t, m)
        with dropout:
            X_m = moved(x_m, mean_velocity(self.f, x_m, m, s, condition), m, s)
        gap = torch.where(s < t, t - m, 1.0)
        return (moved(x_t, u, t, s) - X_m) / expand(gap, x_t)

    def schedule(self, k: int) -> dict[str, float]:
        return {"rho": self.rho(k)}


def fade(t: Tensor) -> Tensor:
    """How much guidance there is at times ``t`` in [0, 1]: it ends smoothly, as the field: [B]."""
    d = ((1 - t) / 0.2).clamp(1e-6, 1 - 1e-6)
    return torch.where(t <= 0.8, 1.0, 1 - torch.exp(-0.025 * d / (1 - d)))
