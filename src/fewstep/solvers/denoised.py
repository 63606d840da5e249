"""A step of the PF-ODE that holds the denoised fixed, and its inverse.

With ``D`` and the noise that it implies held fixed, the point at time ``t`` moves to

    x_s = alpha_s D + sigma_s epsilon,    epsilon = (x_t - alpha_t D) / sigma_t

which is DDIM (Song, Meng, Ermon 2020, Eq. 12 without noise). In EDM's time it is Euler's step, and
so it is in rectified flow's.
"""

from __future__ import annotations

from torch import Tensor

from fewstep.parameterization import Parameterization, expand


def ddim_step(x: Tensor, D: Tensor, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
    """The points ``x`` [B, ...] of times ``t`` [B] at ``s`` [B], from their denoised ``D``."""
    ratio = p.sigma(s) / p.sigma(t)
    return expand(p.alpha(s) - ratio * p.alpha(t), x) * D + expand(ratio, x) * x


def denoised_of_step(x: Tensor, x_s: Tensor, t: Tensor, s: Tensor, p: Parameterization) -> Tensor:
    """The ``D`` with which a DDIM step takes ``x`` at ``t`` to ``x_s`` at ``s``.

    ``(x_s - r x) / (alpha_s - r alpha_t)`` with ``r = sigma_s / sigma_t``; for EDM
    ``x - t (x_s - x) / (s - t)``. Salimans & Ho 2022, Algorithm 2.
    """
    ratio = p.sigma(s) / p.sigma(t)
    return (x_s - expand(ratio, x) * x) / expand(p.alpha(s) - ratio * p.alpha(t), x)
