"""The kernel distance between two sets of features (Bińkowski et al. 2018), known as KID."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewstep.errors import FewstepError


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased ``E k(x, x') + E k(y, y') - 2 E k(x, y)`` with ``k(x, y) = (x y / D + 1)^3``.

    Args:
        x: features [n, D].
        y: features [n, D].
    """
    n, D = x.shape

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / D + 1) ** 3

    k_xx, k_yy = k(x, x), k(y, y)
    within = k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()
    return within / (n * (n - 1)) - 2 * k(x, y).mean()


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Mean of `squared_mmd` over random subsets, and its standard error.

    Subsets of ``m`` out of ``n = min(N, M)`` images, drawn without replacement, scatter by
    ``sigma sqrt(1/m - 1/n)``; the mean over many of them is as sure as all ``n`` images are,
    ``sigma / sqrt(n)``. So the error is the deviation over the subsets times
    ``sqrt(m / (n - m))``. The distance is unbiased: near 0 for equal distributions, and it may be
    negative.

    Args:
        real: features [N, D].
        fake: features [M, D].
        subsets: how many.
        size: ``m``; default 1000, or half of the images if they are fewer than 2000. At ``m = n``
            the error is unknown, NaN.
        seed: of the draws.

    Raises:
        FewstepError: fewer than four features of a kind, or a size that they do not allow.
    """
    n = min(len(real), len(fake))
    if n < 4:
        raise FewstepError(f"the kernel distance needs at least 4 images of each kind, got {n}.")
    m = min(1000, n // 2) if size is None else size
    if not 2 <= m <= n:
        raise FewstepError(f"subsets of {m} images cannot be drawn from {n}.")
    generator = torch.Generator().manual_seed(seed)

    def draw(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:m]].double()

    found = torch.stack([squared_mmd(draw(real), draw(fake)) for _ in range(subsets)])
    error = float(found.std()) * (m / (n - m)) ** 0.5 if m < n and subsets > 1 else math.nan
    return float(found.mean()), error
