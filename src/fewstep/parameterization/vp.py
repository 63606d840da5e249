"""Variance preserving processes: DDPM's, continuous and discrete, and sub-VP.

``x_t = alpha x + sigma z`` with ``sigma^2 = 1 - alpha^2`` (sub-VP: ``sigma = 1 - alpha^2``) on
[0, 1]. All of it follows from ``ln alpha(t)``. The network sees ``x_t`` as it is and predicts
epsilon, or another type (see `fewstep.parameterization.prediction`); the map from ``t`` to ``s``
is the DDIM step (Song et al. 2020, Eq. 12 with eta = 0)

    X(x, t, s) = alpha_s D + (sigma_s / sigma_t) (x - alpha_t D),    D = a(t) x + b(t) F.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.errors import FewstepError, unknown
from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization
from fewstep.parameterization.prediction import PREDICTIONS, Prediction
from fewstep.precision import widest


@dataclass(frozen=True)
class VariancePreserving(Parameterization):
    """What the processes of this file share.

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
    _prediction: Prediction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_prediction", PREDICTIONS.build(self.prediction))

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """``ln alpha(t)``, 0 at ``t = 0``."""

    @abstractmethod
    def log_alpha_dot(self, t: Tensor) -> Tensor:
        """Its derivative, ``-beta(t) / 2``."""

    @abstractmethod
    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The inverse of `log_alpha`."""

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self.log_alpha_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -(self.alpha(t) ** 2) * self.log_alpha_dot(t) / self.sigma(t)

    @property
    def grid(self) -> str:
        """Even in log-SNR (Lu et al. 2022, Section 3.3): sigma/alpha runs to hundreds at ``T``."""
        return "log_snr"

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # alpha^2 = 1 / (1 + e^(-2 lambda)); near the data alpha rounds to 1, so its logarithm
        # is taken in double precision
        log_alpha = -torch.nn.functional.softplus(-2 * widest(log_snr)) / 2
        return self.time_of_log_alpha(log_alpha).to(log_snr.dtype)

    def c_in(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor) -> Tensor:
        return self.time_scale * t

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        a, _ = self._prediction.coefficients(t, self)
        ratio = self.sigma(s) / self.sigma(t)
        return ratio + (self.alpha(s) - self.alpha(t) * ratio) * a

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        _, b = self._prediction.coefficients(t, self)
        # in this order, so that it is 0 to the bit at s = t
        return (self.alpha(s) - self.alpha(t) * (self.sigma(s) / self.sigma(t))) * b


@PARAMETERIZATIONS.register("vp")
@dataclass(frozen=True)
class VP(VariancePreserving):
    """DDPM's linear betas in continuous time: ``beta(t) = beta_min + t (beta_max - beta_min)``.

    ``ln alpha = -t^2 (beta_max - beta_min)/4 - t beta_min/2``; Song et al. 2021 (Score SDE),
    Eq. 33 of its Appendix C.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min < self.beta_max:
            raise FewstepError(
                f"need 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}."
            )

    def log_alpha(self, t: Tensor) -> Tensor:
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        return -(self.beta_min + t * (self.beta_max - self.beta_min)) / 2

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        # the positive root of the quadratic, in the form that does not cancel near 0
        half = self.beta_min / 2
        root = (half**2 - (self.beta_max - self.beta_min) * log_alpha).sqrt()
        return -2 * log_alpha / (half + root)


@PARAMETERIZATIONS.register("sub_vp")
@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: `VP`'s alpha with the smaller noise ``sigma = 1 - alpha^2``.

    Song et al. 2021 (Score SDE), Eq. 29 in Appendix B.
    """

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -2 * self.alpha(t) ** 2 * self.log_alpha_dot(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # E = alpha / (1 - alpha^2) is a quadratic in alpha with the positive root
        # 2 E / (1 + sqrt(1 + 4 E^2)) = 2 / (1/E + sqrt(1/E^2 + 4)); its logarithm, with
        # asinh(1/(2E)) = ln(1/(2E) + sqrt(1/(4E^2) + 1)), has no cancellation
        log_alpha = -torch.asinh((-widest(log_snr)).exp() / 2)
        return self.time_of_log_alpha(log_alpha).to(log_snr.dtype)


@PARAMETERIZATIONS.register("vp_cosine")
@dataclass(frozen=True)
class CosineVP(VariancePreserving):
    """The cosine schedule in continuous time: ``alpha = cos(u(t)) / cos(u(0))``.

    ``u(t) = pi/2 (t + s)/(1 + s)`` (Nichol & Dhariwal 2021, Eq. 17, whose alpha-bar is the square).
    ``alpha(1) = 0``, so the process ends a little earlier.

    Args:
        T: largest time; 0.9946 as in DPM-Solver (Lu et al. 2022, Appendix D.4).
        s: offset that keeps the first steps from being too small.
    """

    T: float = 0.9946
    s: float = 0.008

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.s > 0 and self.T < 1):
            raise FewstepError(f"need s > 0 and T < 1, got s={self.s} and T={self.T}.")

    @property
    def _rate(self) -> float:
        """``du/dt``."""
        return math.pi / 2 / (1 + self.s)

    @property
    def _cos_0(self) -> float:
        return math.cos(self.s * self._rate)

    def log_alpha(self, t: Tensor) -> Tensor:
        # cos u - cos u_0 as a product, which keeps its digits where the two are close
        half, mean = t * (self._rate / 2), (t / 2 + self.s) * self._rate
        return torch.log1p(-2 * half.sin() * mean.sin() / self._cos_0)

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        return -((t + self.s) * self._rate).tan() * self._rate

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        angle = torch.acos((log_alpha.exp() * self._cos_0).clamp(max=self._cos_0))
        return angle / self._rate - self.s


def linear_betas(N: int, beta_1: float, beta_N: float) -> Tensor:
    """``beta_n`` evenly spaced; Ho et al. 2020, Section 4."""
    return torch.linspace(beta_1, beta_N, N, dtype=torch.float64)


def scaled_linear_betas(N: int, beta_1: float, beta_N: float) -> Tensor:
    """``sqrt(beta_n)`` evenly spaced; Rombach et al. 2022 (latent diffusion)."""
    return torch.linspace(beta_1**0.5, beta_N**0.5, N, dtype=torch.float64) ** 2


def cosine_betas(N: int, beta_1: float, beta_N: float) -> Tensor:
    """``beta_n = min(1 - alpha-bar_n / alpha-bar_{n-1}, 0.999)``; Nichol & Dhariwal 2021."""
    n = torch.arange(N + 1, dtype=torch.float64) / N
    alpha_bar = ((n + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


MOST_STEPS = 1_000_000
NEWTON_STEPS = 8  # the curve between two steps is nearly straight: 3 suffice for DDPM's betas

BETAS: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "cosine": cosine_betas,
}


def falling_cubics(y: Tensor) -> Tensor:
    """A smooth falling curve through ``y`` [N + 1] at 0, 1, ..., N, as cubics between: [4, N].

    The piece from ``n`` is ``y + u (m + u (c + u d))`` with u in [0, 1]. The slopes at the knots
    are those of the cubic spline, whose second derivative is continuous, limited to what keeps the
    curve falling: at most thrice the smaller of the neighbouring differences (Fritsch & Carlson
    1980, Section 3), and at least a tenth of it.
    """
    from scipy.interpolate import CubicSpline  # here, since `import fewstep` need not wait for it

    knots = range(len(y))
    m, drop = torch.from_numpy(CubicSpline(knots, y.numpy()).derivative()(knots)), y.diff()
    smaller = torch.maximum(torch.cat([drop[:1], drop]), torch.cat([drop, drop[-1:]]))
    m = m.clamp(3 * smaller, smaller / 10)
    c, d = 3 * drop - 2 * m[:-1] - m[1:], m[:-1] + m[1:] - 2 * drop
    return torch.stack([y[:-1], m[:-1], c, d])


@PARAMETERIZATIONS.register("vp_discrete")
@dataclass(frozen=True)
class DiscreteVP(VariancePreserving):
    """DDPM's chain of ``N`` steps: ``alpha(n/N)^2 = prod_{i <= n} (1 - beta_i)``.

    Between the steps ``ln alpha`` is a smooth curve, so that continuous-time samplers can use a
    network of discrete steps. Lu et al. 2022, Appendix D.2, draw a straight line from step to
    step; its kinks cost a Runge-Kutta method its order and an adaptive one its step size. Both
    curves agree at the steps, and within 1.3e-6 between those of DDPM's linear betas. ``c_noise``
    runs from 0 at step 1 to ``time_scale`` at step N: of 1000 steps it is the index ``n - 1`` that
    such networks take.

    Args:
        N: number of steps.
        betas: linear, scaled_linear or cosine.
        beta_1, beta_N: first and last beta; cosine has its own.
    """

    N: int = 1000
    betas: str = "linear"
    beta_1: float = 1e-4
    beta_N: float = 0.02
    _log_alphas: Tensor = field(init=False, repr=False, compare=False)
    _cubics: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.betas not in BETAS:
            raise unknown("schedule of betas", self.betas, BETAS)
        if not 2 <= self.N <= MOST_STEPS or not 0 < self.beta_1 <= self.beta_N < 1:
            raise FewstepError(
                f"need N in 2..{MOST_STEPS} and 0 < beta_1 <= beta_N < 1, got N={self.N}, "
                f"beta_1={self.beta_1}, beta_N={self.beta_N}."
            )
        betas = BETAS[self.betas](self.N, self.beta_1, self.beta_N)
        log_alphas = torch.cat([torch.zeros(1).double(), torch.log1p(-betas).cumsum(0) / 2])
        object.__setattr__(self, "_log_alphas", log_alphas)
        object.__setattr__(self, "_cubics", falling_cubics(log_alphas))

    def _cubic(self, n: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """``y, m, c, d`` of the piece ``y + u (m + u (c + u d))`` after step ``n``, u in [0, 1]."""
        return tuple(self._cubics.to(dtype).to(n.device)[:, n])

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The interval that holds ``t`` and the place in it; an end belongs to the one before."""
        n = (t * self.N).ceil().long().clamp(1, self.N) - 1
        return n, t * self.N - n

    def log_alpha(self, t: Tensor) -> Tensor:
        n, u = self._place(t)
        y, m, c, d = self._cubic(n, u.dtype)
        return y + u * (m + u * (c + u * d))

    def log_alpha_dot(self, t: Tensor) -> Tensor:
        n, u = self._place(t)
        _, m, c, d = self._cubic(n, u.dtype)
        return self.N * (m + u * (2 * c + u * 3 * d))

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        table = self._log_alphas.to(log_alpha.dtype).to(log_alpha.device)
        n = torch.searchsorted(-table, -log_alpha.contiguous()).clamp(1, self.N) - 1
        y, m, c, d = self._cubic(n, log_alpha.dtype)
        low, high = torch.zeros_like(log_alpha), torch.ones_like(log_alpha)
        u = (log_alpha - y) / (table[n + 1] - table[n])
        for _ in range(NEWTON_STEPS):  # each within the bracket, or by halves
            over = y + u * (m + u * (c + u * d)) > log_alpha  # the curve falls: go on
            low, high = torch.where(over, u, low), torch.where(over, high, u)
            slope = m + u * (2 * c + u * 3 * d)
            newton = u - (y + u * (m + u * (c + u * d)) - log_alpha) / slope
            inside = (newton >= low) & (newton <= high)
            u = torch.where(inside, newton, (low + high) / 2)
        return (n + u) / self.N

    def c_noise(self, t: Tensor) -> Tensor:
        return ((t * self.N - 1) * (self.time_scale / (self.N - 1))).clamp(min=0)
