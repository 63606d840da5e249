"""Features of images of any size and without classes, by a classifier that is trained in seconds.

The classifier sees images averaged down to at most 16 pixels. Where there are no classes, it learns
to tell groups of images that are alike, found by k-means of their pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fewstep.evaluation.classifier import train_classifier
from fewstep.evaluation.features import FeatureNetwork, Features

SIDE = 16
GROUPS, ROUNDS = 8, 12


class Reduced(FeatureNetwork):
    """Another network's features of images that are averaged down.

    Args:
        network: that takes the small images.
        shape: of the images that come (C, H, W).
        name: for tables.
    """

    def __init__(self, network: FeatureNetwork, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        self.network, self.shape, self.name = network, tuple(shape), name
        self.num_features, self.num_classes = network.num_features, network.num_classes

    def forward(self, images: Tensor) -> Features:
        return self.network(reduced(images))


def reduced(images: Tensor) -> Tensor:
    """Images uint8 [N, C, H, W] averaged down to a side of at most 16, rounded."""
    height, width = (min(side, SIDE) for side in images.shape[2:])
    if (height, width) == tuple(images.shape[2:]):
        return images
    return adaptive_avg_pool2d(images.float(), (height, width)).round().to(torch.uint8)


def trained_on(images: Tensor, labels: Tensor | None) -> FeatureNetwork:
    """A feature network for images like these.

    Args:
        images: uint8 [N, C, H, W].
        labels: their classes [N]; without them, or of one class, groups of like images.
    """
    small = torch.cat([reduced(part) for part in images.split(4096)])
    known = labels is not None and len(labels.unique()) > 1
    told = labels if known and labels is not None else alike(small)
    what = "classes" if known else f"{int(told.max()) + 1} groups of like images"
    name = f"classifier of {what}, at {small.shape[2]} pixels"
    return Reduced(train_classifier(small, told), tuple(images.shape[1:]), name)


def alike(images: Tensor, k: int = GROUPS) -> Tensor:
    """Groups of images uint8 [N, C, H, W] by k-means of their pixels, numbered from 0: [N]."""
    x = adaptive_avg_pool2d(images.float(), 8).flatten(1)
    generator = torch.Generator().manual_seed(0)
    centres = x[torch.randperm(len(x), generator=generator)[: min(k, len(x))]]
    nearest = torch.cdist(x, centres).argmin(1)
    for _ in range(ROUNDS):
        kept = nearest.unique()
        centres = torch.stack([x[nearest == i].mean(0) for i in kept])
        nearest = torch.cdist(x, centres).argmin(1)
    return nearest.unique(return_inverse=True)[1]
