"""The diffusion process: what noise does to data, whatever a network makes of it.

``x_t = alpha(t) x + sigma(t) z`` with ``z ~ N(0, I)``. The probability-flow ODE transports samples
of ``p_t`` into samples of ``p_s`` deterministically. With a denoiser ``D(x, t) = E[x_0 | x_t]``,
every other quantity of the process follows (``'`` is d/dt):

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
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fewstep.papers import Cited
from fewstep.registry import Registry

NO_SIGNAL = 1e-30  # an alpha that is as good as 0

PROCESSES: Registry[Process] = Registry("process")


def expand(t: Tensor, x: Tensor) -> Tensor:
    """View ``t`` ([B] or scalar) so that it broadcasts against ``x`` [B, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def time_dtype(x: Tensor) -> torch.dtype:
    """The type of the times of ``x``: its own, but at least float32, whose digits times need."""
    return torch.promote_types(x.dtype, torch.float32)


def per_row(t: Tensor | float, x: Tensor) -> Tensor:
    """``t`` as one time per row of ``x`` [B], of `time_dtype`, on its device.

    A number is made into a tensor there: a copy from the host would wait for all that the device
    has still to compute.
    """
    if isinstance(t, Tensor):
        t = t.to(x.device, time_dtype(x))
    else:
        t = torch.full((), t, dtype=time_dtype(x), device=x.device)
    return t.expand(x.shape[0])


class Marginals(Protocol):
    """``alpha``, ``sigma`` and their derivatives: of a process, or of what has one."""

    def alpha(self, t: Tensor) -> Tensor: ...

    def sigma(self, t: Tensor) -> Tensor: ...

    def alpha_dot(self, t: Tensor) -> Tensor: ...

    def sigma_dot(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Process(Cited, ABC):
    """``alpha`` and ``sigma`` on ``[0, T]``, and what follows from them.

    Args:
        T: largest time, where samples start from noise.
    """

    straight: ClassVar[bool] = False
    """Whether solvers of its PF-ODE step uniformly in ``t``, not on a grid of noise levels."""
    time_is_noise_level: ClassVar[bool] = False
    """Whether ``t`` is ``sigma / alpha`` itself."""

    T: float = 1.0

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
    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`: the time at which ``ln(alpha / sigma)`` has this value."""

    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda(t) = ln(alpha / sigma)``, half the logarithm of the signal-to-noise ratio.

        It falls with ``t``, to ``ln(NO_SIGNAL)`` and no further where no signal is left. Two
        processes agree, up to the scale of ``x``, where it agrees.
        """
        # an alpha of 0 at T may round to less; of a logarithm of 0 no derivative would be finite
        return self.alpha(t).clamp(min=NO_SIGNAL).log() - self.sigma(t).log()

    def noise_level(self, t: Tensor) -> Tensor:
        """``sigma / alpha``, the noise in ``x_t / alpha``; infinite where no signal is left."""
        return self.sigma(t) / self.alpha(t).clamp(min=0)

    def time_of_noise_level(self, level: Tensor) -> Tensor:
        """The inverse of `noise_level`; 0 at 0."""
        return self.time_of_log_snr(-level.log())

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

    def draw(self, x: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The point ``x_t`` of one image and one noise, and the velocity of its path there.

        ``x_t = alpha x + sigma z`` and ``v = alpha' x + sigma' z``, both [B, ...]. The mean of
        ``v`` over all that lead to ``x_t`` is the PF-ODE's velocity (Lipman et al. 2022).
        """
        v = expand(self.alpha_dot(t), x) * x + expand(self.sigma_dot(t), x) * z
        return self.diffuse(x, t, z), v

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
        return self.sigma(torch.full((), self.T, dtype=z.dtype, device=z.device)) * z

    def score(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """``grad log p_t(x)`` from the denoised ``D`` (Lemma 1 of Song et al. 2023)."""
        return (expand(self.alpha(t), x) * D - x) / expand(self.sigma(t), x) ** 2

    def velocity(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """``dx/dt`` of the PF-ODE from the denoised ``D``; for EDM ``(x - D) / t``."""
        rate = self.sigma_dot(t) / self.sigma(t)
        return expand(self.alpha_dot(t) - self.alpha(t) * rate, x) * D + expand(rate, x) * x

    @property
    def grid(self) -> str:
        """Grid on which solvers of the PF-ODE step where no paper of theirs has another.

        A spec of `fewstep.schedules.TIME_GRIDS`: equal steps where the flow is meant to be
        straight, Karras' grid where time is the noise level.
        """
        return "flow" if self.straight else "karras"

    def same(self, other: Process) -> bool:
        """Whether both are one process, wherever they end; see `differing`."""
        return type(self) is type(other) and not differing(self, other)


def differing(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Where two values of one dataclass differ: by name, both. ``T`` is no part of a process."""
    names = [f.name for f in fields(a) if f.compare and f.name != "T"]
    both = {name: (getattr(a, name), getattr(b, name)) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}
