"""Expectations over data, noise and time without sampling error.

For a mixture of Gaussians the expectation over ``x`` and ``z`` is a weighted sum over
Gauss-Hermite nodes of each component times those of the noise, exact to rounding for smooth
integrands. That leaves nothing between two losses but what the paper says of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.theory.mixture import Mixture


@dataclass(frozen=True)
class Nodes:
    """Data ``x`` [Q, 1], noise ``z`` [Q, 1], and weights [Q] that sum to 1."""

    x: Tensor
    z: Tensor
    weight: Tensor

    def mean(self, loss: Callable[[Tensor, Tensor, Tensor], Tensor], count: int) -> Tensor:
        """``E loss(x, z, i)`` for ``i = 0 .. count-1``: [count].

        ``loss`` gets all points at once, [count Q, 1] twice and ``i`` [count Q], and gives one
        value for each, [count Q].
        """
        x, z = (a.repeat(count, 1) for a in (self.x, self.z))
        i = torch.arange(count).repeat_interleave(len(self.x))
        return loss(x, z, i).view(count, -1) @ self.weight


def hermite(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of ``E g(z)``, ``z ~ N(0, 1)``: [n], [n]."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(z), torch.from_numpy(w / w.sum())


def legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of ``E g(u)``, ``u ~ U[0, 1]``: [n], [n]."""
    u, w = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((u + 1) / 2), torch.from_numpy(w / 2)


def nodes(data: Mixture, n: int = 40) -> Nodes:
    """``n`` nodes for the data within each component, times ``n`` for the noise."""
    y, w = hermite(n)
    x = data.m[:, None] + data.v.sqrt()[:, None] * y
    weight = (data.w[:, None] * w).flatten()[:, None] * w
    grid_x, grid_z = torch.broadcast_tensors(x.flatten()[:, None], y)
    return Nodes(grid_x.reshape(-1, 1), grid_z.reshape(-1, 1), weight.flatten())
