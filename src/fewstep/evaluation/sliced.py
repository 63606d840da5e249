"""The sliced Wasserstein distance between two sets of points.

    SW_2(a, b)^2 = E over directions w of W_2(a . w, b . w)^2

On a line the best transport pairs the sorted points (Rabin, Peyre, Delon, Bernot 2011).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.errors import FewstepError

DIRECTIONS = 128


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """``SW_2`` between as many points ``a`` as ``b`` [N, d], in their units.

    Args:
        a, b: the points.
        directions: how many are averaged over.
        seed: of the directions.

    Raises:
        FewstepError: sets of different shapes.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise FewstepError(
            f"the sliced Wasserstein distance compares two sets of points alike in number and "
            f"dimension, not {list(a.shape)} and {list(b.shape)}."
        )
    source = torch.Generator().manual_seed(seed)
    w = torch.randn(a.shape[1], directions, dtype=torch.float64, generator=source)
    w = w / w.norm(dim=0)
    one, other = ((x.double() @ w).sort(0).values for x in (a, b))
    return float((one - other).square().mean().sqrt())
