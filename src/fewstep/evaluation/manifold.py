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

MOVED = 5e-7  # share of a feature's norm by which rounding in the network moves it
CANCELLED = 1e-12  # share of a squared norm that is lost in a squared distance
TILE = 2048  # rows and columns of a tile of distances: 32 MiB, whatever the number of images


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

    A point at the very edge of a ball is in it, also where rounding sees it a little outside.

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
    centre = real.mean(0).double()  # not exactly, lest all of them be copied
    radii, radii_density = _radii(real, centre, (k, k_density))
    (fake_radii,) = _radii(fake, centre, (k,))
    N, M = len(real), len(fake)
    precision, recall = real.new_zeros(M, dtype=torch.bool), real.new_zeros(N, dtype=torch.bool)
    coverage, count = real.new_zeros(N, dtype=torch.bool), real.new_zeros(M, dtype=torch.float64)
    for i, a in _blocks(fake, centre):
        for j, b in _blocks(real, centre):
            d = _distances(a, b)
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


def _blocks(x: Tensor, centre: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the rows, centred and in float64."""
    for i in range(0, len(x), TILE):
        part = slice(i, min(i + TILE, len(x)))
        yield part, x[part].double() - centre


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances [n, m]."""
    d = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
    return d.add_(x.square().sum(1)[:, None]).clamp_(min=0)


def _radii(x: Tensor, centre: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Squared distance from each point to its ``k``-th nearest other one, for each k: [N]."""
    most = max(ks) + 1  # a point is its own nearest
    nearest = x.new_full((len(x), most), torch.inf, dtype=torch.float64)

    def keep(part: slice, d: Tensor) -> None:
        smallest = d.topk(min(most, d.shape[1]), largest=False).values
        both = torch.cat([nearest[part], smallest], dim=1)
        nearest[part] = both.topk(most, largest=False).values

    for i, a in _blocks(x, centre):
        for j, b in _blocks(x[i.start :], centre):  # the other half is the transpose
            d = _distances(a, b)
            keep(i, d)
            if j.start:
                keep(slice(i.start + j.start, i.start + j.stop), d.T)
    return [_to_the_edge(nearest[:, k], x, centre) for k in ks]


def _to_the_edge(radii: Tensor, x: Tensor, centre: Tensor) -> Tensor:
    """Squared radii [N] that hold the points at that very distance.

    Copies of an image have features that are equal to the rounding of float32, and distances are
    rounded as the squared norms that they are differences of.
    """
    norms = torch.cat([(part + centre).norm(dim=1) for _, part in _blocks(x, centre)])
    squares = torch.cat([part.square().sum(1) for _, part in _blocks(x, centre)])
    return (radii.sqrt() + MOVED * norms).square() + CANCELLED * squares
