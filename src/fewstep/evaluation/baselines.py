"""What a generator has to beat: a Gaussian fitted to the pixels of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.evaluation.features import check_images


def class_gaussian(images: Tensor, labels: Tensor | None, wanted: Tensor, seed: int = 0) -> Tensor:
    """Draws from the Gaussian with each class's mean and covariance: uint8 [M, C, H, W].

    A model that has learned nothing but means and covariances. A draw is ``m + X^T w / sqrt(n-1)``
    with the centred images ``X`` [n, D] of the class and ``w ~ N(0, I)``: exactly that Gaussian,
    also where the covariance is singular or too large to hold. Draws are clipped and rounded.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N]; without them one Gaussian for all.
        wanted: class of each draw [M].
        seed: of the draws.
    """
    check_images(images, tuple(images.shape[1:]))
    if labels is None:
        labels, wanted = torch.zeros(len(images)).long(), torch.zeros_like(wanted)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.empty(len(wanted), *images.shape[1:], dtype=torch.uint8)
    for label in wanted.unique():
        X = images[labels == label].flatten(1).float()
        mean = X.mean(0)
        here = wanted == label
        w = torch.randn(int(here.sum()), len(X), generator=generator)
        x = mean + w @ (X - mean) / max(1, len(X) - 1) ** 0.5
        draws[here] = x.round().clamp(0, 255).to(torch.uint8).view(-1, *images.shape[1:])
    return draws
