"""Improved consistency training."""

from __future__ import annotations

from fewstep.distances import Distance
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.consistency import ConsistencyTraining
from fewstep.schedules import DoublingN, LogNormalIndex
from fewstep.weightings import Weighting


@OBJECTIVES.register("ict")
class ICT(ConsistencyTraining):
    """CT without an averaged target, with pseudo-Huber, a doubling grid and lognormal times.

    ``1/(t_{n+1} - t_n) d(f(x + t_{n+1} z, t_{n+1}), sg f(x + t_n z, t_n))``.

    Args:
        f: the map in training.
        K: total number of training steps.
        s0: grid intervals at the start.
        s1: grid intervals at the end.
        P_mean: mean of ``ln(sigma/alpha)`` over the grid, which for EDM is ``ln t``.
        P_std: its standard deviation.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.
    """

    paper = "Song & Dhariwal 2023 (iCT), Table 1"
    citation = "song2023improved"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2)

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
