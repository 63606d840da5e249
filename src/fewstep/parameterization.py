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

Times are tensors of any shape; methods that also take ``x`` [B, ...] want ``t`` as [B] or a
scalar and broadcast it over the trailing dimensions of ``x``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.registry import Registry

PARAMETERIZATIONS: Registry[Parameterization] = Registry("parameterization")


def expand(t: Tensor, x: Tensor) -> Tensor:
    """View ``t`` ([B] or scalar) so that it broadcasts against ``x`` [B, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


@dataclass(frozen=True)
class Parameterization(ABC):
    """A process and the coefficients of the two-time map along its PF-ODE.

    Args:
        eps: smallest time, where the consistency function is the identity.
        T: largest time, where samples start from noise.
        sigma_data: standard deviation of the data (0.5 for images scaled to [-1, 1] in EDM).
    """

    eps: float = 0.002
    T: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.eps < self.T < math.inf:
            raise FewstepError(f"need 0 <= eps < T, got eps={self.eps}, T={self.T}.")
        if not self.sigma_data > 0:
            raise FewstepError(f"need sigma_data > 0, got {self.sigma_data}.")

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
    def config(self) -> dict[str, Any]:
        """Name and arguments, for storage; `from_config` is its inverse."""
        return {"name": PARAMETERIZATIONS.name_of(type(self)), **asdict(self)}


def from_config(config: dict[str, Any]) -> Parameterization:
    """The parameterization that `Parameterization.config` describes."""
    arguments = dict(config)
    return PARAMETERIZATIONS.call(arguments.pop("name"), arguments)


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


@PARAMETERIZATIONS.register("trigflow")
@dataclass(frozen=True)
class TrigFlow(Parameterization):
    """``x_t = cos(t) x + sin(t) sigma_data z`` on [0, pi/2] (Lu & Song 2024, Section 3.1)."""

    eps: float = 0.0
    T: float = math.pi / 2
    sigma_data: float = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        return t.cos()

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * t.sin()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -t.sin()

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.sigma_data * t.cos()

    def c_in(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 1 / self.sigma_data)

    def c_noise(self, t: Tensor) -> Tensor:
        return t

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return (t - s).cos()

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return -self.sigma_data * (t - s).sin()


@PARAMETERIZATIONS.register("rectified_flow")
@dataclass(frozen=True)
class RectifiedFlow(Parameterization):
    """``x_t = (1 - t) x + t z`` on [0, 1]; ``F`` is the mean velocity (Liu et al. 2022)."""

    eps: float = 0.0
    T: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_in(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_noise(self, t: Tensor) -> Tensor:
        return t

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return torch.ones_like(t)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return s - t
