"""The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.errors import FewstepError


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

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of features [N, D]."""
        return cls(features.shape[1]).update(features)

    def update(self, features: Tensor) -> Moments:
        """Add a batch [B, D].

        Raises:
            FewstepError: NaN or infinity among the features.
        """
        x = features.double().cpu()
        if not x.isfinite().all():
            raise FewstepError("the features of the images have NaN or infinite values.")
        n, mean = len(x), x.mean(0)
        centred, shift = x - mean, mean - self.mean
        total = self.n + n
        self._scatter += centred.T @ centred + shift.outer(shift) * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total
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


def frechet_distance(a: Moments, b: Moments) -> float:
    """``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)``.

    Both roots are of symmetric positive semi-definite matrices, so an eigenvalue below zero is
    rounding and is set to zero; nothing complex arises.
    """
    A, B = a.covariance, b.covariance
    values, vectors = torch.linalg.eigh(A)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ B @ root).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + A.trace() + B.trace() - 2 * cross)
