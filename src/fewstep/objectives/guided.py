"""Which path a loss follows: the lines of the data, guided by the map itself, or a teacher's flow.

How the teacher of a distillation is guided, and how a map guides what it regresses on, have one
place here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Autoguided, Guided, check_weak, checked_weights, guidance_of
from fewstep.objectives.base import Objective
from fewstep.objectives.teachers import in_process_of
from fewstep.parameterization import expand


@dataclass(frozen=True)
class Guide:
    """A teacher and its guidance: none, one weight, or a weight of each row that the student sees.

    One weight becomes part of the student, which then needs no guidance. Of a range of weights the
    student learns all, as an input of its network: a row's weight is drawn evenly from the range
    (Meng et al. 2023; of consistency models Luo et al. 2023).

    Args:
        teacher: the diffusion model.
        fixed: guidance by one weight, by its null class or by a weaker model.
        weights: range of the weights that are drawn.
    """

    teacher: FlowMap
    fixed: Guided
    weights: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        f: FlowMap,
        teacher: FlowMap,
        guidance: Guided | float | str | None,
        weights: tuple[float, float] | None,
        weak: FlowMap | None = None,
    ) -> Guide:
        """The guidance that an objective's arguments ask for; a range is noted in ``f.trained``.

        Raises:
            FewstepError: both, a weight on a teacher without a null class, a range for a network
                that takes no weight, or none for one that does; a weaker model without either.
        """
        if guidance is not None and weights is not None:
            raise FewstepError("give one guidance weight or a range of them, not both.")
        if weak is not None and guidance is None and weights is None:
            raise FewstepError(
                "the weak model is what the teacher is guided by: give the weight too, guidance or "
                "guidance_range, --objective.guidance 2."
            )
        fixed = guidance_of(guidance)
        if isinstance(fixed, Autoguided):
            raise FewstepError(
                "the weak model of a training is given as weak=, --weak MODEL, beside the weight: "
                f"guidance={fixed.w:g}, --objective.guidance {fixed.w:g}."
            )
        weights = learned_range(f, weights)
        if weak is not None:
            return cls(teacher, Autoguided(fixed.w, fixed.interval, weak=weak), weights)
        if not (own := cls(teacher, fixed, weights)).off:
            told = teacher.num_classes or teacher.network.embeds
            teacher.trained.check_null_class(told, "the teacher")
        return own

    @property
    def off(self) -> bool:
        """Whether the teacher is as without guidance."""
        return self.weights is None and self.fixed.off

    def drawn(self, condition: Condition, x: Tensor) -> Condition:
        """A condition with the weights of the rows of ``x``, where there is a range of them."""
        if self.weights is None:
            return condition
        return replace(condition, w=uniform(self.weights, x))

    def D(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The teacher's guided denoiser, by the weights of the rows where they have some."""
        return self.fixed(self.teacher).D(x, t, condition)

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """``dx/dt`` of the teacher's guided PF-ODE: [B, *shape]."""
        return self.teacher.p.velocity(x, self.D(x, t, condition), self.teacher.time(t, x))


class AlongLines(Objective):
    """A loss along a path through each point; by default the line of its image and its noise."""

    def velocity(self, x_t: Tensor, t: Tensor, v: Tensor, condition: Condition = NONE) -> Tensor:
        """``dx/dt`` of the path through ``x_t`` that the loss follows: [B, *shape].

        By default that of the line itself, ``v = alpha' x + sigma' z``, which is right on average.
        A subclass may guide it, or ask a teacher.
        """
        return v


class FollowsTeacher(AlongLines):
    """A loss along the PF-ODE of a teacher, which may be guided; a base class beside others."""

    teacher: FlowMap
    weak: FlowMap | None
    guide: Guide

    def follow_guided(
        self,
        teacher: FlowMap,
        guidance: Guided | float | str | None,
        weights: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        """Hold a teacher in the process of the map, and what guides it.

        Args:
            teacher: the diffusion model.
            guidance: one weight of its guidance, or its spec; it becomes part of the student.
            weights: instead, the range of those that the student takes as an input.
            weak: a weaker model of the teacher's process, in the place of its null class.

        Raises:
            FewstepError: see `Objective.follow`, `Guide.of` and `fewstep.guidance.check_weak`.
        """
        self.weak = None
        if weak is not None:
            check_weak(weak, teacher, "the teacher")
            self.weak = self.hold(in_process_of(self.f, weak, "the weak model"))
        self.teacher = self.follow(teacher)
        self.guide = Guide.of(self.f, self.teacher, guidance, weights, self.weak)

    def conditioned(self, condition: Condition, x: Tensor) -> Condition:
        return self.guide.drawn(super().conditioned(condition, x), x)

    def velocity(self, x_t: Tensor, t: Tensor, v: Tensor, condition: Condition = NONE) -> Tensor:
        return self.guide.velocity(x_t, t, condition)


@dataclass(frozen=True)
class Folded:
    """Guidance that becomes part of a flow map while it learns from data.

    The velocity ``v`` of a line is replaced by

        mix (v + (w - 1) fade(t) (v - v_null)) + (1 - mix) v_class

    with the map's own velocities ``v_null`` and ``v_class``, without and with the class (MeanFlow,
    SoFlow). Where the class is hidden, or outside of the interval, it is ``v`` itself.

    Args:
        w: guidance weight; 1 is no guidance.
        mix: share of the line, from above 0 to 1; the rest is what the map itself says.
        interval: noise levels that are guided.
        fade: how much of the guidance there is at each time.
    """

    w: float = 1.0
    mix: float = 1.0
    interval: tuple[float, float] | None = None
    fade: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(
        cls,
        f: FlowMap,
        w: float,
        mix: float = 1.0,
        interval: tuple[float, float] | None = None,
        fade: Callable[[Tensor], Tensor] | None = None,
    ) -> Folded:
        """Checked against the map that it guides.

        Raises:
            FewstepError: a weight or a share out of range; a network that learns no null class.
        """
        if not 0 < mix <= 1:
            raise FewstepError(
                f"the share of the data in a guided velocity is in (0, 1], not {mix}."
            )
        checked = Guided(w, interval)
        if not checked.w > 0:
            raise FewstepError(
                "a map that guides itself learns with a weight above 0: at 0 nothing of the data "
                "is left in what it learns."
            )
        found = cls(checked.w, mix, checked.interval, fade)
        if not found.off:
            check_guides_itself(f)
        return found

    @classmethod
    def by_shares(
        cls, f: FlowMap, omega: float, kappa: float, interval: tuple[float, float] | None
    ) -> Folded:
        """By MeanFlow's shares of the line and of the map's own: ``mix w`` and ``1 - mix``."""
        if not 0 <= kappa < 1:
            raise FewstepError(
                f"kappa, a share of the map's own velocity, is in [0, 1), not {kappa}."
            )
        return cls.of(f, omega / (1 - kappa), 1 - kappa, interval)

    @property
    def off(self) -> bool:
        """Whether the velocity is that of the line."""
        return self.w == 1 and self.mix == 1

    def velocity(self, f: FlowMap, x: Tensor, t: Tensor, v: Tensor, condition: Condition) -> Tensor:
        """The guided velocity at points ``x`` of lines of velocity ``v``: [B, *shape]."""
        wanted = condition.wanted(f.num_classes)
        if self.off or wanted is None:
            return v
        with torch.no_grad():
            null = f.velocity(x, t, condition.null())
            own = f.velocity(x, t, condition) if self.mix < 1 else v
        rise = torch.full_like(t, self.w - 1)
        rise = rise if self.fade is None else rise * self.fade(t)
        mixed = self.mix * (v + expand(rise, x) * (v - null)) + (1 - self.mix) * own
        seen = wanted & Guided(self.w, self.interval).inside(f.p, t)
        return torch.where(expand(seen, x), mixed, v)


def uniform(weights: tuple[float, float], rows: Tensor) -> Tensor:
    """Guidance weights of rows, drawn evenly from a range: [B]."""
    low, high = weights
    return low + (high - low) * evenly(rows)


def evenly(rows: Tensor, *shape: int) -> Tensor:
    """Numbers drawn evenly from [0, 1) for each of the rows, in at least float32: [B, *shape]."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return torch.rand(len(rows), *shape, device=rows.device, dtype=dtype)


def learned_range(
    f: FlowMap, weights: tuple[float, float] | None, *, intervals: bool = False
) -> tuple[float, float] | None:
    """Guidance weights that a map learns as an input of its network; noted in ``f.trained``.

    Args:
        f: the map.
        weights: the range.
        intervals: whether the interval that is guided is an input as well.

    Raises:
        FewstepError: a range for a network that takes no weight, or none for one that does; one
            out of range; the same of the interval.
    """
    if (weights is not None) != f.network.guidance_embedding:
        raise FewstepError(
            "a map that learns a range of guidance weights, guidance_range=(low, high), takes the "
            "weight as an input: both or neither of guidance_range and guidance_embedding=True, "
            "--network.guidance-embedding."
        )
    if intervals != f.network.interval_embedding:
        raise FewstepError(
            "a map that learns intervals of guidance, guidance_intervals=True of imf, takes them "
            "as an input: both or neither of guidance_intervals and interval_embedding=True, "
            "--network.interval-embedding."
        )
    if weights is None:
        return None
    weights = checked_weights(weights)
    f.trained = replace(f.trained, weights=weights, guidance=weights[0])
    return weights


def check_guides_itself(f: FlowMap) -> None:
    """Raise `FewstepError` where a map has no null class to be guided away from."""
    if not f.network.label_dropout:
        raise FewstepError(
            "a map that guides itself learns with and without its class: give label_dropout, "
            "--network.label-dropout 0.1, or leave out the guidance."
        )
