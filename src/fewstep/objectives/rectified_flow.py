"""Rectified flow: velocities along straight lines, on data and on pairs of an earlier flow."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.adaptive import adaptive
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.papers import Also
from fewstep.schedules import TRAINING_TIMES, TrainingTimes
from fewstep.trained import DIFFUSION


@OBJECTIVES.register("rf")
class RF(Objective):
    """1-rectified flow: ``mean (v(x_t, t) - (alpha' x + sigma' z))^2`` with ``t`` uniform.

    On the straight lines ``x_t = (1 - t) x + t z`` of the parameterization rectified_flow, the
    regression is on ``z - x``, and its minimiser the mean velocity of all lines through ``x_t``
    (Liu et al. 2022, Eq. 1).

    Later papers draw the times near the middle (Esser et al. 2024), and flow maps divide each
    image's square ``e`` by ``sg(e + c)^power``, so that none counts much more than another. Both
    are options. With a power above 0 the minimiser leans from the mean towards the velocities that
    are met most often.

    Args:
        f: the map in training, through its ``f.velocity``.
        K: total number of training steps.
        times: distribution of the times; default uniform, from ``p.t_min`` to ``T``.
        power: of the weight: 0 is the plain square, 1 makes images count alike.
        c: of the weight.

    Raises:
        FewstepError: a power below 0, or ``c`` that is not above it.
    """

    makes = DIFFUSION
    paper = "Liu, Gong, Liu 2022, Eq. 1 (rectified flow)"
    citation = "liu2022flow"
    fixed_point = FixedPoint.DENOISER
    cost = Cost()
    also_cites = (Also("times", "esser2024scaling"),)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TrainingTimes | str | None = None,
        power: float = 0.0,
        c: float = 0.01,
    ) -> None:
        super().__init__(f, K)
        if not (power >= 0 and c > 0):
            raise FewstepError(f"rf needs power >= 0 and c > 0, got {power} and {c}.")
        self.times = None if times is None else TRAINING_TIMES.build(times)
        self.power, self.c = power, c

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        return self.compare(x, torch.randn_like(x), condition)

    def compare(self, x: Tensor, z: Tensor, condition: Condition = NONE) -> Tensor:
        """The loss at a random time on the lines between ``x`` and ``z`` [B, *shape]: [B]."""
        t = self._drawn(x)
        x_t, v = self.f.p.draw(x, t, z)
        error = self.f.velocity(x_t, t, condition) - v
        return adaptive(error.flatten(1).square().mean(1), self.power, self.c)

    def _drawn(self, x: Tensor) -> Tensor:
        """A time of each image [B], without those where the velocity is a quotient of zeros."""
        p = self.f.p
        if self.times is not None:
            return self.times.sample(x, p)
        return p.t_min + (p.T - p.t_min) * torch.rand(len(x), device=x.device)


@OBJECTIVES.register("reflow")
class Reflow(RF):
    """k-rectified flow, straighter than that before: the same on its pairs of noise and sample.

    ``mean (v(x_t, t) - (alpha' x + sigma' z))^2``, where ``x`` is what the flow before makes of
    ``z``: its minimiser is again a flow with these marginals, whose lines cross less.

    Args:
        f: the map in training, started from the weights of the flow before.
        K: total number of training steps.
        times, power, c: as of `RF`.
    """

    paper = "Liu, Gong, Liu 2022, Algorithm 1 (reflow)"
    citation = "liu2022flow"
    fixed_point = FixedPoint.DENOISER
    cost = Cost()
    needs = Needs(teacher=TeacherUse.START, columns=("noise",))

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        return self.compare(x, columns["noise"], condition)
