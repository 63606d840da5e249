"""How sure a score is: its deviation over random parts of the images (Shao & Wu 1989)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Z95 = 1.959964  # two-sided 95 % quantile of the standard normal
SHARE = 2 / 3  # of the images in a part


def subset_errors(
    statistic: Callable[..., Tensor | float],
    sizes: Sequence[int],
    replicates: int,
    *,
    most: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Standard errors of a statistic [...] of one or more sets of images.

    Parts of ``m`` out of ``n`` images, drawn from every set without replacement, scatter by
    ``sigma sqrt(1/m - 1/n)``; all ``n`` images by ``sigma / sqrt(n)``. So the error is the
    deviation over the parts times ``sqrt(m / (n - m))``. Draws with replacement would repeat
    images, which raises Fréchet distances and breaks neighbourhoods. A 95 % interval is the score
    plus and minus `Z95` errors.

    Args:
        statistic: scores [...] of the images at the indices [m] of each set.
        sizes: number of images of each set, at least 3.
        replicates: number of draws, at least 2.
        most: largest ``m``, where a statistic is costly.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(sizes)
    m = min(round(SHARE * n), most or n)

    def drawn() -> list[Tensor]:
        return [torch.randperm(size, generator=generator)[: round(m / n * size)] for size in sizes]

    found = [torch.as_tensor(statistic(*drawn()), dtype=torch.float64) for _ in range(replicates)]
    return torch.stack(found).std(0) * (m / (n - m)) ** 0.5
