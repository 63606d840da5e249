"""Classifier-free guidance: further towards the class than the model goes by itself.

    D_w(x, t, c) = D(x, t) + w (D(x, t, c) - D(x, t))

with the null class in ``D(x, t)`` (Ho & Salimans 2022, Eq. 6, whose ``w`` is ours less 1). With
``w = 1`` there is no guidance and no cost; ``w = 0`` forgets the class. At noise levels outside of
an interval there is none, either (Kynkaanniemi et al. 2024). Velocity and score are the same linear
function of ``D`` in both terms, so the formula guides them as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from fewstep.condition import EVERYWHERE, NONE, Condition
from fewstep.errors import FewstepError
from fewstep.papers import Also, Cited
from fewstep.parameterization import Parameterization, expand, per_row
from fewstep.registry import Registry


class Denoising(Protocol):
    """The face of a model that guidance takes and gives."""

    @property
    def p(self) -> Parameterization:
        """The process."""

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """The denoiser ``E[x_0 | x_t = x]``: [B, *shape]."""


GUIDANCES: Registry[Guided] = Registry("guidance")


@GUIDANCES.register("guided")
@dataclass(frozen=True)
class Guided(Cited):
    """Classifier-free guidance of a weight, at noise levels in an interval.

    Called with a model, it gives the guided one.

    Args:
        w: weight, at least 0; 1 is no guidance.
        interval: noise levels ``sigma / alpha`` above the first number and up to the second, at
            which the model is guided; default all.

    Raises:
        FewstepError: a weight or an interval out of range.
    """

    citation = "ho2022classifier"
    also_cites = (Also("interval", "kynkaanniemi2024applying"),)

    w: float
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.w < math.inf:
            raise FewstepError(f"a guidance weight is a number from 0 on, got {self.w}.")
        object.__setattr__(self, "w", float(self.w))
        if self.interval is not None:
            object.__setattr__(self, "interval", checked_interval(self.interval))

    @property
    def off(self) -> bool:
        """Whether the model is as without guidance."""
        return self.w == 1

    @property
    def doubles(self) -> bool:
        """Whether a guided evaluation takes two of the network."""
        return self.w not in (0, 1)

    @property
    def everywhere(self) -> bool:
        """Whether every noise level is guided."""
        return self.interval in (None, EVERYWHERE)

    def inside(self, p: Parameterization, t: Tensor) -> Tensor:
        """Whether a model of process ``p`` is guided at times [B]: [B]."""
        return inside(p, t, *(self.interval or EVERYWHERE))

    def evaluations(self, p: Parameterization, t: Tensor) -> Tensor:
        """Network evaluations of the guided denoiser at times [B]: [B], each 1 or 2."""
        inside = torch.ones_like(t) if self.everywhere else self.inside(p, t).to(t)
        return 1 + inside * self.doubles

    def as_input(self, condition: Condition, x: Tensor) -> Condition:
        """A condition with the weight, for a network that has learned it as an input.

        It has the interval, too, unless that is everywhere, for a network that has learned both.
        What each row has of its own stays.
        """
        if condition.w is None:
            w = torch.full((len(x),), self.w, dtype=x.dtype, device=x.device)
            condition = replace(condition, w=w)
        if self.interval is None or self.everywhere:
            return condition
        levels = torch.tensor(self.interval, dtype=x.dtype, device=x.device)
        return condition.within(levels.expand(len(x), 2))

    def told(self, p: Parameterization, t: Tensor, condition: Condition, x: Tensor) -> Condition:
        """A condition with the weight at times ``t`` [B], as an input: 1 outside the interval."""
        condition = replace(self, interval=None).as_input(condition, x)
        if self.everywhere or condition.w is None:
            return condition
        return replace(condition, w=torch.where(self.inside(p, t), condition.w, 1.0))

    def __call__(self, f: Denoising) -> GuidedModel:
        return GuidedModel(f, self)


@dataclass(frozen=True)
class GuidedModel:
    """A model under guidance, as solvers and objectives ask it.

    Where the condition has a weight for each row, it is that instead of the guidance's own.
    """

    f: Denoising
    guidance: Guided

    @property
    def p(self) -> Parameterization:
        """The process."""
        return self.f.p

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """The guided denoiser: [B, *shape]."""
        w = self.guidance.w if condition.w is None else condition.w
        plain = replace(condition, w=None)
        if not isinstance(w, Tensor) and w == 1:
            return self.f.D(x, t, plain)
        if self.guidance.everywhere:
            return self._guided(x, t, plain, w)
        inside = self.guidance.inside(self.p, per_row(t, x))
        if not torch.compiler.is_compiling():  # a graph has both cases
            if not inside.any():
                return self.f.D(x, t, plain)
            if inside.all():
                return self._guided(x, t, plain, w)
        D = self.f.D(x, t, plain)
        guided = towards(self.f.D(x, t, plain.null()), D, w)
        return torch.where(expand(inside, x), guided, D)

    def velocity(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """``dx/dt`` of the guided PF-ODE: [B, *shape]."""
        return self.p.velocity(x, self.D(x, t, condition), per_row(t, x))

    def _guided(self, x: Tensor, t: Tensor | float, plain: Condition, w: Tensor | float) -> Tensor:
        null = self.f.D(x, t, plain.null())
        if not isinstance(w, Tensor) and w == 0:
            return null
        return towards(null, self.f.D(x, t, plain), w)


def guidance_of(guidance: Guided | float | str | None) -> Guided:
    """Guidance by a weight, which may come as text, by a spec, or none of it.

    Raises:
        FewstepError: a weight out of range, or text that is no guidance.
    """
    if isinstance(guidance, Guided):
        return guidance
    try:
        w = 1.0 if guidance is None else float(guidance)
    except ValueError:
        return GUIDANCES.build(str(guidance))
    return Guided(w)


def towards(null: Tensor, D: Tensor, w: Tensor | float) -> Tensor:
    """``D_w = null + w (D - null)``, with one weight or one for each row [B]."""
    return null + (expand(w, D) if isinstance(w, Tensor) else w) * (D - null)


def inside(p: Parameterization, t: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Whether times [B] of a process have noise levels above ``low`` and up to ``high``: [B]."""
    level = p.sigma(t) / p.alpha(t)
    return (low < level) & (level <= high)


def checked_weights(weights: object) -> tuple[float, float]:
    """The lowest and the highest of guidance weights.

    Raises:
        FewstepError: anything else.
    """
    match weights:
        case (int() | float() as low, int() | float() as high) if 0 <= low <= high < math.inf:
            return float(low), float(high)
    raise FewstepError(
        f"a range of guidance weights is two numbers 0 <= low <= high, got {weights}."
    )


def checked_interval(interval: object) -> tuple[float, float]:
    """Two noise levels, the lower first.

    Raises:
        FewstepError: anything else.
    """
    match interval:
        case (int() | float() as low, int() | float() as high) if 0 <= low < high:
            return float(low), float(high)
    raise FewstepError(f"an interval of guidance is two numbers 0 <= low < high, got {interval}.")
