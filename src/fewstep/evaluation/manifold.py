"""Fidelity and variety by nearest neighbours: precision, recall, density, coverage.

Around every feature is a ball that reaches to its k-th nearest other one; the union of the balls
stands for the manifold that the features lie on. Precision and recall: Kynkäänniemi et al. 2019.
Density and coverage: Naeem et al. 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.errors import FewstepError

ROWS, COLUMNS = 2048, 4096  # of a tile of distances: 64 MiB, whatever the number of images


class Neighbours(NamedTuple):
    """What each image contributes; the means are the scores."""

    precision: Tensor
    """Whether a fake lies in some real ball: [M]."""
    recall: Tensor
    """Whether a real one lies in some fake ball: [N]."""
    density: Tensor
    """Number of real balls that a fake lies in, over ``k``: [M]."""
    coverage: Tensor
    """Whether the ball of a real one holds some fake: [N]."""


def neighbours(real: Tensor, fake: Tensor, k: int = 3, k_density: int = 5) -> Neighbours:
    """Precision, recall, density and coverage, image by image.

    Distances are float64 and computed in tiles, never as a whole matrix.

    Args:
        real: features [N, D].
        fake: features [M, D] on the same device.
        k: neighbours for precision and recall.
        k_density: neighbours for density and coverage.

    Raises:
        FewstepError: a set of too few features for its neighbours.
    """
    most = max(k, k_density)
    if min(len(real), len(fake)) <= most:
        raise FewstepError(
            f"scores by nearest neighbours with k={most} need more than {most} images of each "
            f"kind, got {len(real)} and {len(fake)}."
        )
    # Squared distances by matrix products cancel least around the centre.
    centre = real.double().mean(0)
    radii, radii_density = _radii(real, centre, (k, k_density))
    (fake_radii,) = _radii(fake, centre, (k,))
    N, M = len(real), len(fake)
    precision, recall = real.new_zeros(M, dtype=torch.bool), real.new_zeros(N, dtype=torch.bool)
    coverage, count = real.new_zeros(N, dtype=torch.bool), real.new_zeros(M, dtype=torch.float64)
    for i, j, d in _tiles(fake, real, centre):
        precision[i] |= (d <= radii[j]).any(1)
        recall[j] |= (d <= fake_radii[i, None]).any(0)
        near = d <= radii_density[j]
        count[i] += near.sum(1)
        coverage[j] |= near.any(0)
    return Neighbours(precision, recall, count / k_density, coverage)


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of fakes in the real manifold, and of real ones in the fake: see `neighbours`."""
    found = neighbours(real, fake, k, k)
    return float(found.precision.double().mean()), float(found.recall.double().mean())


def _tiles(a: Tensor, b: Tensor, centre: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows of ``a``, rows of ``b``, and the squared distances between them."""
    for i in range(0, len(a), ROWS):
        x = a[i : i + ROWS].double() - centre
        for j in range(0, len(b), COLUMNS):
            y = b[j : j + COLUMNS].double() - centre
            d = torch.addmm(y.square().sum(1), x, y.T, alpha=-2).add_(x.square().sum(1)[:, None])
            yield slice(i, i + len(x)), slice(j, j + len(y)), d.clamp_(min=0)


def _radii(x: Tensor, centre: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Squared distance from each point to its ``k``-th nearest other one, for each k: [N]."""
    nearest = x.new_full((len(x), max(ks) + 1), torch.inf, dtype=torch.float64)  # itself included
    for i, _, d in _tiles(x, x, centre):
        smallest = d.topk(min(max(ks) + 1, d.shape[1]), largest=False).values
        both = torch.cat([nearest[i], smallest], dim=1)
        nearest[i] = both.topk(max(ks) + 1, largest=False).values
    return [nearest[:, k] for k in ks]
