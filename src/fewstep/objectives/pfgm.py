"""PFGM++: denoising under the perturbations of an electric field in ``D`` more dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.score_matching import ScoreMatching
from fewstep.parameterization.exploding import ElectricField
from fewstep.weightings import Weighting


@OBJECTIVES.register("pfgm")
class PFGMpp(ScoreMatching):
    """EDM's loss with heavy-tailed noise: ``lambda_(t) mean (D(x + R, t) - x)^2``.

    ``R`` has the density ``1 / (|R|^2 + D t^2)^((N + D)/2)`` over ``N`` dimensions of data: with
    ``r = t sqrt(D)``, the kernel of the electric field of charges in N + D dimensions. That is
    ``t`` times a multivariate Student variable of ``D`` degrees of freedom,

        R = t z / sqrt(chi^2_D / D)

    so that ``D -> infinity`` is EDM, and ``D = 1`` PFGM (Xu et al. 2022). All else is EDM's. The
    samples of the process pfgm start from noise of the same heavy tails.

    Args:
        f: the map in training, of the parameterization pfgm, whose ``D`` it takes.
        K, P_mean, P_std, weighting: as for `ScoreMatching`.
    """

    needs = Needs(processes=("pfgm",))
    paper = "Xu, Liu, Tian, Tong, Tegmark, Jaakkola 2023, Eq. 3 and Section 4 (PFGM++)"
    citation = "xu2023pfgmpp"
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
        super().__init__(f, K, P_mean=P_mean, P_std=P_std, weighting=weighting)
        self.p = f.p

    def noise(self, x: Tensor) -> Tensor:
        process = self.p.process
        assert isinstance(process, ElectricField)
        D = torch.full((len(x), *[1] * (x.ndim - 1)), process.D, device=x.device)
        chi2 = 2 * torch._standard_gamma(D / 2)
        return torch.randn_like(x) * (D / chi2).sqrt()
