"""The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.errors import FewstepError

CHUNK = 2048  # rows of features that are turned into float64 at a time
MOST_PARTS = 5  # of a partition for the extrapolation to infinitely many images


class Moments:
    """Mean and covariance of features, streamed in one pass in float64.

    The memory does not depend on the number of images. Batches are merged by the pairwise update
    of Chan et al. 1979, which does not cancel where the mean is large.

    Args:
        dim: number of features ``D``.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)
        self._root: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of features [N, D]."""
        self = cls(features.shape[1])
        for some in features.split(CHUNK):
            self.update(some)
        return self

    def update(self, features: Tensor) -> Moments:
        """Add a batch [B, D].

        Raises:
            FewstepError: NaN or infinity among the features.
        """
        x = features.cpu().double()
        if not x.isfinite().all():
            raise FewstepError("the features of the images have NaN or infinite values.")
        mean = x.mean(0)
        x = x - mean
        return self._add(len(x), mean, x.T @ x)

    def merge(self, other: Moments) -> Moments:
        """Add the images of other moments."""
        return self._add(other.n, other.mean, other._scatter)

    def _add(self, n: int, mean: Tensor, scatter: Tensor) -> Moments:
        shift, total = mean - self.mean, self.n + n
        if n:
            self._scatter += scatter + shift.outer(shift) * (self.n * n / total)
            self.mean = self.mean + shift * (n / total)
        self.n, self._root = total, None
        return self

    @classmethod
    def from_statistics(cls, mean: Tensor, covariance: Tensor, n: int | None) -> Moments:
        """Moments that somebody else took.

        Args:
            mean: [D].
            covariance: [D, D], symmetric.
            n: number of images that they were taken of; without it, nothing can be added.

        Raises:
            FewstepError: shapes that do not fit, NaN, or a matrix that is no covariance.
        """
        D = mean.numel()
        if mean.ndim != 1 or covariance.shape != (D, D):
            raise FewstepError(
                f"a mean {tuple(mean.shape)} and a covariance {tuple(covariance.shape)} do not "
                "belong together."
            )
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise FewstepError("the statistics have NaN or infinite values.")
        scale = covariance.abs().max().clamp(min=1e-12)
        if (covariance - covariance.T).abs().max() > 1e-3 * scale or covariance.diag().min() < 0:
            raise FewstepError("the covariance is not symmetric with a non-negative diagonal.")
        self = cls(D)
        self.n, self.mean = n or 2, mean.double()
        self._scatter = covariance.double() * (self.n - 1)
        return self

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (divisor n - 1): [D, D].

        Raises:
            FewstepError: fewer than two images.
        """
        if self.n < 2:
            raise FewstepError(f"a covariance needs at least 2 images, got {self.n}.")
        return self._scatter / (self.n - 1)

    def root(self) -> Tensor:
        """The symmetric root of the covariance [D, D], kept until the next update."""
        if self._root is None:
            values, vectors = torch.linalg.eigh(self.covariance)
            self._root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        return self._root


def frechet_distance(a: Moments, b: Moments) -> float:
    """``|m_a - m_b|^2 + tr(S_a + S_b) - 2 |S_a^1/2 S_b^1/2|_*``, never below 0.

    The nuclear norm, a sum of singular values, is ``tr (S_a S_b)^1/2``. Eigenvalues of the product
    would be the squares of these, and lose half of the digits where features differ in scale or
    a covariance is singular. ``b``'s root is kept for further calls.

    Raises:
        FewstepError: moments of another number of features.
    """
    _check_same(a, b)
    return _distance(a, b, float(torch.linalg.svdvals(a.root() @ b.root()).sum()))


def quick_frechet_distance(a: Moments, b: Moments) -> float:
    """`frechet_distance` by eigenvalues, several times faster and to about 1e-7 of its traces.

    For the deviation of many distances, which does not see such an error.
    """
    _check_same(a, b)
    root = b.root()
    product = root @ a.covariance @ root
    return _distance(a, b, float(torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()))


def _distance(a: Moments, b: Moments, cross: float) -> float:
    traces = a.covariance.trace() + b.covariance.trace()
    return max(0.0, float((a.mean - b.mean).square().sum() + traces) - 2 * cross)


def _check_same(a: Moments, b: Moments) -> None:
    if len(a.mean) != len(b.mean):
        raise FewstepError(
            f"features of {len(a.mean)} and {len(b.mean)} dimensions cannot be compared: the "
            "statistics are of another feature network."
        )


class Extrapolated(NamedTuple):
    """A Fréchet distance of infinitely many images."""

    value: float
    error: float
    """Deviation over the random partitions; that of the images comes on top."""


def frechet_distance_infinity(features: Tensor, reference: Moments, *, seed: int = 0) -> float:
    """The value of `extrapolated_frechet_distance`."""
    return extrapolated_frechet_distance(features, reference, seed=seed).value


def extrapolated_frechet_distance(
    features: Tensor, reference: Moments, *, repeats: int = 4, seed: int = 0
) -> Extrapolated:
    """The Fréchet distance that infinitely many images would have (Chong & Forsyth 2020).

    The distance of ``n`` images is biased by a term in ``1/n`` that depends on the model. The
    images are divided at random into 1, 2, ..., k equal parts, as small as a tenth (or twice the
    features, below which the bias is not linear); the mean distance of the parts is a line over
    ``1/n``, which is read at 0. Every image is in a part of each size, so that chance largely
    cancels. The result is the same for each order of the images. The bias of the reference's own
    number stays.

    Args:
        features: of the images [N, D].
        reference: moments of the real images.
        repeats: partitions of each size that are averaged.
        seed: of the partitions.

    Raises:
        FewstepError: fewer than 20 images.
    """
    N = len(features)
    if N < 20:
        raise FewstepError(f"extrapolating a Fréchet distance needs at least 20 images, got {N}.")
    features = features[_canonical_order(features)]
    fewest = max(10, N // 10, min(2 * features.shape[1], N // 2))
    counts = range(1, min(MOST_PARTS, max(2, N // fewest)) + 1)
    whole = frechet_distance(Moments.of(features), reference)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(repeats):
        means = [whole]
        for count in counts[1:]:
            parts = torch.randperm(N, generator=generator).tensor_split(count)
            distances = [quick_frechet_distance(Moments.of(features[p]), reference) for p in parts]
            means.append(sum(distances) / count)
        found.append(_at_zero([count / N for count in counts], means))
    values = torch.tensor(found, dtype=torch.float64)
    error = float(values.std()) / repeats**0.5 if repeats > 1 else math.nan
    return Extrapolated(float(values.mean()), error)


def _canonical_order(features: Tensor) -> Tensor:
    """An order of the rows that depends on the rows alone [N]."""
    D = features.shape[1]
    # A fixed direction: features may be equal in a column, hardly in this sum.
    direction = torch.randn(D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (features.cpu().double() @ direction).argsort(stable=True)


def _at_zero(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares line through points, at 0."""
    line = torch.stack([torch.ones(len(x)).double(), torch.tensor(x, dtype=torch.float64)], dim=1)
    fit = torch.linalg.lstsq(line, torch.tensor(y, dtype=torch.float64)[:, None])
    return float(fit.solution[0, 0])
