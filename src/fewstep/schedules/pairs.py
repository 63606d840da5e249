"""Between which two times a flow map is trained: distributions of ``t`` and an end ``s <= t``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization import Parameterization
from fewstep.registry import Registry
from fewstep.schedules.times import TRAINING_TIMES, LogNormal, TrainingTimes

TIME_PAIRS: Registry[TimePairs] = Registry("distribution of two times")


class TimePairs(Cited, ABC):
    """The two times of training examples."""

    @abstractmethod
    def sample(self, x: Tensor, p: Parameterization) -> tuple[Tensor, Tensor]:
        """``t`` and ``s`` with ``t_min <= s <= t <= T`` per example of ``x``: [B], [B]."""


@TIME_PAIRS.register("sorted")
@dataclass(frozen=True)
class Sorted(TimePairs):
    """Two draws of one distribution, the later is ``t`` (MeanFlow: Geng et al. 2025).

    Args:
        times: the distribution.
    """

    citation = "geng2025mean"

    times: Annotated[str, TRAINING_TIMES] = "lognormal(P_mean=-0.4, P_std=1.0)"
    _times: TrainingTimes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_times", TRAINING_TIMES.build(self.times))

    def sample(self, x: Tensor, p: Parameterization) -> tuple[Tensor, Tensor]:
        a, b = self._times.sample(x, p), self._times.sample(x, p)
        return torch.maximum(a, b), torch.minimum(a, b)


@TIME_PAIRS.register("separate")
@dataclass(frozen=True)
class Separate(TimePairs):
    """Each time has a distribution of its own; an ``s`` above ``t`` is moved down to it.

    MeanFlow's second setting for CIFAR-10, and SoFlow's.

    Args:
        t: distribution of ``t``.
        s: distribution of ``s``.
    """

    citation = "geng2025mean"

    t: Annotated[str, TRAINING_TIMES] = "lognormal(P_mean=-0.6, P_std=1.6)"
    s: Annotated[str, TRAINING_TIMES] = "lognormal(P_mean=-4.0, P_std=1.6)"
    _t: TrainingTimes = field(init=False, repr=False, compare=False)
    _s: TrainingTimes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_t", TRAINING_TIMES.build(self.t))
        object.__setattr__(self, "_s", TRAINING_TIMES.build(self.s))

    def sample(self, x: Tensor, p: Parameterization) -> tuple[Tensor, Tensor]:
        t = self._t.sample(x, p)
        return t, torch.minimum(self._s.sample(x, p), t)


@TIME_PAIRS.register("below")
@dataclass(frozen=True)
class Below(TimePairs):
    """``t`` of a distribution, and ``s`` uniform below it: of the time, or of its logarithm.

    Where time is the noise level the logarithm is uniform, as in `UniformTimes`.

    Args:
        times: distribution of ``t``.
    """

    times: Annotated[str, TRAINING_TIMES] = "uniform"
    _times: TrainingTimes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_times", TRAINING_TIMES.build(self.times))

    def sample(self, x: Tensor, p: Parameterization) -> tuple[Tensor, Tensor]:
        t = self._times.sample(x, p)
        u = torch.rand_like(t)
        if p.time_is_noise_level:
            return t, p.t_min * (t / p.t_min) ** u
        return t, p.t_min + u * (t - p.t_min)


@TIME_PAIRS.register("gap_first")
@dataclass(frozen=True)
class GapFirst(TimePairs):
    """The gap ``t - s`` first, on a finite interval, then the place that is left for it.

    ``t - s = T sigmoid(N(P_mean, P_std^2))``. ``s`` is uniform below ``T - (t - s)`` (AYF: Sabour,
    Fidler, Kreis 2025), or ``s / T = sigmoid(N(s_mean, s_std^2))`` given that it is below (TVM:
    Zhou et al. 2025).

    Args:
        P_mean, P_std: of the logit of the gap.
        s_mean: of the logit of ``s``; None for uniform.
        s_std: its standard deviation.
    """

    citation = ("sabour2025align", "zhou2025terminal")

    P_mean: float = -0.8
    P_std: float = 1.0
    s_mean: float | None = None
    s_std: float = 1.0

    def __post_init__(self) -> None:
        if not (self.P_std >= 0 and self.s_std > 0):
            raise FewstepError(
                f"gap_first needs P_std >= 0 and s_std > 0, got {self.P_std} and {self.s_std}."
            )

    def sample(self, x: Tensor, p: Parameterization) -> tuple[Tensor, Tensor]:
        if p.time_is_noise_level:
            raise FewstepError(
                "gap_first draws a gap as a part of the interval of times, which is finite in a "
                "process such as rectified_flow alone: choose sorted, separate or below."
            )
        u = torch.rand(len(x), device=x.device)
        gap = p.T * torch.sigmoid(self.P_mean + self.P_std * torch.randn_like(u))
        place = 1 - gap / p.T
        if self.s_mean is not None:
            law = LogNormal(self.s_mean, self.s_std)
            most = (1 + law.erf(place / (1 - place))) / 2
            erf = (2 * u * most - 1).clamp(-1 + 1e-6, 1 - 1e-6)
            level = law.level(erf)
            s = torch.minimum(p.T * level / (1 + level), p.T - gap)
        else:
            s = u * (p.T - gap)
        t = (s + gap).clamp(p.t_min, p.T)
        return t, torch.minimum(s.clamp(min=p.t_min), t)
