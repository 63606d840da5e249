"""What a diffusion network may predict, and how each prediction gives every other.

At a point ``x_t = alpha x_0 + sigma epsilon`` each of these is linear in ``x_t`` and in the
denoised ``D = E[x_0 | x_t]``, so that ``D = a(t) x_t + b(t) y`` for a prediction ``y``:

    epsilon    E[epsilon | x_t]                       D = (x_t - sigma y) / alpha
    x0         D itself                               D = y
    v          alpha epsilon - sigma x_0              D = (alpha x_t - sigma y)/(alpha^2 + sigma^2)
    score      grad log p_t = -epsilon / sigma        D = (x_t + sigma^2 y) / alpha
    velocity   dx/dt = alpha' x_0 + sigma' epsilon    D = (sigma' x_t - sigma y) / w
                                                      with w = alpha sigma' - alpha' sigma

v-prediction is Salimans & Ho 2022, Section 4; its ``alpha^2 + sigma^2`` is 1 there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fewstep.papers import Cited
from fewstep.parameterization.process import Marginals, expand
from fewstep.registry import Registry

PREDICTIONS: Registry[Prediction] = Registry("prediction type")


class Prediction(Cited, ABC):
    """A quantity ``y`` with ``D = a(t) x_t + b(t) y``."""

    @abstractmethod
    def coefficients(self, t: Tensor, p: Marginals) -> tuple[Tensor, Tensor]:
        """``a(t), b(t)``, shaped like ``t``."""

    def denoised(self, y: Tensor, x: Tensor, t: Tensor, p: Marginals) -> Tensor:
        """``D`` from the prediction ``y`` at the points ``x`` [B, ...] of times ``t`` [B]."""
        a, b = self.coefficients(t, p)
        return expand(a, x) * x + expand(b, x) * y

    def of_denoised(self, D: Tensor, x: Tensor, t: Tensor, p: Marginals) -> Tensor:
        """The prediction ``y`` from ``D``."""
        a, b = self.coefficients(t, p)
        return (D - expand(a, x) * x) / expand(b, x)


def convert(
    y: Tensor,
    x: Tensor,
    t: Tensor,
    p: Marginals,
    *,
    source: Prediction | str,
    target: Prediction | str,
) -> Tensor:
    """A prediction ``y`` of one type at ``x`` [B, ...], ``t`` [B] as another type.

    Raises:
        FewstepError: an unknown type.
    """
    D = PREDICTIONS.build(source).denoised(y, x, t, p)
    return PREDICTIONS.build(target).of_denoised(D, x, t, p)


@PREDICTIONS.register("epsilon")
class Epsilon(Prediction):
    """The noise, ``(x_t - alpha D) / sigma``; Ho et al. 2020."""

    citation = "ho2020denoising"

    def coefficients(self, t: Tensor, p: Marginals) -> tuple[Tensor, Tensor]:
        return 1 / p.alpha(t), -p.sigma(t) / p.alpha(t)


@PREDICTIONS.register("x0")
class X0(Prediction):
    """The denoised image ``D``."""

    def coefficients(self, t: Tensor, p: Marginals) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)


@PREDICTIONS.register("v")
class V(Prediction):
    """``alpha epsilon - sigma x_0``; Salimans & Ho 2022, Section 4."""

    citation = "salimans2022progressive"

    def coefficients(self, t: Tensor, p: Marginals) -> tuple[Tensor, Tensor]:
        alpha, sigma = p.alpha(t), p.sigma(t)
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm


@PREDICTIONS.register("score")
class Score(Prediction):
    """``grad log p_t(x_t)``; Song et al. 2021."""

    citation = "song2021score"

    def coefficients(self, t: Tensor, p: Marginals) -> tuple[Tensor, Tensor]:
        return 1 / p.alpha(t), p.sigma(t) ** 2 / p.alpha(t)


@PREDICTIONS.register("velocity")
class VelocityPrediction(Prediction):
    """``dx/dt`` of the PF-ODE; Liu et al. 2022, Lipman et al. 2022."""

    citation = ("liu2022flow", "lipman2023flow")

    def coefficients(self, t: Tensor, p: Marginals) -> tuple[Tensor, Tensor]:
        sigma, sigma_dot = p.sigma(t), p.sigma_dot(t)
        w = p.alpha(t) * sigma_dot - p.alpha_dot(t) * sigma
        return sigma_dot / w, -sigma / w
