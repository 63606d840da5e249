"""Weights ``lambda_(t, s)`` of a training example whose times are ``t`` and the earlier ``s``.

For score matching ``s = 0``; for the consistency losses ``s = t_n`` and ``t = t_{n+1}``.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError, FewstepWarning
from fewstep.papers import Cited
from fewstep.parameterization import Parameterization
from fewstep.registry import Registry, spec_of
from fewstep.schedules import karras_spacing

WEIGHTINGS: Registry[Weighting] = Registry("weighting")


LARGEST = 1e9  # of a noise level whose square is taken


class Weighting(Cited, ABC):
    """``lambda_(t, s, p)``: times [B], [B] -> [B], all positive."""

    of_time: ClassVar[bool] = False
    """Whether it is a function of the times themselves, so that it weighs noise levels otherwise in
    a process whose time is not the noise level."""

    @abstractmethod
    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor: ...


@WEIGHTINGS.register("uniform")
@dataclass(frozen=True)
class Uniform(Weighting):
    """``1``; Song et al. 2023."""

    citation = "song2023consistency"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return torch.ones_like(t)


@WEIGHTINGS.register("edm")
@dataclass(frozen=True)
class EDMWeighting(Weighting):
    """``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2`` at ``t``; Karras et al. 2022, Table 1."""

    citation = "karras2022elucidating"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        sigma = p.noise_level(t).clamp(max=LARGEST)
        return (sigma**2 + p.sigma_data**2) / (sigma * p.sigma_data) ** 2


@WEIGHTINGS.register("snr")
@dataclass(frozen=True)
class SNR(Weighting):
    """``alpha^2 / sigma^2`` at ``t``: of the error of ``D``, the unweighted one of epsilon.

    ``L_simple`` of Ho et al. 2020, Eq. 14, and ``sigma^2`` of the score's in Song et al. 2021.
    """

    citation = "ho2020denoising"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return (p.alpha(t) / p.sigma(t)).square()


@WEIGHTINGS.register("likelihood")
@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    """``g^2 alpha^2 / sigma^4`` at ``t``, which is ``g^2`` of the error of the score.

    Over uniform times it bounds the negative log-likelihood (Song, Durkan, Murray, Ermon 2021).
    """

    citation = "song2021maximum"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return (p.diffusion(t) * p.alpha(t) / p.sigma(t) ** 2).square()


@WEIGHTINGS.register("min_snr")
@dataclass(frozen=True)
class MinSNR(Weighting):
    """``min(alpha^2 / sigma^2, gamma)`` at ``t``; Hang et al. 2023, Section 3.4.

    Args:
        gamma: largest weight.
    """

    citation = "hang2023efficient"

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise FewstepError(f"min_snr needs gamma > 0, got {self.gamma}.")

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return (p.alpha(t) / p.sigma(t)).square().clamp(max=self.gamma)


@WEIGHTINGS.register("truncated_snr")
@dataclass(frozen=True)
class TruncatedSNR(Weighting):
    """``max(alpha^2 / sigma^2, 1)`` at ``t``; Salimans & Ho 2022, Section 4."""

    citation = "salimans2022progressive"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return (p.alpha(t) / p.sigma(t)).square().clamp(min=1)


@WEIGHTINGS.register("snr_plus_one")
@dataclass(frozen=True)
class SNRPlusOne(Weighting):
    """``alpha^2 / sigma^2 + 1`` at ``t``: of the error of ``D``, the unweighted one of v.

    Salimans & Ho 2022, Section 4.
    """

    citation = "salimans2022progressive"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return (p.alpha(t) / p.sigma(t)).square() + 1


@WEIGHTINGS.register("inverse_gap")
@dataclass(frozen=True)
class InverseGap(Weighting):
    """``1 / (t - s)``; iCT, Section 3.1, and ECT. Of times: in VP it is another weighting.

    In the papers' process time is the noise level.
    """

    citation = "song2023improved"

    of_time: ClassVar[bool] = True

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return 1 / (t - s)


@WEIGHTINGS.register("inverse_t")
@dataclass(frozen=True)
class InverseT(Weighting):
    """``1/t + 1/sigma_data``: EDM's weight is its square, up to a factor between 1 and 2.

    Of times: where time is not the noise level it is another weighting.
    """

    of_time: ClassVar[bool] = True

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return 1 / t + 1 / p.sigma_data


@WEIGHTINGS.register("inverse_spacing")
@dataclass(frozen=True)
class InverseSpacing(Weighting):
    """``1 / tau'`` at ``t``, the inverse of the grid's spacing: in continuous time it cancels it.

    It is of the grid, which is one of times in every process, and no weighting of noise levels.
    With it the losses of Theorems 4 to 6 of Song et al. 2023 have no factor of the grid, as in the
    code published with the paper; see `fewstep.objectives.continuous`.
    """

    citation = "song2023consistency"

    def __call__(self, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
        return 1 / karras_spacing(t, p)


def weighting_for(p: Parameterization, weighting: Weighting | str) -> Weighting:
    """A weighting, or that of a spec; a note where it is one of times that are no noise levels.

    Raises:
        FewstepError: not a spec of a weighting.
    """
    built = WEIGHTINGS.build(weighting)
    if built.of_time and not p.time_is_noise_level:
        warnings.warn(
            f"the weighting {spec_of(built)} is of times, and the time of "
            f"{spec_of(p.process)} is not the noise level: it weighs noise levels otherwise than "
            "in EDM.",
            FewstepWarning,
            stacklevel=4,
        )
    return built
