"""Classifier-free guidance, and the formula that every guidance is; see `fewstep.guidance`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fewstep.condition import EVERYWHERE, NONE, Condition
from fewstep.errors import FewstepError
from fewstep.papers import Also, Cited
from fewstep.parameterization import Parameterization, expand, per_row
from fewstep.registry import Registry
from fewstep.tracing import in_graph
from fewstep.trained import Trained

if TYPE_CHECKING:
    from typing import Self


class Denoising(Protocol):
    """The face of a model that guidance takes and gives."""

    @property
    def p(self) -> Parameterization:
        """The process."""

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """The denoiser ``E[x_0 | x_t = x]``: [B, *shape]."""


class Guidable(Denoising, Protocol):
    """The face of a model of which it is asked whether it can be guided, and by which other."""

    @property
    def trained(self) -> Trained:
        """What it may be asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one ``x``."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for an unconditional model."""

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each class."""

    @property
    def latents(self) -> object | None:
        """The latent space that ``x`` lives in; None where ``x`` is the image itself."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""


Open = Callable[[str], Guidable]
"""Opens the model of a place."""

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

    @property
    def other(self) -> Guidable | None:
        """A further model that is asked; None where there is none."""
        return None

    def opened(self, open: Open) -> Self:
        """This guidance with its further model, where a spec has only named one."""
        return self

    def check(self, f: Guidable) -> None:
        """Raise `FewstepError` where a model cannot be guided so."""
        f.trained.check_guidance(f.num_classes or embeds(f), self.w)

    def check_input(self, trained: Trained) -> None:
        """Raise `FewstepError` where this cannot be an input of a map, which is asked in jumps."""
        if not self.off:
            trained.check_takes_weight(self.w)
        trained.check_takes_interval(self.interval or EVERYWHERE)

    def away(self, f: Denoising, x: Tensor, t: Tensor | float, condition: Condition) -> Tensor:
        """``D_away``, what it leads away from: [B, *shape]."""
        return f.D(x, t, condition.null())

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
        if not in_graph():  # a graph has both cases
            if not inside.any():
                return self.f.D(x, t, plain)
            if inside.all():
                return self._guided(x, t, plain, w)
        D = self.f.D(x, t, plain)
        guided = towards(self.guidance.away(self.f, x, t, plain), D, w)
        return torch.where(expand(inside, x), guided, D)

    def velocity(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """``dx/dt`` of the guided PF-ODE: [B, *shape]."""
        return self.p.velocity(x, self.D(x, t, condition), per_row(t, x))

    def _guided(self, x: Tensor, t: Tensor | float, plain: Condition, w: Tensor | float) -> Tensor:
        away = self.guidance.away(self.f, x, t, plain)
        if not isinstance(w, Tensor) and w == 0:
            return away
        return towards(away, self.f.D(x, t, plain), w)


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


def towards(away: Tensor, D: Tensor, w: Tensor | float) -> Tensor:
    """``D_w = away + w (D - away)``, with one weight or one for each row [B]."""
    return away + (expand(w, D) if isinstance(w, Tensor) else w) * (D - away)


def embeds(f: object) -> int:
    """Numbers of the embeddings that a model is conditioned on; 0 for none."""
    return int(getattr(getattr(f, "network", None), "embeds", 0))


def inside(p: Parameterization, t: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Whether times [B] of a process have noise levels above ``low`` and up to ``high``: [B]."""
    level = p.noise_level(t)
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
