"""Score matching in continuous time, weighted as in score-based generative models by SDEs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.parameterization import EDM, Parameterization, convert


@OBJECTIVES.register("score_sde")
class ScoreSDE(Objective):
    """``w(t) mean (score(x_t, t) - grad log p(x_t | x))^2`` with ``grad log p = -epsilon / sigma``.

    With ``w = sigma^2`` that is ``mean (epsilon(x_t, t) - epsilon)^2``; with ``likelihood``
    ``w = g(t)^2``, which bounds the negative log-likelihood (Song, Durkan, Murray, Ermon 2021).
    ``t`` is uniform on [t_min, T] (Eq. 7); where time is the noise level, as in EDM and VE, its
    logarithm is, which is the uniform time of the paper's geometric VE schedule (Eq. 9).

    Args:
        f: the map in training, through its ``f.D``.
        K: total number of training steps.
        likelihood: the weight ``g^2`` instead of ``sigma^2``.
    """

    kind = "diffusion"
    paper = "Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, Eq. 7 (Score SDE)"

    def __init__(self, f: FlowMap, K: int, *, likelihood: bool = False) -> None:
        super().__init__(f, K)
        self.likelihood = likelihood

    def forward(self, x: Tensor, k: int, **condition: Any) -> Tensor:
        p = self.f.p
        t = uniform_time(p, len(x), x.device)
        z = torch.randn_like(x)
        x_t = p.diffuse(x, t, z)
        D = self.f.D(x_t, t, **condition)
        epsilon = convert(D, x_t, t, p, source="x0", target="epsilon")
        loss = (epsilon - z).flatten(1).square().mean(1)
        return loss * (p.diffusion(t) / p.sigma(t)) ** 2 if self.likelihood else loss


def uniform_time(p: Parameterization, B: int, device: torch.device) -> Tensor:
    """``B`` times that are uniform between ``t_min`` and ``T``, of EDM and VE in ``ln t`` [B]."""
    u = torch.rand(B, device=device)
    if isinstance(p, EDM):
        return (math.log(p.t_min) + u * math.log(p.T / p.t_min)).exp()
    return p.t_min + u * (p.T - p.t_min)
