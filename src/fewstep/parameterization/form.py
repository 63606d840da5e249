"""How the end of a map enters: ``X(x, t, s) = c_skip(t, s) x + c_out(t, s) F``.

In every form ``c_skip(t, t) = 1`` and ``c_out(t, t) = 0``, so that ``X(x, t, t) = x`` whatever
``F`` is, and ``X(x, t, 0)`` is the preconditioning's ``D = a(t) x + b(t) F``. They differ between.

A form *is a flow* where the map's first step from ``t`` is the PF-ODE's, given that
``F(x, t, t)`` is the network of a diffusion model:

    dX/ds(x, t, s) at s = t    =    velocity(x, D(x, t), t),    D = a x + b F(x, t, t)

Of such a map the same network is a diffusion model on the diagonal ``s = t`` and a flow map off
it, so that a flow map can start from any diffusion model (Kim et al. 2023, CTM, Eq. 9).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization.preconditioning import (
    PRECONDITIONINGS,
    Karras,
    Preconditioning,
)
from fewstep.parameterization.process import PROCESSES, Process
from fewstep.registry import Registry

FORMS: Registry[Form] = Registry("form of the map")


@dataclass(frozen=True)
class Form(Cited, ABC):
    """``c_skip(t, s)`` and ``c_out(t, s)`` of a process and a preconditioning."""

    flow: ClassVar[bool]
    """Whether ``dX/ds = velocity`` at ``s = t`` where ``F(x, t, t)`` is a diffusion network."""
    continuous: ClassVar[bool] = True
    """Whether the map has a derivative in ``t`` where it ends."""

    process: Process
    preconditioning: Preconditioning

    @abstractmethod
    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        """Weight of ``x`` in the map from ``t`` to ``s``; 1 at ``s = t``."""

    @abstractmethod
    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        """Weight of the network in the map from ``t`` to ``s``; 0 at ``s = t``."""


@FORMS.register("shifted")
@dataclass(frozen=True)
class Shifted(Form):
    """EDM's coefficients, shifted by the end point (Song et al. 2023, Appendix C).

    ``c_skip = d^2 / ((t - s)^2 + d^2)`` and ``c_out = d (t - s) / sqrt(t^2 + d^2)`` with
    ``d = sigma_data``: continuous at ``t = s``, where consistency training wants it to be. It is no
    flow: at ``s = t`` it moves with ``d F / sqrt(t^2 + d^2)``, the PF-ODE with
    ``t x / (t^2 + d^2)`` beside it.

    Raises:
        FewstepError: time is not the noise level, or the network's output is not EDM's.
    """

    citation = "song2023consistency"

    flow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.process.time_is_noise_level and self.preconditioning.shifts):
            raise FewstepError(
                "the form shifted moves EDM's coefficients along the noise level; for the process "
                f"{PROCESSES.name_of(type(self.process))} with the preconditioning "
                f"{PRECONDITIONINGS.name_of(type(self.preconditioning))} choose ddim or simple."
            )

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return self._karras.shifted(t, s)[0]

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return self._karras.shifted(t, s)[1]

    @property
    def _karras(self) -> Karras:
        assert isinstance(self.preconditioning, Karras)
        return self.preconditioning


@FORMS.register("simple")
@dataclass(frozen=True)
class Simple(Form):
    """``x`` at ``t = s``, else ``D = a x + b F`` (Song et al. 2023, Section 3, its first).

    The map is not continuous in ``t`` at ``s``, which continuous-time training needs.
    """

    citation = "song2023consistency"

    flow: ClassVar[bool] = False
    continuous: ClassVar[bool] = False

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        a, _ = self.preconditioning.coefficients(t, self.process)
        return torch.where(t <= s, 1.0, a)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        _, b = self.preconditioning.coefficients(t, self.process)
        return torch.where(t <= s, 0.0, b)


@FORMS.register("ddim")
@dataclass(frozen=True)
class DDIM(Form):
    """The DDIM step from ``t`` to ``s`` with the denoised ``D = a x + b F``.

    ``X = alpha_s D + (sigma_s / sigma_t) (x - alpha_t D)``; Song et al. 2020, Eq. 12 with eta = 0.
    In every process it is a flow.
    """

    citation = "song2021denoising"

    flow: ClassVar[bool] = True

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return self.preconditioning.step_skip(t, s, self.process)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return self.preconditioning.step_out(t, s, self.process)
