"""Times, and everything that varies with the training step: values, never callbacks.

| idea | module |
|---|---|
| time grids ``t_1 = eps < ... < t_N = T``, and those of samplers | `grids` |
| ``N(k)``, how many points a grid has at training step ``k`` of ``K`` | `sizes` |
| ``mu(k)``, the decay of the target's running average | `decay` |
| distributions of training times, over noise levels | `times` |
| distributions of the two times of a flow map | `pairs` |
| distributions of the place on a grid | `indices` |
| ``alpha(k)``, ``rho(k)``: gaps that close over a training | `falling` |
| ``r(n, k)``, the gap of ECT | `gap` |

Notation of Song et al. 2023. iCT's forms are of Song & Dhariwal 2023, ECT's of Geng et al. 2024.
"""

from fewstep.schedules.decay import TargetDecay
from fewstep.schedules.falling import ExponentialFall, SigmoidFall
from fewstep.schedules.gap import SigmoidGap
from fewstep.schedules.grids import (
    TIME_GRIDS,
    FlowGrid,
    KarrasGrid,
    LogSNRGrid,
    QuadraticGrid,
    StraightGrid,
    TimeGrid,
    UniformGrid,
    karras_grid,
    karras_spacing,
    karras_time,
    nested_times,
    power_grid,
)
from fewstep.schedules.indices import (
    INDEX_DISTRIBUTIONS,
    IndexDistribution,
    LogNormalIndex,
    UniformIndex,
)
from fewstep.schedules.pairs import TIME_PAIRS, Below, GapFirst, Separate, Sorted, TimePairs
from fewstep.schedules.sizes import (
    ConstantN,
    DoublingN,
    GeometricN,
    GridSize,
    HalvingN,
    SquareRootN,
)
from fewstep.schedules.times import (
    TRAINING_TIMES,
    LogNormal,
    StudentT,
    TrainingTimes,
    UniformTimes,
)

__all__ = [
    "INDEX_DISTRIBUTIONS",
    "TIME_GRIDS",
    "TIME_PAIRS",
    "TRAINING_TIMES",
    "Below",
    "ConstantN",
    "DoublingN",
    "ExponentialFall",
    "FlowGrid",
    "GapFirst",
    "GeometricN",
    "GridSize",
    "HalvingN",
    "IndexDistribution",
    "KarrasGrid",
    "LogNormal",
    "LogNormalIndex",
    "LogSNRGrid",
    "QuadraticGrid",
    "Separate",
    "SigmoidFall",
    "SigmoidGap",
    "Sorted",
    "SquareRootN",
    "StraightGrid",
    "StudentT",
    "TargetDecay",
    "TimeGrid",
    "TimePairs",
    "TrainingTimes",
    "UniformGrid",
    "UniformIndex",
    "UniformTimes",
    "karras_grid",
    "karras_spacing",
    "karras_time",
    "nested_times",
    "power_grid",
]
