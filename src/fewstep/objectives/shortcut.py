"""Shortcut models: one step of a flow is two of half its length."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided, towards
from fewstep.needs import Cost, Fewest, FixedPoint
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import FlowMapObjective, mean_square, mean_velocity, moved
from fewstep.objectives.guided import check_guides_itself
from fewstep.parameterization import expand, time_dtype
from fewstep.whole import whole


@OBJECTIVES.register("shortcut")
class Shortcut(FlowMapObjective):
    """``|u(x_t, t, t - d) - (u_1 + u_2)/2|^2``, two steps of half the length ``d`` for one.

    ``u_1 = u_minus(x_t, t, t - d/2)`` leads to ``x'``, and ``u_2 = u_minus(x', t - d/2, t - d)`` on
    from there (Eq. 4 and 5 of the paper, whose time runs the other way). One of ``every`` images
    learns that, with ``d`` in ``1, 1/2, ..., 2/N`` and ``t`` a multiple of ``d``. The others learn
    the velocity of the data at the smallest step, ``|u(x_t, t, t - 1/N) - (z - x)|^2``. ``u_minus``
    is the running average, without dropout.

    The first rows of a batch are those, so every part of a batch that is computed at once has at
    least ``every`` images.

    Args:
        f: the map in training.
        K: total number of training steps.
        N: the smallest step is ``1/N``; a power of two.
        mu: decay of ``u_minus``.
        every: of so many images one learns from steps of half the length.
        clip: largest value of the points on the way and of the target.
        guidance: weight of the guidance of the targets with the smallest ``d``; 1 is none.
    """

    paper = "Frans, Hafner, Levine, Abbeel 2024, Algorithm 1 (shortcut models)"
    citation = "frans2024one"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=1.25)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        N: int = 128,
        mu: float = 0.999,
        every: int = 8,
        clip: float = 4.0,
        guidance: float = 1.0,
    ) -> None:
        if N < 4 or N & (N - 1):
            raise FewstepError(f"shortcut models need a power of two of steps, 4 or more, got {N}.")
        if not (0 < mu < 1 and clip > 0 and whole(every, "every") > 0):
            raise FewstepError(
                f"shortcut needs 0 < mu < 1, clip > 0 and every > 0, got {mu}, {clip} and {every}."
            )
        super().__init__(f, K, times="sorted", mu=mu)
        self.hold(self.f_minus)
        self.levels, self.N, self.clip = N.bit_length() - 1, N, clip
        self.every = every
        self.guided = Guided(guidance)
        if not self.guided.off:
            check_guides_itself(f)

    @property
    def fewest(self) -> Fewest:
        return Fewest(self.every, f"one of {self.every} images learns from shorter steps")

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        # on the CPU: not every device has float64
        boot = torch.arange(len(x)) < round(len(x) / self.every)
        level = torch.where(boot, torch.randint(self.levels, (len(x),)), self.levels)
        steps = 2**level  # of the length d = 1 / steps
        i = 1 + (torch.rand(len(x), dtype=torch.float64) * steps).floor()
        return tuple(u.to(time_dtype(x)).to(x.device) for u in (i / steps, (i - 1) / steps))

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t, s = times
        x_t, v = self.f.p.draw(x, t, torch.randn_like(x))
        n = round(len(x) / self.every)
        with torch.no_grad():
            halves = self.two_halves(x_t[:n], t[:n], s[:n], condition.rows(slice(n)))
            target = torch.cat([halves, v[n:]])
        return mean_square(mean_velocity(self.f, x_t, t, s, condition) - target)

    def two_halves(self, x: Tensor, t: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """The mean velocity of two steps of half the length: [B, *shape]."""
        middle = (t + s) / 2
        first = self.step(x, t, middle, condition)
        there = moved(x, first, t, middle).clamp(-self.clip, self.clip)
        second = self.step(there, middle, s, condition)
        return ((first + second) / 2).clamp(-self.clip, self.clip)

    def step(self, x: Tensor, t: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """``u_minus``, guided at the smallest step: [B, *shape]."""
        u = mean_velocity(self.f_minus, x, t, s, condition)
        seen = condition.wanted(self.f.num_classes)
        if self.guided.off or seen is None:
            return u
        null = mean_velocity(self.f_minus, x, t, s, condition.null())
        smallest = seen & (t - s < 1.5 / self.N)  # halves of the smallest d
        return torch.where(expand(smallest, x), towards(null, u, self.guided.w), u)
