"""Every scalar that depends on time.

A diffusion process is ``x_t = alpha(t) x + sigma(t) z`` with ``z ~ N(0, I)``. Its
probability-flow ODE transports samples of ``p_t`` into samples of ``p_s`` deterministically.
Every model of this package is a *two-time map* along that ODE,

    X_theta(x, t, s) = c_skip(t, s) x + c_out(t, s) F_theta(c_in(t) x, c_noise(t)[, c_noise(s)])

with ``c_skip(t, t) = 1`` and ``c_out(t, t) = 0``, so that ``X(x, t, t) = x`` whatever ``F`` is:

- ``s = 0``: the denoiser ``D(x, t) = E[x_0 | x_t]`` of a diffusion model;
- ``s = eps``: the consistency function ``f(x, t)``, with ``f(x, eps) = x``;
- free ``s``: a flow map.

With a denoiser, every other quantity of the process follows (``'`` is d/dt):

    score      grad log p_t(x) = (alpha D - x) / sigma^2
    velocity   dx/dt = (alpha' - alpha sigma'/sigma) D + (sigma'/sigma) x

The same marginals are those of the forward SDE ``dx = drift(t) x dt + diffusion(t) dw`` with

    drift = alpha'/alpha       diffusion^2 = 2 sigma sigma' - 2 sigma^2 alpha'/alpha

whose PF-ODE ``drift x - diffusion^2 score / 2`` is the velocity above, and whose reverse SDE has
the drift ``drift x - diffusion^2 score`` (Song et al. 2021, Eqs. 5, 6, 13).

Times are tensors of any shape; methods that also take ``x`` [B, ...] want ``t`` as [B] or a
scalar and broadcast it over the trailing dimensions of ``x``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.registry import Registry

PARAMETERIZATIONS: Registry[Parameterization] = Registry("parameterization")


LARGEST = 1e9
"""Of a time or a deviation of the data: float32 holds their squares and products."""


def expand(t: Tensor, x: Tensor) -> Tensor:
    """View ``t`` ([B] or scalar) so that it broadcasts against ``x`` [B, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def time_dtype(x: Tensor) -> torch.dtype:
    """The type of the times of ``x``: its own, but at least float32, whose digits times need."""
    return torch.promote_types(x.dtype, torch.float32)


@dataclass(frozen=True)
class Parameterization(ABC):
    """A process and the coefficients of the two-time map along its PF-ODE.

    Args:
        eps: smallest time, where the consistency function is the identity.
        T: largest time, where samples start from noise.
        sigma_data: standard deviation of the data (0.5 for images scaled to [-1, 1] in EDM).
    """

    straight: ClassVar[bool] = False
    """Whether solvers of its PF-ODE step uniformly in ``t``, not on a grid of noise levels."""

    eps: float = 0.002
    T: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.eps < self.T <= LARGEST:
            raise FewstepError(f"need 0 <= eps < T <= {LARGEST:g}, got eps={self.eps}, T={self.T}.")
        if not 1 / LARGEST <= self.sigma_data <= LARGEST:
            raise FewstepError(
                f"need sigma_data between {1 / LARGEST:g} and {LARGEST:g}, got {self.sigma_data}."
            )

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data in ``x_t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise in ``x_t``."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt."""

    @abstractmethod
    def c_in(self, t: Tensor) -> Tensor:
        """Scale of the network's input."""

    @abstractmethod
    def c_noise(self, t: Tensor) -> Tensor:
        """The network's time argument."""

    @abstractmethod
    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        """Weight of ``x`` in the map from ``t`` to ``s``; 1 at ``s = t``."""

    @abstractmethod
    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        """Weight of the network in the map from ``t`` to ``s``; 0 at ``s = t``."""

    @abstractmethod
    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`: the time at which ``ln(alpha / sigma)`` has this value."""

    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda(t) = ln(alpha / sigma)``, half the logarithm of the signal-to-noise ratio.

        It falls with ``t``. Two processes agree, up to the scale of ``x``, where it agrees.
        """
        return self.alpha(t).log() - self.sigma(t).log()

    def drift(self, t: Tensor) -> Tensor:
        """``alpha'/alpha``: the forward SDE's drift is this times ``x``."""
        return self.alpha_dot(t) / self.alpha(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """``g(t) = sqrt(2 sigma sigma' - 2 sigma^2 alpha'/alpha)`` of the forward SDE."""
        sigma = self.sigma(t)
        return (2 * sigma * (self.sigma_dot(t) - sigma * self.drift(t))).clamp(min=0).sqrt()

    def reverse_drift(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """Drift ``drift x - g^2 score`` of the reverse SDE, which runs from ``T`` down."""
        return expand(self.drift(t), x) * x - expand(self.diffusion(t) ** 2, x) * self.score(
            x, D, t
        )

    def diffuse(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """``x_t = alpha(t) x + sigma(t) z``: a sample of the process at time ``t`` [B, ...]."""
        return expand(self.alpha(t), x) * x + expand(self.sigma(t), x) * z

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """From time ``s`` to a later ``t`` by the forward process: a draw of ``p(x_t | x_s)``.

        ``x_t = a x_s + sqrt(sigma_t^2 - a^2 sigma_s^2) z`` with ``a = alpha_t / alpha_s``; for
        EDM the ``x + sqrt(tau^2 - eps^2) z`` of Song et al. 2023, Algorithm 1 (multistep
        sampling).
        """
        a = self.alpha(t) / self.alpha(s)
        std = (self.sigma(t) ** 2 - (a * self.sigma(s)) ** 2).clamp(min=0).sqrt()
        return expand(a, x) * x + expand(std, x) * z

    def prior(self, z: Tensor) -> Tensor:
        """``x_T = sigma(T) z``: where sampling starts, for ``z ~ N(0, I)``."""
        return self.sigma(torch.as_tensor(self.T, dtype=z.dtype, device=z.device)) * z

    def score(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """``grad log p_t(x)`` from the denoised ``D`` (Lemma 1 of Song et al. 2023)."""
        return (expand(self.alpha(t), x) * D - x) / expand(self.sigma(t), x) ** 2

    def velocity(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """``dx/dt`` of the PF-ODE from the denoised ``D``; for EDM ``(x - D) / t``."""
        rate = self.sigma_dot(t) / self.sigma(t)
        return expand(self.alpha_dot(t) - self.alpha(t) * rate, x) * D + expand(rate, x) * x

    @property
    def t_min(self) -> float:
        """Smallest time that a grid of noise levels uses: ``eps``, or 0.002 where ``eps`` is 0."""
        return self.eps or min(0.002, self.T / 100)

    @property
    def grid(self) -> str:
        """Grid on which solvers of the PF-ODE step where no paper of theirs has another.

        A spec of `fewstep.schedules.TIME_GRIDS`: equal steps where the flow is meant to be
        straight, Karras' grid where time is the noise level.
        """
        return "flow" if self.straight else "karras"

    @property
    def config(self) -> dict[str, Any]:
        """Name and arguments, for storage; `from_config` is its inverse."""
        arguments = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {"name": PARAMETERIZATIONS.name_of(type(self)), **arguments}


def from_config(config: dict[str, Any]) -> Parameterization:
    """The parameterization that `Parameterization.config` describes.

    Raises:
        FewstepError: an unknown name or argument, or a value of another type or out of range.
    """
    arguments = dict(config)
    name = arguments.pop("name")
    types: Any = {f.name: f.type for f in fields(PARAMETERIZATIONS[name])}
    for argument, value in arguments.items():
        accepted = TYPES.get(types.get(argument), object)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise FewstepError(
                f"{argument} of the parameterization {name!r} must be of type {types[argument]}, "
                f"got {value!r}."
            )
    return PARAMETERIZATIONS.call(name, arguments)


TYPES: dict[str, Any] = {"float": int | float, "int": int, "str": str}
"""What a field's annotation accepts."""
