"""Score matching in continuous time, weighted as in score-based generative models by SDEs."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.schedules import TRAINING_TIMES, TrainingTimes
from fewstep.trained import DIFFUSION
from fewstep.weightings import Weighting, weighting_for


@OBJECTIVES.register("score_sde")
class ScoreSDE(Objective):
    """``lambda_(t) mean (D(x_t, t) - x)^2``, which is ``w mean (score - grad log p(x_t | x))^2``.

    ``w = lambda_ sigma^4 / alpha^2`` since ``score = (alpha D - x_t) / sigma^2``. The weighting snr
    is the paper's ``w = sigma^2``, with ``mean (epsilon(x_t, t) - epsilon)^2`` for the loss; the
    weighting likelihood is ``w = g(t)^2`` (Song, Durkan, Murray, Ermon 2021).

    Args:
        f: the map in training, through its ``f.D``.
        K: total number of training steps.
        times: distribution of ``t``; the paper's is uniform on [t_min, T].
        weighting: ``lambda_``.
    """

    makes = DIFFUSION
    paper = "Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, Eq. 7 (Score SDE)"
    citation = "song2021score"
    fixed_point = FixedPoint.DENOISER
    cost = Cost()

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        times: TrainingTimes | str = "uniform",
        weighting: Weighting | str = "snr",
    ) -> None:
        super().__init__(f, K)
        self.times = TRAINING_TIMES.build(times)
        self.lambda_ = weighting_for(f.p, weighting)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return (self.times.sample(x, self.f.p),)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t,) = self.f.p, times
        x_t = p.diffuse(x, t, torch.randn_like(x))
        error = self.f.D(x_t, t, condition) - x
        return self.lambda_(t, torch.zeros_like(t), p) * error.flatten(1).square().mean(1)
