"""Denoising diffusion probabilistic models: the noise, at the steps of a discrete chain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.parameterization import DiscreteVP, convert


@OBJECTIVES.register("ddpm")
class DDPM(Objective):
    """``mean (epsilon - epsilon(x_n, n))^2`` with ``n ~ U{1, ..., N}``.

    ``x_n = alpha_n x + sigma_n epsilon`` at step ``n`` of the chain, the time ``n / N`` of the
    parameterization vp_discrete. ``L_simple`` of the paper, Eq. 14.

    Args:
        f: the map in training, of the process vp_discrete, through its ``f.D``.
        K: total number of training steps.

    Raises:
        FewstepError: another process.
    """

    kind = "diffusion"
    paper = "Ho, Jain, Abbeel 2020, Algorithm 1 and Eq. 14 (DDPM)"

    def __init__(self, f: FlowMap, K: int) -> None:
        super().__init__(f, K)
        if not isinstance(f.p, DiscreteVP):
            raise FewstepError(
                f"ddpm trains on the steps of vp_discrete, not {type(f.p).__name__}; score_sde "
                "trains in any process."
            )
        self.N = f.p.N

    def forward(self, x: Tensor, k: int, **condition: Any) -> Tensor:
        p = self.f.p
        t = torch.randint(1, self.N + 1, (len(x),), device=x.device) / self.N
        z = torch.randn_like(x)
        x_t = p.diffuse(x, t, z)
        D = self.f.D(x_t, t, **condition)
        epsilon = convert(D, x_t, t, p, source="x0", target="epsilon")
        return (epsilon - z).flatten(1).square().mean(1)
