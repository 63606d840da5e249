"""Rectified flow: velocities along straight lines, on data and on pairs of an earlier flow."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.trained import DIFFUSION


@OBJECTIVES.register("rf")
class RF(Objective):
    """1-rectified flow: ``mean (v(x_t, t) - (alpha' x + sigma' z))^2`` with ``t`` uniform.

    On the straight lines ``x_t = (1 - t) x + t z`` of the parameterization rectified_flow, the
    regression is on ``z - x``, and its minimiser the mean velocity of all lines through ``x_t``
    (Liu et al. 2022, Eq. 1).

    Args:
        f: the map in training, through its ``f.velocity``.
        K: total number of training steps.
    """

    makes = DIFFUSION
    paper = "Liu, Gong, Liu 2022, Eq. 1 (rectified flow)"
    citation = "liu2022flow"
    fixed_point = FixedPoint.DENOISER
    cost = Cost()

    def __init__(self, f: FlowMap, K: int) -> None:
        super().__init__(f, K)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        return self.compare(x, torch.randn_like(x), condition)

    def compare(self, x: Tensor, z: Tensor, condition: Condition = NONE) -> Tensor:
        """The loss at a random time on the lines between ``x`` and ``z`` [B, *shape]: [B]."""
        p = self.f.p
        # As solvers do, it leaves out the times where the velocity is a quotient of two zeros.
        t = p.t_min + (p.T - p.t_min) * torch.rand(len(x), device=x.device)
        x_t, v = p.draw(x, t, z)
        error = self.f.velocity(x_t, t, condition) - v
        return error.flatten(1).square().mean(1)


@OBJECTIVES.register("reflow")
class Reflow(RF):
    """k-rectified flow, straighter than that before: the same on its pairs of noise and sample.

    ``mean (v(x_t, t) - (alpha' x + sigma' z))^2``, where ``x`` is what the flow before makes of
    ``z``: its minimiser is again a flow with these marginals, whose lines cross less.

    Args:
        f: the map in training, started from the weights of the flow before.
        K: total number of training steps.
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
