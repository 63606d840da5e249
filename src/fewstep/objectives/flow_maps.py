"""What the losses of flow maps share: two times, the mean velocity between them, its derivative.

On the straight lines ``x_t = (1 - t) x + t z`` a map to any time is

    X(x_t, t, s) = x_t - (t - s) u(x_t, t, s)

with the *mean velocity* ``u`` from ``s`` to ``t``; on the diagonal ``u(x_t, t, t)`` is the velocity
of the PF-ODE. A network of any preconditioning gives ``u``, so a flow map may start from a
diffusion model of another process. Three conditions hold of the true flow, and each loss asks for
one of them (``v`` is the velocity of a path through ``x_t``, ``m`` a time between):

    Eulerian       d/dt X(x_t, t, s) = v - u - (t - s) du/dt = 0         along a path
    Lagrangian     d/ds X(x_t, t, s) = u(X, s, s)                        at the end of the map
    composition    X(x_t, t, s) = X(X(x_t, t, m), m, s)                  in two jumps

Where ``s = t`` all of them hold of themselves, and what is learned is the velocity of the data. So
only the first rows of a batch have two times, and further passes are made for those alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Needs
from fewstep.objectives.adaptive import adaptive
from fewstep.objectives.guided import AlongLines, Folded
from fewstep.objectives.target import Targeted
from fewstep.parameterization import expand, time_dtype
from fewstep.schedules import TIME_PAIRS, TimePairs
from fewstep.trained import FLOW_MAP


class FlowMapObjective(AlongLines, Targeted):
    """A loss of the mean velocity between two times ``s <= t``.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times, or its spec.
        apart: share of the images whose times differ, the first of a batch; of the others
            ``s = t``.
        mu: decay of the target; 0 makes it the map itself under stop-gradient.
        through: whether gradients go through the target, which at 0 is a copy then: they do not
            move its weights.
    """

    makes = FLOW_MAP
    needs = Needs(two_time=True, processes=("rectified_flow",), flow=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str,
        apart: float = 1.0,
        mu: float = 0.0,
        through: bool = False,
    ) -> None:
        for name, value, most in (("apart", apart, 1), ("mu", mu, 1 - 1e-9)):
            if not 0 <= value <= most:
                raise FewstepError(f"{name} of an objective lies between 0 and 1, got {value}.")
        decay: Callable[[int], float] | None = (lambda k: mu) if mu or through else None
        super().__init__(f, K, mu=decay)
        self.times, self.apart = TIME_PAIRS.build(times), apart

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        t, s = self.pair(x)
        return t, torch.where(self.drawn_apart(t), s, t)

    def drawn_apart(self, t: Tensor) -> Tensor:
        """Which images have two times: a share of them, none after `first_apart`: [B].

        Where the share is no whole number of images, one more has two times as often as the rest of
        the share says.
        """
        u = torch.rand((), device=t.device)
        return torch.arange(len(t), device=t.device) + u < self.apart * len(t)

    def first_apart(self, rows: int) -> int:
        """How many of the first images of a batch may have two times."""
        return math.ceil(self.apart * rows)

    def pair(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two times per example, in the type that times of ``x`` have: [B], [B]."""
        t, s = self.times.sample(x, self.f.p)
        return t.to(time_dtype(x)), s.to(time_dtype(x))


class WeighedByError(FlowMapObjective):
    """A loss of the mean velocity whose images count by their own errors.

    Args:
        f: the map in training.
        K: total number of training steps.
        times: distribution of the two times.
        apart: share of the images whose times differ.
        power: of the weight: 0 is the plain square, 1 makes images count alike.
        c: of the weight.
    """

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TimePairs | str,
        apart: float,
        power: float,
        c: float,
    ) -> None:
        super().__init__(f, K, times=times, apart=apart)
        self.power, self.c = power, c

    def weighed(self, square: Tensor) -> Tensor:
        """Squares [B], each divided by ``sg(square + c)^power``."""
        return adaptive(square, self.power, self.c)


class GuidesItself(FlowMapObjective):
    """A loss along lines that the map may guide by its own velocities; a base class beside others.

    A subclass sets ``fold``.
    """

    fold: Folded

    def velocity(self, x_t: Tensor, t: Tensor, v: Tensor, condition: Condition = NONE) -> Tensor:
        return self.fold.velocity(self.f_minus, x_t, t, v, condition)


def mean_velocity(
    f: FlowMap, x: Tensor, t: Tensor, s: Tensor | None = None, condition: Condition = NONE
) -> Tensor:
    """``u(x, t, s)`` with ``X = x - (t - s) u`` on straight lines; without ``s`` the velocity.

    It is the velocity ``p.velocity(x, D, t)`` of what the network predicts on the way to ``s``,
    ``D = a x + b F(x, t, s)``, and has no quotient of two small numbers where ``s`` is near ``t``.

    Args:
        f: a map of the form ddim in the process rectified_flow.
        x: points at time ``t`` [B, *shape].
        t: times above 0 [B].
        s: times to map to [B].
        condition: what the network is conditioned on.
    """
    p = f.p
    a, b = p.c_denoised(t)
    rate = p.sigma_dot(t) / p.sigma(t)
    of_D = p.alpha_dot(t) - p.alpha(t) * rate
    F_x = f.prediction(x, t, s, condition)
    return expand(rate + of_D * a, x) * x + expand(of_D * b, x) * F_x


def moved(x: Tensor, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """``X = x - (t - s) u``: [B, *shape]."""
    return x - expand(t - s, x) * u


def mean_square(error: Tensor) -> Tensor:
    """Of each example of an error [B, *shape]: [B]."""
    return error.flatten(1).square().mean(1)


def sum_square(error: Tensor) -> Tensor:
    """Of each example of an error [B, *shape]: [B]."""
    return error.flatten(1).square().sum(1)
