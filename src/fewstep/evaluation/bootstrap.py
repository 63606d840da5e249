"""How sure a score is: its deviation over resampled images (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Z95 = 1.959964  # two-sided 95 % quantile of the standard normal


def bootstrap_error(
    statistic: Callable[[Tensor], float], n: int, replicates: int, seed: int = 0
) -> float:
    """Standard deviation of ``statistic(indices)`` over draws of ``n`` images with replacement.

    A 95 % interval is the score plus and minus `Z95` of these. Quantiles of the replicates
    themselves would be off for Fréchet distances: repeated images raise them all.

    Args:
        statistic: the score of the images at the indices [n].
        n: number of images.
        replicates: number of draws.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    found = [statistic(torch.randint(n, (n,), generator=generator)) for _ in range(replicates)]
    return float(torch.tensor(found, dtype=torch.float64).std())
