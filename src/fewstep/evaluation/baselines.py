"""What a generator has to beat: a Gaussian fitted to the pixels of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.evaluation.features import check_images
from fewstep.evaluation.frechet import Moments

HELD = 2**28  # float32 numbers of a block: a GiB
MOST = 10**14  # products: about half an hour on a few cores
ALIGNED = 16  # torch draws so many at once: rows in blocks of it are those of one call


def class_gaussian(images: Tensor, labels: Tensor | None, wanted: Tensor, seed: int = 0) -> Tensor:
    """Draws from the Gaussian with each class's mean and covariance: uint8 [M, C, H, W].

    A model that has learned nothing but means and covariances. A draw is ``m + X^T w / sqrt(n-1)``
    with the centred images ``X`` [n, D] of the class and ``w ~ N(0, I)``: exactly that Gaussian,
    also where the covariance is singular or too large to hold. Where all ``w`` are too large to
    hold, and images have fewer values than there are images, a draw is ``m + S^1/2 w`` with the
    covariance ``S`` [D, D]. Draws are clipped and rounded.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N]; without them one Gaussian for all.
        wanted: class of each draw [M].
        seed: of the draws.

    Raises:
        FewstepError: images so many and so large that the draws would take hours.
    """
    check_images(images, tuple(images.shape[1:]))
    if labels is None:
        labels, wanted = torch.zeros(len(images)).long(), torch.zeros_like(wanted)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.empty(len(wanted), *images.shape[1:], dtype=torch.uint8)
    for label in wanted.unique():
        rows = (wanted == label).nonzero()[:, 0]
        gaussian = _fitted(images[labels == label].flatten(1), len(rows))
        for some in rows.split(gaussian.block):
            x = gaussian.of(torch.randn(len(some), gaussian.rank, generator=generator))
            draws[some] = x.round().clamp(0, 255).to(torch.uint8).view(-1, *images.shape[1:])
    return draws


def _fitted(images: Tensor, M: int) -> _OfImages | _OfRoot:
    """The Gaussian of images [n, D], of which ``M`` draws are wanted."""
    n, D = images.shape
    by_root = n > D and M * n > HELD
    if M * D * (D if by_root else n) > MOST:
        raise FewstepError(
            f"{M:,} draws of the Gaussian of {n:,} images of {D:,} values would take hours."
        )
    return _OfRoot(images) if by_root else _OfImages(images)


class _OfImages:
    """``m + X^T w / sqrt(n-1)``: of images uint8 [n, D], few of which are floats at a time."""

    def __init__(self, images: Tensor) -> None:
        self.images, (self.rank, D) = images, images.shape
        self.block = _block(self.rank, D)
        self._floats = max(1, HELD // D)
        self._mean = torch.zeros(D)
        for some in images.split(self._floats):
            self._mean += some.float().sum(0)
        self._mean /= self.rank

    def of(self, w: Tensor) -> Tensor:
        """Draws [m, D] from normal ``w`` [m, n]."""
        x = torch.zeros(len(w), self.images.shape[1])
        for a, some in zip(w.split(self._floats, 1), self.images.split(self._floats), strict=True):
            x += a @ (some.float() - self._mean)
        return self._mean + x / max(1, self.rank - 1) ** 0.5


class _OfRoot:
    """``m + S^1/2 w`` with the covariance ``S`` [D, D] of images uint8 [n, D]."""

    def __init__(self, images: Tensor) -> None:
        moments = Moments.of(images)
        self.rank = images.shape[1]
        self.block = _block(self.rank, self.rank)
        self._mean, self._root = moments.mean.float(), moments.root().float()

    def of(self, w: Tensor) -> Tensor:
        """Draws [m, D] from normal ``w`` [m, D]."""
        return self._mean + w @ self._root


def _block(rank: int, D: int) -> int:
    """How many draws are made at once."""
    return max(1, HELD // max(rank, D) // ALIGNED) * ALIGNED
