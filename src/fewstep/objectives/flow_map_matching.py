"""Flow map matching by self-distillation: Lagrangian, Eulerian or progressive."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.errors import unknown
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import FlowMapObjective, mean_square, mean_velocity, moved
from fewstep.objectives.learned_weight import LearnedWeight
from fewstep.parameterization import expand
from fewstep.schedules import TimePairs
from fewstep.tangent import checked_tangent, derivative_by_end

CONDITIONS = ("lagrangian", "eulerian", "progressive")


@OBJECTIVES.register("flow_map_matching")
class FlowMapMatching(FlowMapObjective):
    """``|dX/ds - sg(u(X, s, s))|^2`` (Lagrangian), or another condition of the true flow.

    The rows with ``s = t`` learn the velocity of the data, ``|u(x_t, t, t) - (z - x)|^2``; the
    others that the map agrees with it (Boffi et al. 2025, Section 3, whose time runs the other
    way):

    - ``lagrangian`` (LSD): as above. Its gradient goes through the derivative in forward mode.
    - ``eulerian`` (ESD): ``|d_t X + sg(J_x X u(x_t, t, t))|^2``, likewise.
    - ``progressive`` (PSD): ``|u(x_t, t, s) - sg((1 - h) u(x_t, t, m) + h u(X_m, m, s))|^2`` at
      ``m = s + h (t - s)``, uniform between or the midpoint: composition, without derivatives.

    Each mean square ``l`` counts as ``e^w l - w`` with a learned ``w(t, s)`` (the paper writes
    ``-w`` for it).

    Args:
        f: the map in training.
        K: total number of training steps.
        by: the condition: lagrangian, eulerian or progressive.
        times: distribution of the two times.
        apart: share of the images whose times differ.
        midpoint: of progressive: ``m`` in the middle, in the place of a uniform one.
        learned_weight: whether ``w`` is learned; without it it is 0.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Boffi, Albergo, Vanden-Eijnden 2025, Section 3; 2024 (flow map matching)"
    citation = "boffi2025build"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=1.25, backward=1.5, tangent=0.25)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        by: str = "lagrangian",
        times: TimePairs | str = "sorted(times=uniform)",
        apart: float = 0.25,
        midpoint: bool = False,
        learned_weight: bool = True,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times, apart=apart)
        if by not in CONDITIONS:
            raise unknown("condition of a flow map", by, CONDITIONS)
        self.by, self.midpoint, self.how = by, midpoint, checked_tangent(tangent)
        self.weight = LearnedWeight(times=2) if learned_weight else None

    def trained_modules(self) -> dict[str, nn.Module]:
        more = {} if self.weight is None else {"weight": self.weight}
        return super().trained_modules() | more

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t, s = times
        x_t, v = self.f.p.draw(x, t, torch.randn_like(x))
        n = self.first_apart(len(x))
        errors = []
        if n:
            first = slice(n)
            points = x_t[first], t[first], s[first], v[first], condition.rows(first)
            errors.append(getattr(self, self.by)(*points))
        if n < len(x):
            one = t[n:]
            u = mean_velocity(self.f, x_t[n:], one, one, condition.rows(slice(n, None)))
            errors.append(u - v[n:])
        loss = mean_square(torch.cat(errors))
        return loss if self.weight is None else self.weight(loss, self.f.p, t, s)

    def lagrangian(
        self, x: Tensor, t: Tensor, s: Tensor, v: Tensor, condition: Condition
    ) -> Tensor:
        """``dX/ds`` less the velocity there; on the diagonal ``u`` less that of the data."""
        dropout = SharedDropout()
        with dropout:
            X, moving = self.f.rate(x, t, s, condition, how=self.how)
        with dropout, torch.no_grad():
            there = mean_velocity(self.f, X.detach(), s.clamp(min=self.f.p.t_min), None, condition)
        return moving - torch.where(expand(s < t, x), there, v)

    def eulerian(self, x: Tensor, t: Tensor, s: Tensor, v: Tensor, condition: Condition) -> Tensor:
        """``dX/dt`` along the map's own velocity; on the diagonal that of the data less ``u``."""
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            own = mean_velocity(self.f, x, t, t, condition)
            along = torch.where(expand(s < t, x), own, v)
        with dropout, torch.no_grad():
            total = self.f.tangent(x, t, s, along, condition, how=self.how)[1]
        with dropout:
            name, T = type(self.f.network).__name__, torch.full_like(t, self.f.p.T)
            in_t = derivative_by_end(self.how, name, lambda t: self.f(x, t, s, condition), t, T)[1]
        return in_t + (total - in_t).detach()

    def progressive(
        self, x: Tensor, t: Tensor, s: Tensor, v: Tensor, condition: Condition
    ) -> Tensor:
        """``u`` less that of two jumps over a time between; on the diagonal less the data's."""
        f, dropout = self.f, SharedDropout()
        h = torch.full_like(t, 0.5) if self.midpoint else torch.rand_like(t)  # (m - s) / (t - s)
        m = s + h * (t - s)
        with torch.no_grad():
            with dropout:
                first = mean_velocity(f, x, t, m, condition)
            with dropout:
                second = mean_velocity(f, moved(x, first, t, m), m, s, condition)
            both = expand(1 - h, x) * first + expand(h, x) * second
        with dropout:
            u = mean_velocity(f, x, t, s, condition)
        return u - torch.where(expand(s < t, x), both, v)
