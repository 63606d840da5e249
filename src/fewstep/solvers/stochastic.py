"""Solvers that draw noise on the way: of the reverse SDE, of DDPM's chain, EDM's churn.

Between two times ``s < t`` the forward process is ``x_t = a x_s + b z``, ``a = alpha_t/alpha_s``,
``b^2 = sigma_t^2 - a^2 sigma_s^2`` (`Level.transition`); in DDPM's chain ``a^2 = 1 - beta`` and
``b^2 = beta``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization import expand
from fewstep.solvers.integrator import SOLVERS, Denoiser, Draw, Integrator, Level, Step
from fewstep.solvers.runge_kutta import Heun

HEUN = Heun()


class _OneEvaluation(Integrator):
    """A solver of one network evaluation per step."""

    grid: ClassVar[str] = "time"

    @property
    def cost(self) -> int:
        return 1


@SOLVERS.register("ddim")
@dataclass(frozen=True)
class DDIM(_OneEvaluation):
    """DDIM, deterministic for eta = 0 and ancestral for eta = 1 (Song et al. 2020). Order 1.

    ``x_s = alpha_s D + sqrt(sigma_s^2 - v) epsilon + sqrt(v) z`` with
    ``v = eta^2 b^2 sigma_s^2 / sigma_t^2`` (its Eqs. 12 and 16).

    Args:
        eta: share of the ancestral noise, 0 to 1.
        denoise: also take the step from the grid's smallest time to 0.
        free_noise: where ``D`` is clipped, take epsilon from the one that is not, as the library
            diffusers does.
    """

    citation = "song2021denoising"

    eta: float = 0.0
    denoise: bool = True
    free_noise: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise FewstepError(f"ddim needs eta from 0 to 1, got {self.eta}.")

    @property
    def convergence(self) -> int | None:
        return None if self.eta else 1

    @property
    def to_zero(self) -> bool:
        return self.denoise

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        t, s = step.t, step.s
        free, D = f.free_and_clipped(x, t.t)
        epsilon = (x - t.alpha * (free if self.free_noise else D)) / t.sigma
        std = self.eta * t.transition(s)[1] * s.sigma / t.sigma
        kept = math.sqrt(max(0.0, s.sigma**2 - std**2))  # where std rounds above sigma
        x = s.alpha * D + kept * epsilon
        return x + std * draw() if std else x


@SOLVERS.register("ancestral")
@dataclass(frozen=True)
class Ancestral(_OneEvaluation):
    """DDPM's ancestral sampling, with the posterior's variance (Ho et al. 2020, Algorithm 2).

    A draw of ``q(x_s | x_t, x_0 = D)``: mean ``(a sigma_s^2 x + alpha_s b^2 D) / sigma_t^2``,
    variance ``b^2 sigma_s^2 / sigma_t^2`` (its Eqs. 6 and 7).

    Args:
        large: the variance ``b^2`` instead, the larger of the two of its Section 3.2, which is
            right where the data are noise.
    """

    citation = "ho2020denoising"

    large: bool = False

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        t, s = step.t, step.s
        a, b = t.transition(s)
        mean = a * (s.sigma / t.sigma) ** 2 * x + s.alpha * (b / t.sigma) ** 2 * f.D(x, t.t)
        return mean + (b if self.large else b * s.sigma / t.sigma) * draw()


@SOLVERS.register("euler_maruyama")
class EulerMaruyama(_OneEvaluation):
    """Euler-Maruyama on the reverse SDE (Song et al. 2021, Eq. 6).

    ``x <- x + (s - t) [drift x - g^2 score] + g sqrt(t - s) z``.
    """

    citation = "song2021score"

    needs_snr: ClassVar[bool] = True

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        t = f.time(step.t.t, x)
        h = step.t.t - step.s.t
        drift = f.p.reverse_drift(x, f.D(x, t), t)
        return x - h * drift + math.sqrt(h) * expand(f.p.diffusion(t), x) * draw()


@SOLVERS.register("pc")
@dataclass(frozen=True)
class PredictorCorrector(Integrator):
    """Score SDE's predictor-corrector: reverse diffusion and Langevin (Song et al. 2021).

    At each time ``correctors`` Langevin steps ``x <- x + e score + sqrt(2 e) z`` with
    ``e = 2 a^2 (snr |z| / |score|)^2`` (its Algorithms 4 and 5), then the predictor
    ``x <- (2 - a) x + b^2 score + b z`` (Eq. 46). The norms are each sample's own, where the
    published code takes their mean over the batch: a sample must not depend on its batch. That
    costs a variance too large by about 4 parts in the number of pixels. The last predictor is the
    denoiser, without noise.

    Args:
        snr: signal-to-noise ratio of the corrector.
        correctors: Langevin steps per predictor step.
    """

    citation = "song2021score"

    needs_snr: ClassVar[bool] = True
    grid: ClassVar[str] = "time"

    snr: float = 0.16
    correctors: int = 1

    def __post_init__(self) -> None:
        if not (self.snr > 0 and self.correctors >= 0):
            raise FewstepError(
                f"pc needs snr > 0 and correctors >= 0, got {self.snr} and {self.correctors}."
            )

    @property
    def cost(self) -> int:
        return 1 + self.correctors

    @property
    def last_cost(self) -> int:
        return self.cost

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        x = self._correct(f, x, step, draw)
        a, b = step.t.transition(step.s)
        return (2 - a) * x + b**2 * f.score(x, step.t.t) + b * draw()

    def finish(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        return f.D(self._correct(f, x, step, draw), step.t.t)

    def _correct(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        a, _ = step.t.transition(step.s)
        for _ in range(self.correctors):
            score, z = f.score(x, step.t.t), draw()
            ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp(min=1e-12)
            e = expand(2 * a**2 * (self.snr * ratio) ** 2, x)
            x = x + e * score + (2 * e).sqrt() * z
        return x


@SOLVERS.register("churn")
@dataclass(frozen=True)
class Churn(Integrator):
    """EDM's stochastic sampler: noise up a little, then Heun (Karras et al. 2022, Algorithm 2).

    In terms of ``sigma/alpha``, so that it is defined for every process; never above the start,
    beyond which the network has seen nothing. The defaults are those of its Table 5 for
    ImageNet-64.

    Args:
        S_churn: total of the noise added, divided over the steps.
        S_min, S_max: noise is added for ``sigma/alpha`` in this range alone.
        S_noise: standard deviation of the new noise.
    """

    citation = "karras2022elucidating"

    needs_snr: ClassVar[bool] = True

    S_churn: float = 40.0
    S_min: float = 0.05
    S_max: float = 50.0
    S_noise: float = 1.003

    def __post_init__(self) -> None:
        if not (self.S_churn >= 0 and 0 <= self.S_min <= self.S_max and self.S_noise >= 0):
            raise FewstepError("churn needs S_churn, S_noise >= 0 and 0 <= S_min <= S_max.")

    @property
    def cost(self) -> int:
        return 2

    def advance(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        x, t = self._noised(f, x, step, draw)
        return HEUN.step(f.velocity, x, f.time(t, x), f.time(step.s.t, x))

    def finish(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> Tensor:
        return f.D(*self._noised(f, x, step, draw))

    def _noised(self, f: Denoiser, x: Tensor, step: Step, draw: Draw) -> tuple[Tensor, float]:
        """``x`` at the raised time ``t_hat``, and that time."""
        noise = step.t.sigma / step.t.alpha
        gamma = min(self.S_churn / step.N, math.sqrt(2) - 1)
        if not (gamma and self.S_min <= noise <= self.S_max):
            return x, step.t.t
        raised = Level.of_log_snr(f.p, -math.log(noise * (1 + gamma)))
        raised = raised if raised.t < f.p.T else Level.at(f.p, max(step.t.t, f.p.T))
        a, b = raised.transition(step.t)
        return a * x + self.S_noise * b * draw(), raised.t
