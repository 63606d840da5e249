"""Terminal velocity matching: the map's end moves with the velocity there."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import towards
from fewstep.needs import Cost, FixedPoint
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import GuidesItself, mean_square, mean_velocity
from fewstep.objectives.guided import Folded, uniform
from fewstep.objectives.self_guided import own_range, with_weights, without_class
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

    With guidance ``v`` is ``w (z - x) + (1 - w) u_minus(x_r, r, r | no class)``; of a row whose
    class is hidden ``w = 1``. With ``guidance_range`` the weight is an input of the network and
    even over the range. On a network that is ``scaled_by_weight`` the map is
    ``X = x_t - (t - s) w F`` (``do_scale_param`` of the published code). The published settings
    have both and one weight, ``guidance_range=(2, 2)``. Their network is told ``1/w``, this one
    ``w``; theirs has semi-Lipschitz norms, which are not here.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        velocity_times: distribution of ``r``.
        mu: decay of ``u_minus``.
        guidance: ``w``; 1 is no guidance.
        guidance_range: instead, lowest and highest of the weights that are drawn, on a network with
            ``guidance_embedding``.
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
        guidance_range: tuple[float, float] | None = None,
        tangent: str = "forward",
    ) -> None:
        super().__init__(f, K, times=times, mu=mu)
        self.velocity_times = TRAINING_TIMES.build(velocity_times)
        if guidance != 1 and guidance_range is not None:
            raise FewstepError("give one guidance weight or a range of them, not both.")
        self.fold = Folded.of(f, guidance)
        self.weights = own_range(f, guidance_range)
        self.how = checked_tangent(tangent)

    def conditioned(self, condition: Condition, x: Tensor) -> Condition:
        condition = super().conditioned(condition, x)
        if self.weights is None:
            return condition
        return with_weights(self.f, condition, uniform(self.weights, x))

    def velocity(self, x_t: Tensor, t: Tensor, v: Tensor, condition: Condition = NONE) -> Tensor:
        if condition.w is None:
            return super().velocity(x_t, t, v, condition)
        null = mean_velocity(self.f_minus, x_t, t, t, without_class(condition))
        return towards(null, v, condition.w)

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
        return loss / self._weight(condition) ** 2

    def _weight(self, condition: Condition) -> Tensor | float:
        """``w`` of each row: 1 without its class, which is not guided."""
        if condition.w is not None:
            return condition.w
        wanted = condition.wanted(self.f.num_classes)
        return 1.0 if wanted is None else torch.where(wanted, self.fold.w, 1.0)
