"""Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.errors import FewstepError

BLOCK = 4096  # rows of a distance matrix in memory at a time


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of fake features inside the real manifold, and of real ones inside the fake.

    The manifold of a set is the union of balls around its points that reach to the ``k``-th
    nearest other point. Distances are computed in blocks, never as a whole matrix.

    Args:
        real: features [N, D].
        fake: features [M, D].
        k: neighbours.

    Raises:
        FewstepError: a set with ``k`` points or fewer.
    """
    if min(len(real), len(fake)) <= k:
        raise FewstepError(
            f"precision and recall with k={k} need more than {k} images of each kind."
        )
    return (
        float(_inside(fake, real, _radii(real, k)).double().mean()),
        float(_inside(real, fake, _radii(fake, k)).double().mean()),
    )


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # The matrix-product form of the distance loses the small ones to cancellation.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance from each point to its ``k``-th nearest other one: [N]."""
    rows = [_distances(some, x).kthvalue(k + 1, dim=1).values for some in x.split(BLOCK)]
    return torch.cat(rows)


def _inside(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether each point lies in some ball: [M]."""
    rows = [(_distances(some, centres) <= radii).any(1) for some in points.split(BLOCK)]
    return torch.cat(rows)
