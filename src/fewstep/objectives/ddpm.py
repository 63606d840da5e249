"""Denoising diffusion probabilistic models: the noise, at the steps of a discrete chain."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.parameterization.chain import Chain
from fewstep.trained import DIFFUSION
from fewstep.weightings import Weighting, weighting_for


@OBJECTIVES.register("ddpm")
class DDPM(Objective):
    """``lambda_(t) mean (D(x_t, t) - x)^2`` at ``t = n / N`` with ``n ~ U{1, ..., N}``.

    ``x_t = alpha x + sigma epsilon`` is step ``n`` of the chain of the parameterization
    vp_discrete. With the weighting snr that is ``mean (epsilon(x_t, t) - epsilon)^2``, ``L_simple``
    of the paper, Eq. 14. In other processes score_sde is its like.

    Args:
        f: the map in training, of the process vp_discrete, through its ``f.D``.
        K: total number of training steps.
        weighting: ``lambda_``.
    """

    makes = DIFFUSION
    needs = Needs(processes=("vp_discrete",))
    paper = "Ho, Jain, Abbeel 2020, Algorithm 1 and Eq. 14 (DDPM)"
    citation = "ho2020denoising"
    fixed_point = FixedPoint.DENOISER
    cost = Cost()

    def __init__(self, f: FlowMap, K: int, *, weighting: Weighting | str = "snr") -> None:
        super().__init__(f, K)
        assert isinstance(f.p.process, Chain)
        self.N = f.p.process.N
        self.lambda_ = weighting_for(f.p, weighting)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return (torch.randint(1, self.N + 1, (len(x),), device=x.device) / self.N,)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t,) = self.f.p, times
        x_t = p.diffuse(x, t, torch.randn_like(x))
        error = self.f.D(x_t, t, condition) - x
        return self.lambda_(t, torch.zeros_like(t), p) * error.flatten(1).square().mean(1)
