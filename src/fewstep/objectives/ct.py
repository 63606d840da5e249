"""Consistency training: no teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.distances import Distance
from fewstep.flow_map import FlowMap
from fewstep.objectives.base import OBJECTIVES, ConsistencyObjective
from fewstep.schedules import (
    INDEX_DISTRIBUTIONS,
    GridSize,
    IndexDistribution,
    SquareRootN,
    TargetDecay,
    karras_grid,
)
from fewstep.weightings import Weighting


@OBJECTIVES.register("ct")
class CT(ConsistencyObjective):
    """Train a consistency model without a teacher: agree at two noise levels of one noise.

    ``lambda_(t_n) d(f(x + t_{n+1} z, t_{n+1}), f_minus(x + t_n z, t_n))`` with ``N(k)`` growing
    from ``s0`` to ``s1`` and ``mu(k)`` following it.

    Args:
        f: the map in training.
        K: total number of training steps.
        s0: grid intervals at the start.
        s1: grid intervals at the end.
        mu0: decay of ``f_minus`` at the start.
        distance: ``d``.
        weighting: ``lambda_``.
        times: distribution of ``n``.
    """

    paper = "Song, Dhariwal, Chen, Sutskever 2023, Algorithm 3 (consistency training)"
    N: GridSize
    mu: TargetDecay

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        s0: int = 2,
        s1: int = 150,
        mu0: float = 0.9,
        distance: Distance | str = "l2",
        weighting: Weighting | str = "uniform",
        times: IndexDistribution | str = "uniform",
    ) -> None:
        N = SquareRootN(s0, s1, K)
        mu = TargetDecay(s0, mu0, N)
        super().__init__(f, K, mu=mu, distance=distance, weighting=weighting)
        self.N = N
        self.times = INDEX_DISTRIBUTIONS.build(times)

    def forward(self, x: Tensor, k: int, **condition: Any) -> Tensor:
        p = self.f.p
        t = karras_grid(self.N(k), p, device=x.device)  # eps = t_1 < ... < t_N = T           [N]
        n = self.times.sample(t, len(x))  # n - 1 of the paper's n in 1..N-1                   [B]
        z = torch.randn_like(x)
        x_n, x_next = p.diffuse(x, t[n], z), p.diffuse(x, t[n + 1], z)
        return self.loss(x_next, t[n + 1], x_n, t[n], **condition)

    def schedule(self, k: int) -> dict[str, float]:
        return {"N": self.N(k), "mu": self.mu(k)}
