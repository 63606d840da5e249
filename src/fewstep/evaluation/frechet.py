"""The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.errors import FewstepError

CHUNK = 2048  # rows of features that are turned into float64 at a time


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
        x = features.double().cpu()
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
        D = len(mean)
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
    """``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_b^1/2 S_a S_b^1/2)^1/2)``.

    Both roots are of symmetric positive semi-definite matrices, so an eigenvalue below zero is
    rounding and is set to zero; nothing complex arises. ``b``'s root is kept for further calls.

    Raises:
        FewstepError: moments of another number of features.
    """
    if len(a.mean) != len(b.mean):
        raise FewstepError(
            f"features of {len(a.mean)} and {len(b.mean)} dimensions cannot be compared: the "
            "statistics are of another feature network."
        )
    A, B, root = a.covariance, b.covariance, b.root()
    cross = torch.linalg.eigvalsh(root @ A @ root).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + A.trace() + B.trace() - 2 * cross)


def frechet_distance_infinity(
    features: Tensor, reference: Moments, *, points: int = 15, seed: int = 0
) -> float:
    """The Fréchet distance that infinitely many images would have (Chong & Forsyth 2020).

    The distance of ``n`` images is biased by a term in ``1/n`` that depends on the model. It is
    measured on random subsets of ``points`` sizes, from a tenth of the images (or twice the
    features, below which it is not linear) to all of them, and the line through it over ``1/n``
    is read at 0. The bias of the reference's own number stays.

    Args:
        features: of the images [N, D].
        reference: moments of the real images.
        points: subset sizes.
        seed: of the subsets.

    Raises:
        FewstepError: fewer than 20 images.
    """
    N = len(features)
    if N < 20:
        raise FewstepError(f"extrapolating a Fréchet distance needs at least 20 images, got {N}.")
    generator = torch.Generator().manual_seed(seed)
    fewest = max(10, N // 10, min(2 * features.shape[1], N // 2))
    sizes = torch.linspace(fewest, N, points).long()
    found = []
    for n in sizes.tolist():
        some = torch.randperm(N, generator=generator)[:n]
        found.append(frechet_distance(Moments.of(features[some]), reference))
    line = torch.stack([torch.ones(points).double(), 1 / sizes.double()], dim=1)
    fit = torch.linalg.lstsq(line, torch.tensor(found, dtype=torch.float64)[:, None])
    return float(fit.solution[0, 0])
