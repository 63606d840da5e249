"""Sample grids in the course of training, and a score to tell the best checkpoint by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.sampling import sample


def energy_distance(a: Tensor, b: Tensor) -> float:
    """``2 E|a - b| - E|a - a'| - E|b - b'|`` between two samples [n, ...], [m, ...].

    Zero if and only if the distributions are the same (Székely & Rizzo 2013); this is its
    unbiased estimate, so it can be slightly negative. It needs no feature network and, unlike a
    loss, compares models across objectives and training steps.
    """
    a, b = a.flatten(1), b.flatten(1)
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return float(2 * torch.cdist(a, b).mean() - within)


@dataclass(frozen=True)
class Validation:
    """Samples of one seed, held against real images.

    Args:
        real: real images [m, *shape] in [-1, 1].
        n: number of samples; at least 2.
        seed: their seed.
    """

    real: Tensor
    n: int
    seed: int = 0

    def __call__(self, f: FlowMap) -> tuple[Tensor, float]:
        """Samples [n, *shape] on the CPU and their energy distance to the real images."""
        x = sample(f, self.n, seed=self.seed)
        return x, energy_distance(x, self.real)
