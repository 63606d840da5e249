"""Denoising score matching in EDM's form: the diffusion model that everything starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.schedules import LogNormal
from fewstep.trained import DIFFUSION
from fewstep.weightings import Weighting, weighting_for


@OBJECTIVES.register("score_matching")
class ScoreMatching(Objective):
    """Train a diffusion model: ``lambda_(t) mean (D(x_t, t) - x)^2`` at lognormal noise levels.

    For EDM ``x_t = x + t z`` with ``ln t`` normal. In every process ``ln(sigma/alpha)`` is.

    The minimiser is ``D(x, t) = E[x_0 | x_t = x]``, which gives the score (Lemma 1 of Song et
    al. 2023).

    Args:
        f: the map in training, through its ``f.D``.
        K: total number of training steps.
        P_mean: mean of ``ln(sigma/alpha)``, which for EDM is ``ln t``.
        P_std: its standard deviation.
        weighting: ``lambda_``; EDM's makes the loss of every noise level about 1 at the start.
    """

    makes = DIFFUSION
    paper = "Karras, Aittala, Aila, Laine 2022 (EDM), Table 1"
    citation = "karras2022elucidating"
    fixed_point = FixedPoint.DENOISER
    cost = Cost()

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        weighting: Weighting | str = "edm",
    ) -> None:
        super().__init__(f, K)
        self.times = LogNormal(P_mean, P_std)
        self.lambda_ = weighting_for(f.p, weighting)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return (self.times.sample(x, self.f.p, least=0.0),)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t,) = self.f.p, times
        x_t = p.diffuse(x, t, self.noise(x))
        error = self.f.D(x_t, t, condition) - x
        return self.lambda_(t, torch.zeros_like(t), p) * error.flatten(1).square().mean(1)

    def noise(self, x: Tensor) -> Tensor:
        """What ``sigma(t)`` scales: standard normal, shaped like ``x``."""
        return torch.randn_like(x)
