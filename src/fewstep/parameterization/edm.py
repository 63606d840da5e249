"""Variance exploding: ``x_t = x + t z``, time is the noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization


@PARAMETERIZATIONS.register("edm")
@dataclass(frozen=True)
class EDM(Parameterization):
    """Variance exploding, ``x_t = x + t z``, with the skip connection of Karras et al. 2022.

    Song et al. 2023, Appendix C, shift EDM's coefficients (its Table 1) by the end point of the
    map, which gives the boundary condition at ``s = eps``; at ``s = 0`` they are EDM's own.
    """

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

    def c_in(self, t: Tensor) -> Tensor:
        return (t**2 + self.sigma_data**2).rsqrt()

    def c_noise(self, t: Tensor) -> Tensor:
        return t.log() / 4

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return self.sigma_data**2 / ((t - s) ** 2 + self.sigma_data**2)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return self.sigma_data * (t - s) * (t**2 + self.sigma_data**2).rsqrt()


@PARAMETERIZATIONS.register("edm_simple")
@dataclass(frozen=True)
class SimpleEDM(EDM):
    """EDM's process with the paper's simple boundary condition: ``x`` at ``t = s``, else ``F``.

    Song et al. 2023, Section 3, first of its two parameterizations. The map is not continuous in
    ``t`` at ``s``, which continuous-time training needs; the skip connection of `EDM` is.
    """

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return (t <= s).to(t.dtype)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return (t > s).to(t.dtype)


@PARAMETERIZATIONS.register("ve")
@dataclass(frozen=True)
class VE(EDM):
    """EDM's process with the network of Score SDE (VE): ``D = x + t F``, so ``F = -epsilon``.

    Song et al. 2021 (Score SDE), in the form of Karras et al. 2022, Table 1: the input is not
    scaled, and ``c_noise = ln(t / 2)``.
    """

    def c_in(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor) -> Tensor:
        return (t / 2).log()

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return torch.ones_like(t - s)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return t - s


@PARAMETERIZATIONS.register("pfgm")
@dataclass(frozen=True)
class PFGM(EDM):
    """EDM's coefficients for PFGM++: the noise has the tails of an electric field in D dimensions.

    With ``r = t sqrt(D)`` the field lines of PFGM++ obey EDM's PF-ODE ``dx/dt = (x - D(x, t)) / t``
    (Xu et al. 2023, Section 4.1), so that samplers of ODEs are EDM's. What differs is the noise,
    here at ``T``; see `fewstep.objectives.pfgm`.

    Args:
        D: dimensions added to the data: 1 is PFGM, more have lighter tails, infinitely many EDM.
    """

    D: float = 128.0

    def __post_init__(self) -> None:
        super().__post_init__()
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
        odds = np.where(below < 0.5, b / (1 - b), (1 - c) / c)
        ratio = torch.from_numpy(self.D * odds / square)
        scale = ratio.sqrt().to(z.device, z.dtype).reshape(-1, *[1] * (z.ndim - 1))
        return self.T * scale * z
