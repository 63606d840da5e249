"""Variance exploding processes: ``x_t = x + t z``, time is the noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization.process import PROCESSES, Process


@PROCESSES.register("ve")
@dataclass(frozen=True)
class VarianceExploding(Process):
    """``alpha = 1``, ``sigma = t``: EDM's process (Karras et al. 2022, Table 1)."""

    citation = "karras2022elucidating"

    time_is_noise_level: ClassVar[bool] = True

    T: float = 80.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return (-log_snr).exp()

    def noise_level(self, t: Tensor) -> Tensor:
        return t

    def time_of_noise_level(self, level: Tensor) -> Tensor:
        return level


@PROCESSES.register("pfgm")
@dataclass(frozen=True)
class ElectricField(VarianceExploding):
    """PFGM++: the noise has the tails of an electric field in ``D`` additional dimensions.

    With ``r = t sqrt(D)`` the field lines of PFGM++ obey EDM's PF-ODE ``dx/dt = (x - D(x, t)) / t``
    (Xu et al. 2023, Section 4.1), so that samplers of ODEs are EDM's. What differs is the noise,
    here at ``T``; see `fewstep.objectives.pfgm`.

    Args:
        D: dimensions added to the data: 1 is PFGM, more have lighter tails, infinitely many EDM.
    """

    citation = "xu2023pfgmpp"

    D: float = 128.0

    def __post_init__(self) -> None:
        if not 0 < self.D < math.inf:
            raise FewstepError(f"need 0 < D < inf, got D={self.D}; EDM is the limit of large D.")

    def prior(self, z: Tensor) -> Tensor:
        """``T`` times a Student variable of ``D`` degrees of freedom, from normal ``z`` [B, ...].

        The direction is that of ``z``, the radius has the same quantile: ``|z|^2 ~ chi^2_N``, and
        for the Student variable ``|R|^2 / (|R|^2 + D) ~ Beta(N/2, D/2)``.
        """
        from scipy import special  # here, since `import fewstep` need not wait for it

        N = z[0].numel()
        tiny = torch.finfo(torch.float64).tiny  # rows of zeros, which fill a batch, stay zeros
        square = z.flatten(1).cpu().double().square().sum(1).clamp(min=tiny).numpy()
        # each tail from its own side, so that no quantile rounds to 1
        below, above = special.gammainc(N / 2, square / 2), special.gammaincc(N / 2, square / 2)
        b = special.betaincinv(N / 2, self.D / 2, below)
        c = special.betaincinv(self.D / 2, N / 2, above)
        with np.errstate(divide="ignore"):  # of the tail that is not taken
            odds = np.where(below < 0.5, b / (1 - b), (1 - c) / c)
        ratio = torch.from_numpy(self.D * odds / square)
        scale = ratio.sqrt().to(z.device, z.dtype).reshape(-1, *[1] * (z.ndim - 1))
        return self.T * scale * z
