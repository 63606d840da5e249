"""Score matching in continuous time, weighted as in score-based generative models by SDEs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.parameterization import EDM, Parameterization
from fewstep.weightings import WEIGHTINGS, Weighting


@OBJECTIVES.register("score_sde")
class ScoreSDE(Objective):
    """``lambda_(t) mean (D(x_t, t) - x)^2``, which is ``w mean (score - grad log p(x_t | x))^2``.

    ``w = lambda_ sigma^4 / alpha^2`` since ``score = (alpha D - x_t) / sigma^2``. The weighting snr
    is the paper's ``w = sigma^2``, with ``mean (epsilon(x_t, t) - epsilon)^2`` for the loss; the
    weighting likelihood is ``w = g(t)^2`` (Song, Durkan, Murray, Ermon 2021).
    ``t`` is uniform on [t_min, T] (Eq. 7); where time is the noise level, as in EDM and VE, its
    logarithm is, which is the uniform time of the paper's geometric VE schedule (Eq. 9).

    Args:
        f: the map in training, through its ``f.D``.
        K: total number of training steps.
        weighting: ``lambda_``.
    """

    kind = "diffusion"
    paper = "Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, Eq. 7 (Score SDE)"

    def __init__(self, f: FlowMap, K: int, *, weighting: Weighting | str = "snr") -> None:
        super().__init__(f, K)
        self.lambda_ = WEIGHTINGS.build(weighting)

    def forward(self, x: Tensor, k: int, **condition: Any) -> Tensor:
        p = self.f.p
        t = uniform_time(p, len(x), x.device)
        x_t = p.diffuse(x, t, torch.randn_like(x))
        error = self.f.D(x_t, t, **condition) - x
        return self.lambda_(t, torch.zeros_like(t), p) * error.flatten(1).square().mean(1)


def uniform_time(p: Parameterization, B: int, device: torch.device) -> Tensor:
    """``B`` times that are uniform between ``t_min`` and ``T``, of EDM and VE in ``ln t`` [B]."""
    u = torch.rand(B, device=device)
    if isinstance(p, EDM):
        return (math.log(p.t_min) + u * math.log(p.T / p.t_min)).exp()
    return p.t_min + u * (p.T - p.t_min)
