"""Parameterizations whose time is the noise level: EDM, its simple form, Score SDE's VE, PFGM++."""

from __future__ import annotations

from dataclasses import dataclass, field

from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization
from fewstep.parameterization.exploding import ElectricField, VarianceExploding
from fewstep.parameterization.preconditioning import (
    Karras,
    KarrasDenoised,
    Preconditioning,
    ScoreSDE,
)
from fewstep.parameterization.process import Process


@PARAMETERIZATIONS.register("edm")
@dataclass(frozen=True)
class EDM(Parameterization):
    """Variance exploding, ``x_t = x + t z``, with the skip connection of Karras et al. 2022.

    Song et al. 2023, Appendix C, shift EDM's coefficients (its Table 1) by the end point of the
    map, which gives the boundary condition at ``s = eps``; at ``s = 0`` they are EDM's own. A flow
    map that starts from a diffusion model wants ``form="ddim"``.
    """

    form: str = field(default="shifted", kw_only=True)

    def _process(self) -> Process:
        return VarianceExploding(self.T)

    def _preconditioning(self) -> Preconditioning:
        return Karras(self.sigma_data)


@PARAMETERIZATIONS.register("edm_simple")
@dataclass(frozen=True)
class SimpleEDM(EDM):
    """EDM's process with the paper's simple boundary condition: ``x`` at ``t = s``, else ``F``.

    Song et al. 2023, Section 3, first of its two parameterizations. The map is not continuous in
    ``t`` at ``s``, which continuous-time training needs; the skip connection of `EDM` is.
    """

    form: str = field(default="simple", kw_only=True)

    def _preconditioning(self) -> Preconditioning:
        return KarrasDenoised(self.sigma_data)


@PARAMETERIZATIONS.register("ve")
@dataclass(frozen=True)
class VE(EDM):
    """EDM's process with the network of Score SDE (VE): ``D = x + t F``, so ``F = -epsilon``.

    Song et al. 2021 (Score SDE), in the form of Karras et al. 2022, Table 1: the input is not
    scaled, and ``c_noise = ln(t / 2)``.
    """

    form: str = field(default="ddim", kw_only=True)

    def _preconditioning(self) -> Preconditioning:
        return ScoreSDE(self.sigma_data)


@PARAMETERIZATIONS.register("pfgm")
@dataclass(frozen=True)
class PFGM(EDM):
    """EDM's coefficients for PFGM++: the noise has the tails of an electric field in D dimensions.

    See `fewstep.parameterization.exploding.ElectricField` and `fewstep.objectives.pfgm`.

    Args:
        D: dimensions added to the data: 1 is PFGM, more have lighter tails, infinitely many EDM.
    """

    D: float = 128.0

    def _process(self) -> Process:
        return ElectricField(self.T, self.D)
