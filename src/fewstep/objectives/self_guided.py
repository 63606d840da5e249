"""Guidance that a map learns as an input of its network, by its own velocities.

A row of the batch has a weight ``w`` of its own, which the network is told. Of the line's velocity
``v`` and the map's own ones the target is made so that on average

    v_w = v_null + w (v_class - v_null)

is where it leads. Without its class a row is not guided: its weight is 1.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from fewstep.condition import Condition, everywhere
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import checked_weights, inside
from fewstep.objectives.guided import check_guides_itself, evenly, learned_range
from fewstep.parameterization import Parameterization

MIDDLE = 0.5
"""Time on straight lines that every drawn interval has inside it (Geng et al. 2025)."""


def own_range(
    f: FlowMap, weights: tuple[float, float] | None, *, intervals: bool = False
) -> tuple[float, float] | None:
    """Guidance weights of a map that learns them as an input and guides itself.

    Args:
        f: the map; its record says what it learns.
        weights: lowest and highest.
        intervals: whether it learns the interval that is guided as well.

    Raises:
        FewstepError: see `learned_range`; intervals without weights; a range below 1; a network
            that learns no null class.
    """
    if intervals and weights is None:
        raise FewstepError(
            "guidance_intervals says where the weights of guidance_range guide: give both."
        )
    if weights is not None and f.network.guidance_embedding:
        low, _ = checked_weights(weights)
        if low < 1:
            raise FewstepError(
                f"a map that guides itself learns weights from 1 on, not from {low:g}."
            )
        check_guides_itself(f)
    weights = learned_range(f, weights, intervals=intervals)
    if intervals:
        f.trained = replace(f.trained, around=float(_level(torch.tensor(MIDDLE))))
    return weights


def with_weights(f: FlowMap, condition: Condition, w: Tensor) -> Condition:
    """A condition with weights ``w`` [B]; of rows without their class 1."""
    wanted = condition.wanted(f.num_classes)
    known = torch.zeros_like(w, dtype=torch.bool) if wanted is None else wanted
    return replace(condition, w=torch.where(known, w, 1.0))


def drawn_intervals(rows: Tensor) -> Tensor:
    """Noise levels between which a row is guided: [B, 2].

    As times on straight lines the first is even below `MIDDLE` and the second even above it.
    """
    u = evenly(rows, 2)
    low, high = (MIDDLE * u).unbind(1)
    return _level(torch.stack([low, MIDDLE + high], dim=1))


def _level(t: Tensor) -> Tensor:
    """The noise level ``sigma / alpha`` of times on straight lines."""
    return t / (1 - t)


def at_time(p: Parameterization, t: Tensor, condition: Condition) -> Condition:
    """What guides the velocity at times ``t`` [B]: the weight everywhere, or 1 where none does.

    At one time an interval says no more than that.
    """
    if condition.w is None or condition.interval is None:
        return condition
    w = torch.where(inside(p, t, *condition.interval.unbind(1)), condition.w, 1.0)
    return replace(condition, w=w, interval=everywhere(w))


def without_class(condition: Condition) -> Condition:
    """The null class, which is not guided."""
    if condition.w is None:
        return condition.null()
    return replace(condition.null(), w=torch.ones_like(condition.w), interval=None)


def log_uniform(weights: tuple[float, float], rows: Tensor) -> Tensor:
    """Weights of a density ~ 1/w: [B]."""
    low, high = (math.log(w) for w in weights)
    return (low + (high - low) * evenly(rows)).exp()
