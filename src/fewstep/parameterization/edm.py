"""Variance exploding: ``x_t = x + t z``, time is the noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
