"""Consistency training: no teacher."""

from __future__ import annotations

from fewstep.distances import Distance
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.consistency import ConsistencyTraining
from fewstep.schedules import (
    INDEX_DISTRIBUTIONS,
    IndexDistribution,
    SquareRootN,
    TargetDecay,
)
from fewstep.weightings import Weighting


@OBJECTIVES.register("ct")
class CT(ConsistencyTraining):
    """Train a consistency model without a teacher: agree at two noise levels of one noise.

    ``lambda_(t_{n+1}, t_n) d(f(x + t_{n+1} z, t_{n+1}), f_minus(x + t_n z, t_n))`` with ``N(k)``
    growing from ``s0`` to ``s1`` and ``mu(k)`` following it.

    Args:
        f: the map in training.
        K: total number of training steps.
        s0: grid intervals at the start.
        s1: grid intervals at the end.
        mu0: decay of ``f_minus`` at the start.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.
        times: distribution of ``n``, the place on the grid: uniform or lognormal.
    """

    paper = "Song, Dhariwal, Chen, Sutskever 2023, Algorithm 3 (consistency training)"
    citation = "song2023consistency"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2)

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
