"""What the consistency losses share: two neighbouring times, and a target at the smaller one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.flow_map import FlowMap
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.target import Targeted
from fewstep.parameterization import Parameterization, time_dtype
from fewstep.schedules import GridSize, IndexDistribution
from fewstep.trained import CONSISTENCY
from fewstep.weightings import Weighting, weighting_for


class ConsistencyObjective(Targeted):
    """``lambda_(t, s) d(f(x_t, t), f_minus(x_s, s))`` over neighbouring times ``s < t``.

    Args:
        f: the map in training.
        K: total number of training steps.
        mu: decay ``mu(k)`` of ``f_minus``; without it ``f_minus`` is ``f`` under stop-gradient.
        distance: ``d``, a distance or its spec.
        weighting: ``lambda_``, a weighting or its spec.
    """

    makes = CONSISTENCY

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        mu: Callable[[int], float] | None,
        distance: Distance | str,
        weighting: Weighting | str,
    ) -> None:
        super().__init__(f, K, mu=mu)
        self.d = DISTANCES.build(distance)
        self.lambda_ = weighting_for(f.p, weighting)

    def loss(
        self, x_t: Tensor, t: Tensor, x_s: Tensor, s: Tensor, condition: Condition = NONE
    ) -> Tensor:
        """``lambda_(t, s) d(f(x_t, t), f_minus(x_s, s))``: [B]."""
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            target = self.f_minus(x_s, s, condition=condition)
        with dropout:
            return self.compare(x_t, t, target, s, condition)

    def compare(
        self, x_t: Tensor, t: Tensor, target: Tensor, s: Tensor, condition: Condition = NONE
    ) -> Tensor:
        """``lambda_(t, s) d(f(x_t, t), target)``: [B]."""
        return self.lambda_(t, s, self.f.p) * self.d(self.f(x_t, t, condition=condition), target)


def neighbours(
    N: int, times: IndexDistribution, p: Parameterization, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Neighbouring times ``t_{n+1}``, ``t_n`` of the grid of ``N`` for each example of ``x``."""
    return times.neighbours(N, p, x, time_dtype(x))


class ConsistencyTraining(ConsistencyObjective):
    """``lambda_(t_{n+1}, t_n) d(f(x + t_{n+1} z, t_{n+1}), f_minus(x + t_n z, t_n))``.

    One image ``x`` and one noise ``z`` at two neighbouring times of a grid stand in for a step of
    the PF-ODE: no teacher. A subclass sets ``N`` and ``times``.
    """

    N: GridSize
    times: IndexDistribution

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return neighbours(self.N(k), self.times, self.f.p, x)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t_next, t_n = times
        z = torch.randn_like(x)
        x_n, x_next = self.f.p.diffuse(x, t_n, z), self.f.p.diffuse(x, t_next, z)
        return self.loss(x_next, t_next, x_n, t_n, condition)

    def schedule(self, k: int) -> dict[str, float]:
        return {"N": self.N(k)} | ({"mu": self.mu(k)} if self.mu else {})
