"""Distillation into a Fourier neural operator: the whole trajectory from the noise at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import TRAJECTORIES, Cost, FixedPoint, Needs
from fewstep.networks.dfno import FourierOperator
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.solvers import ddim_step
from fewstep.trained import GENERATOR


@OBJECTIVES.register("dfno")
class DFNO(Objective):
    """Regress on a teacher's trajectories: ``mean_j lambda_(s_j) d(X(x_T, T, s_j), x_{s_j})``.

    The network gives all ``M`` states at once, each as the denoised ``g_j`` from which a DDIM step
    leads from ``x_T`` to ``s_j``; the last is the image itself. The weight is the paper's
    ``alpha / sigma``, between 1 and 10,000. The trajectories are made beforehand by
    ``fewstep pairs --trajectory M``.

    Args:
        f: the map in training, on the network dfno; afterwards it generates in one step, from
            ``T`` alone.
        K: total number of training steps.
        distance: ``d``, how two images are compared; the paper's is l1.
        largest: weight of the states where ``alpha / sigma`` is above it.
    """

    makes = GENERATOR
    paper = "Zheng, Nie, Vahdat, Azizzadenesheli, Anandkumar 2023 (DFNO), Section 3"
    citation = "zheng2023fast"
    fixed_point = FixedPoint.MAP
    cost = Cost()
    needs = Needs(
        columns=("noise", "trajectory", "times"),
        network=TRAJECTORIES,
        eps_zero=True,
        every_class=True,
    )

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        distance: Distance | str = "l1",
        largest: float = 1e4,
    ) -> None:
        super().__init__(f, K)
        if not 1 <= largest < math.inf:
            raise FewstepError(f"DFNO needs a largest weight of at least 1, got {largest}.")
        self.d, self.largest = DISTANCES.build(distance), largest

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        wanted, s = columns["trajectory"], columns["times"]  # [B, M, ...], [B, M]
        x_T = self.f.p.prior(columns["noise"])
        states = self.trajectory(x_T, s, condition)
        losses = self.d(states.flatten(0, 1), wanted.flatten(0, 1)).view_as(s)
        weight = (self.f.p.alpha(s) / self.f.p.sigma(s)).clamp(1, self.largest)
        return (weight * losses).mean(1)

    def trajectory(self, x_T: Tensor, s: Tensor, condition: Condition = NONE) -> Tensor:
        """``X(x_T, T, s_j)`` at all times ``s`` [B, M]: [B, M, *shape]."""
        F, p = self.f.network, self.f.p
        assert isinstance(F, FourierOperator)
        if s.shape[1] != F.M:
            raise FewstepError(
                f"the network has {F.M} times, the trajectories have {s.shape[1]}: set "
                f"network.times={s.shape[1]}, or make pairs with --trajectory {F.M}."
            )
        T, end = self.f.time(p.T, x_T), self.f.time(p.eps, x_T)
        seen, c_noise, _ = self.f.seen(x_T, T, end)
        F_x = F.trajectory(seen, c_noise, **condition.of(F.takes))
        x_T = x_T[:, None].expand_as(F_x)
        g = self.f.of_prediction(F_x, x_T, T, end)
        T = T.repeat_interleave(F.M)
        moved = ddim_step(x_T.flatten(0, 1), g.flatten(0, 1), T, s.flatten(), p)
        return torch.unflatten(moved, 0, (len(s), F.M))
