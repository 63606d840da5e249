"""Parameterizations of variance preserving processes: DDPM's, continuous and discrete, and sub-VP.

The network sees ``x_t`` as it is and predicts epsilon, or another type (see
`fewstep.parameterization.prediction`); the map from ``t`` to ``s`` is the DDIM step (Song et al.
2020, Eq. 12 with eta = 0)

    X(x, t, s) = alpha_s D + (sigma_s / sigma_t) (x - alpha_t D),    D = a(t) x + b(t) F.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization
from fewstep.parameterization.chain import Chain
from fewstep.parameterization.preconditioning import ChainIndex, Preconditioning, TimeItself
from fewstep.parameterization.preserving import (
    Cosine,
    LinearBetas,
    SubVariancePreserving,
    VariancePreserving,
)


@dataclass(frozen=True)
class OfLogAlpha(Parameterization):
    """What the parameterizations of this file share.

    Args:
        eps: smallest time, 1/1000 of the interval as in Score SDE.
        T: largest time.
        sigma_data: standard deviation of the data.
        prediction: what the network predicts: epsilon, x0, v, score or velocity.
        time_scale: ``c_noise = time_scale t``; 999 is the index of DDPM's thousand steps.
    """

    eps: float = 1e-3
    T: float = 1.0
    sigma_data: float = 0.5
    prediction: str = "epsilon"
    time_scale: float = 999.0

    @abstractmethod
    def _process(self) -> VariancePreserving: ...

    def _preconditioning(self) -> Preconditioning:
        return TimeItself(self.sigma_data, self.prediction, self.time_scale)


@PARAMETERIZATIONS.register("vp")
@dataclass(frozen=True)
class VP(OfLogAlpha):
    """DDPM's linear betas in continuous time: ``beta(t) = beta_min + t (beta_max - beta_min)``.

    ``ln alpha = -t^2 (beta_max - beta_min)/4 - t beta_min/2``; Song et al. 2021 (Score SDE),
    Eq. 33 of its Appendix C.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _process(self) -> VariancePreserving:
        return LinearBetas(self.T, self.beta_min, self.beta_max)


@PARAMETERIZATIONS.register("sub_vp")
@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: `VP`'s alpha with the smaller noise ``sigma = 1 - alpha^2``.

    Song et al. 2021 (Score SDE), Eq. 29 in Appendix B.
    """

    def _process(self) -> VariancePreserving:
        return SubVariancePreserving(self.T, self.beta_min, self.beta_max)


@PARAMETERIZATIONS.register("vp_cosine")
@dataclass(frozen=True)
class CosineVP(OfLogAlpha):
    """The cosine schedule in continuous time: ``alpha = cos(u(t)) / cos(u(0))``.

    ``u(t) = pi/2 (t + s)/(1 + s)`` (Nichol & Dhariwal 2021, Eq. 17, whose alpha-bar is the square).
    ``alpha(1) = 0``, so the process ends a little earlier.

    Args:
        T: largest time; 0.9946 as in DPM-Solver (Lu et al. 2022, Appendix D.4).
        s: offset that keeps the first steps from being too small.
    """

    T: float = 0.9946
    s: float = 0.008

    def _process(self) -> VariancePreserving:
        return Cosine(self.T, self.s)


@PARAMETERIZATIONS.register("vp_discrete")
@dataclass(frozen=True)
class DiscreteVP(OfLogAlpha):
    """DDPM's chain of ``N`` steps: ``alpha(n/N)^2 = prod_{i <= n} (1 - beta_i)``.

    Between the steps ``ln alpha`` is a smooth curve (`fewstep.parameterization.chain`), so that
    continuous-time samplers can use a network of discrete steps. ``c_noise`` runs from 0 at step 1
    to ``time_scale`` at step N: of 1000 steps it is the index ``n - 1`` that such networks take.

    Args:
        N: number of steps.
        betas: linear, scaled_linear, cosine or given.
        beta_1, beta_N: first and last beta; cosine has its own.
        given: the betas themselves, where they follow no formula.
    """

    N: int = 1000
    betas: str = "linear"
    beta_1: float = 1e-4
    beta_N: float = 0.02
    given: tuple[float, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", tuple(self.given))
        super().__post_init__()

    def _process(self) -> VariancePreserving:
        return Chain(self.T, self.N, self.betas, self.beta_1, self.beta_N, given=self.given)

    def _preconditioning(self) -> Preconditioning:
        return ChainIndex(self.sigma_data, self.prediction, self.time_scale)
