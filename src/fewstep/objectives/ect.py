"""Easy consistency tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import Distance
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.consistency import ConsistencyObjective
from fewstep.parameterization import expand
from fewstep.schedules import LogNormal, SigmoidGap
from fewstep.weightings import Weighting


@OBJECTIVES.register("ect")
class ECT(ConsistencyObjective):
    """Turn a diffusion model into a consistency model by shrinking the gap between two times.

    ``lambda_(t, r) d(f(x + t z, t), sg f(x + r z, r))`` with ``r(t, k)`` moving from 0, where the
    target is ``x`` and the loss that of a diffusion model, towards ``t``. The map ends at the data
    itself: the parameterization has ``eps = 0``.

    Args:
        f: the map in training, started from a diffusion model's weights.
        K: total number of training steps.
        stages: how many times the gap shrinks; with 1 it is constant, as in the paper's hour of
            training (q = 256) and after CMT (q = 4096).
        q: factor by which it shrinks.
        cap: largest ``1 - q^-(stage+1)``, after which the gap stays; 1 for no such limit.
        P_mean: mean of ``ln(sigma/alpha)``, which for EDM is ``ln t``.
        P_std: its standard deviation.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts: the paper's "inverse_gap" or, as in its code
            for ImageNet, "edm".
    """

    paper = "Geng, Pokle, Luo, Lin, Kolter 2024 (ECT)"
    citation = "geng2024consistency"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2)
    needs = Needs(teacher=TeacherUse.START, eps_zero=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        stages: int = 8,
        q: float = 2.0,
        cap: float = 1.0,
        P_mean: float = -1.1,
        P_std: float = 2.0,
        distance: Distance | str = "pseudo_huber",
        weighting: Weighting | str = "inverse_gap",
    ) -> None:
        super().__init__(f, K, mu=None, distance=distance, weighting=weighting)
        self.r = SigmoidGap(K, stages, q, cap=cap)
        self.times = LogNormal(P_mean, P_std)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        p = self.f.p
        t = self.times.sample(x, p)
        return t, p.time_of_noise_level(self.r(p.noise_level(t), k))

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t, r) = self.f.p, times
        start = r < p.t_min  # below it a network has never been evaluated: the target is x
        r_or_t_min = r.clamp(min=p.t_min)
        z = torch.randn_like(x)
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            x_0, x_r = self.before(x, z, t, r_or_t_min, condition)
            known = self.f(x_r, r_or_t_min, condition=condition)
            target = torch.where(expand(start, x), x_0, known)
        r = torch.where(start, 0.0, r)
        with dropout:
            return self.compare(p.diffuse(x, t, z), t, target, r, condition)

    def before(
        self, x: Tensor, z: Tensor, t: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """What is compared with the point of ``x`` and ``z`` at ``t`` [B]: both [B, *shape].

        The clean image behind it, and the point of the time ``r`` [B].
        """
        return x, self.f.p.diffuse(x, r, z)
