"""Improved consistency training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.distances import Distance
from fewstep.flow_map import FlowMap
from fewstep.objectives.base import OBJECTIVES, ConsistencyObjective
from fewstep.schedules import DoublingN, LogNormalIndex, karras_grid
from fewstep.weightings import Weighting


@OBJECTIVES.register("ict")
class ICT(ConsistencyObjective):
    """CT without an averaged target, with pseudo-Huber, a doubling grid and lognormal times.

    ``1/(t_{n+1} - t_n) d(f(x + t_{n+1} z, t_{n+1}), sg f(x + t_n z, t_n))``.

    Args:
        f: the map in training.
        K: total number of training steps.
        s0: grid intervals at the start.
        s1: grid intervals at the end.
        P_mean: mean of ``ln t`` over the grid.
        P_std: standard deviation of ``ln t`` over the grid.
        distance: ``d``.
        weighting: ``lambda_``.
    """

    paper = "Song & Dhariwal 2023 (iCT), Table 1"

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        s0: int = 10,
        s1: int = 1280,
        P_mean: float = -1.1,
        P_std: float = 2.0,
        distance: Distance | str = "pseudo_huber",
        weighting: Weighting | str = "inverse_gap",
    ) -> None:
        super().__init__(f, K, mu=None, distance=distance, weighting=weighting)
        self.N = DoublingN(s0, s1, K)
        self.times = LogNormalIndex(P_mean, P_std)

    def forward(self, x: Tensor, k: int, **condition: Any) -> Tensor:
        p = self.f.p
        t = karras_grid(self.N(k), p, device=x.device)  # eps = t_1 < ... < t_N = T           [N]
        n = self.times.sample(t, len(x))  # n - 1 of the paper's n in 1..N-1                   [B]
        z = torch.randn_like(x)
        x_n, x_next = p.diffuse(x, t[n], z), p.diffuse(x, t[n + 1], z)
        return self.loss(x_next, t[n + 1], x_n, t[n], **condition)

    def schedule(self, k: int) -> dict[str, float]:
        return {"N": self.N(k)}
