"""What a network sees of a point and its time, and what its output means.

The network is evaluated as ``F(c_in(t) x, c_noise(t))``, and its output ``F`` gives the denoised
image by two coefficients that depend on time alone:

    D(x, t) = a(t) x + b(t) F

These are a choice apart from the process. `Karras` and `TimeItself` serve any process; the others
are written for the one of their paper.

``c_noise`` is finite at 0, since a two-time network is also told the end of its map, which may be
the data itself. Where it is the logarithm of a noise level, levels below `LEAST` of the data's
deviation count as that: float32 does not tell such an image from the data, all levels above keep
their very bits, and ``ln`` has slope 0 there, so that derivatives in time stay finite, too. A
logarithm of ``level + LEAST`` would have moved the embedding of every trained network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization.chain import Chain
from fewstep.parameterization.finite import Circle, StraightLines
from fewstep.parameterization.prediction import PREDICTIONS, Prediction
from fewstep.parameterization.process import PROCESSES, Process
from fewstep.registry import Registry

LEAST = 1e-6
"""Of a noise level, in units of the data's deviation, that a logarithm is taken of."""
LARGEST = 1e9
"""Of a time or a deviation of the data: float32 holds their squares and products."""

PRECONDITIONINGS: Registry[Preconditioning] = Registry("preconditioning")


@dataclass(frozen=True)
class Preconditioning(Cited, ABC):
    """``c_in(t)``, ``c_noise(t)``, and ``a(t), b(t)`` with ``D = a x + b F``.

    Args:
        sigma_data: standard deviation of the data.
    """

    serves: ClassVar[type[Process]] = Process  # type: ignore[type-abstract]
    """The processes that it is written for."""
    shifts: ClassVar[bool] = False
    """Whether its coefficients can be shifted by the end of a map (`form.Shifted`)."""

    sigma_data: float = 0.5

    @abstractmethod
    def c_in(self, t: Tensor, p: Process) -> Tensor:
        """Scale of the network's input."""

    @abstractmethod
    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        """The network's time argument, finite for all ``t >= 0``."""

    @abstractmethod
    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        """``a(t), b(t)`` of ``D = a x + b F``."""

    def check(self, p: Process) -> None:
        """Raise `FewstepError` for a process that it does not serve."""
        if not isinstance(p, self.serves):
            mine, theirs = PRECONDITIONINGS.name_of(type(self)), PROCESSES.name_of(type(p))
            raise FewstepError(
                f"the preconditioning {mine} is not written for the process {theirs}; edm and "
                "time_itself serve every process."
            )

    def step_skip(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        """``c_skip`` of the DDIM step ``alpha_s D + (sigma_s / sigma_t) (x - alpha_t D)``.

        A subclass may know the quotient in closed form.
        """
        a, _ = self.coefficients(t, p)
        ratio = _ratio(t, s, p)
        return ratio + (p.alpha(s) - p.alpha(t) * ratio) * a

    def step_out(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        """``c_out`` of the DDIM step."""
        _, b = self.coefficients(t, p)
        # in this order, so that it is 0 to the bit at s = t
        return (p.alpha(s) - p.alpha(t) * _ratio(t, s, p)) * b


def _ratio(t: Tensor, s: Tensor, p: Process) -> Tensor:
    """``sigma_s / sigma_t``; 1 at ``t = 0``, from where a map leads nowhere."""
    sigma_t = p.sigma(t)
    return torch.where(sigma_t > 0, p.sigma(s) / sigma_t, 1.0)


def finite_level(t: Tensor, p: Process, sigma_data: float) -> Tensor:
    """The noise level between `LEAST` of the data's deviation and `LARGEST`, for a logarithm."""
    return p.noise_level(t).clamp(LEAST * sigma_data, LARGEST)


@PRECONDITIONINGS.register("edm")
@dataclass(frozen=True)
class Karras(Preconditioning):
    """Input and target of the network have unit variance (Karras et al. 2022, Table 1).

    Of ``y = x / alpha`` with the noise level ``n = sigma / alpha`` and ``d = sigma_data``:
    ``D = d^2/(n^2 + d^2) y + n d/sqrt(n^2 + d^2) F(y/sqrt(n^2 + d^2), ln(n)/4)``. That holds in any
    process; where ``alpha = 1`` it is EDM.
    """

    citation = "karras2022elucidating"

    shifts: ClassVar[bool] = True

    def c_in(self, t: Tensor, p: Process) -> Tensor:
        return self._variance(t, p).rsqrt()

    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        return finite_level(t, p, self.sigma_data).log() / 4

    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        variance = self._variance(t, p)
        a = p.alpha(t) * (self.sigma_data**2 / variance)
        return a, self.sigma_data * p.sigma(t) * variance.rsqrt()

    def _variance(self, t: Tensor, p: Process) -> Tensor:
        """Of ``x_t``."""
        return p.sigma(t) ** 2 + p.alpha(t) ** 2 * self.sigma_data**2

    def shifted(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``a`` at ``t - s``, and ``b`` with ``t - s`` for its factor ``t``: see `Shifted`."""
        c_skip = self.sigma_data**2 / ((t - s) ** 2 + self.sigma_data**2)
        return c_skip, self.sigma_data * (t - s) * (t**2 + self.sigma_data**2).rsqrt()


@PRECONDITIONINGS.register("edm_denoised")
@dataclass(frozen=True)
class KarrasDenoised(Karras):
    """EDM's input; the output is the denoised image itself, ``D = F``."""

    shifts: ClassVar[bool] = False

    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)


@PRECONDITIONINGS.register("ve")
@dataclass(frozen=True)
class ScoreSDE(Preconditioning):
    """``D = x + sigma F``, so ``F = -epsilon``; input as it is, ``c_noise = ln(sigma / 2)``.

    Song et al. 2021 (Score SDE), in the form of Karras et al. 2022, Table 1.
    """

    citation = "song2021score"

    def c_in(self, t: Tensor, p: Process) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        return (finite_level(t, p, self.sigma_data) / 2).log()

    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        return 1 / p.alpha(t), p.sigma(t) / p.alpha(t)

    def step_skip(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        if p.time_is_noise_level:  # s/t + 1 - s/t
            return torch.ones_like(t - s)
        return super().step_skip(t, s, p)

    def step_out(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        if p.time_is_noise_level:  # (1 - s/t) t
            return t - s
        return super().step_out(t, s, p)


@PRECONDITIONINGS.register("time_itself")
@dataclass(frozen=True)
class TimeItself(Preconditioning):
    """The network sees ``x_t`` and ``time_scale t`` as they are, and predicts a `Prediction`.

    Args:
        prediction: what the network predicts: epsilon, x0, v, score or velocity.
        time_scale: ``c_noise = time_scale t``; 999 is the index of DDPM's thousand steps.
    """

    prediction: Annotated[str, PREDICTIONS] = "epsilon"
    time_scale: float = 999.0
    _prediction: Prediction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prediction", PREDICTIONS.build(self.prediction))

    def c_in(self, t: Tensor, p: Process) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        return self.time_scale * t

    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        return self._prediction.coefficients(t, p)


@PRECONDITIONINGS.register("vp_discrete")
@dataclass(frozen=True)
class ChainIndex(TimeItself):
    """As ``time_itself``, of a chain of steps: ``c_noise`` is 0 at step 1, ``time_scale`` at N.

    Of 1000 steps it is the index ``n - 1`` that such networks take.
    """

    serves: ClassVar[type[Process]] = Chain

    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        assert isinstance(p, Chain)
        return ((t * p.N - 1) * (self.time_scale / (p.N - 1))).clamp(min=0)


@PRECONDITIONINGS.register("trigflow")
@dataclass(frozen=True)
class Trigonometric(Preconditioning):
    """``D = cos(t) x - sin(t) sigma_data F``, with ``x / sigma_data`` and ``t`` for the network.

    ``sigma_data F`` is the velocity (Lu & Song 2024, Eq. 5). The DDIM step has the closed form
    ``cos(t - s) x - sin(t - s) sigma_data F``.
    """

    citation = "lu2024simplifying"

    serves: ClassVar[type[Process]] = Circle

    def c_in(self, t: Tensor, p: Process) -> Tensor:
        return torch.full_like(t, 1 / self.sigma_data)

    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        return t

    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        return t.cos(), -self.sigma_data * t.sin()

    def step_skip(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        return (t - s).cos()

    def step_out(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        return -self.sigma_data * (t - s).sin()


@PRECONDITIONINGS.register("rectified_flow")
@dataclass(frozen=True)
class MeanVelocity(Preconditioning):
    """``D = x - t F``: ``F`` is the mean velocity of straight lines (Liu et al. 2022).

    The network sees ``x_t`` and ``t`` as they are; the DDIM step is ``x - (t - s) F``.
    """

    citation = "liu2022flow"

    serves: ClassVar[type[Process]] = StraightLines

    def c_in(self, t: Tensor, p: Process) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor, p: Process) -> Tensor:
        return t

    def coefficients(self, t: Tensor, p: Process) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), -t

    def step_skip(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        return torch.ones_like(t)

    def step_out(self, t: Tensor, s: Tensor, p: Process) -> Tensor:
        return s - t
