"""A data set in memory, as a caller wants it: another size, other colours, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fewstep.data import cache as caching
from fewstep.data.build import Item, Request, survey
from fewstep.data.dataset import Dataset
from fewstep.data.described import with_embeddings
from fewstep.data.fits import Size
from fewstep.data.tiles import tiled
from fewstep.errors import FewstepError


@dataclass
class Rows:
    """The images of a data set in memory, to be resized or recoloured (a `Source`)."""

    dataset: Dataset

    def __post_init__(self) -> None:
        self.name, self.origin = self.dataset.name, self.dataset.source
        self.classes = None if self.dataset.labels is None else self.dataset.classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Item]:
        labels = self.dataset.labels
        for i in range(len(self)):
            row = i if self.dataset.rows is None else int(self.dataset.rows[i])
            label = -1 if labels is None else int(labels[i])
            yield Item(f"image {i}", self.dataset.stored[row].numpy(), label)


def _fits(size: Size, request: Request) -> bool:
    """Whether images of a height and width are as they are wanted."""
    if request.fit == "pad":
        return request.size in (None, max(size)) and request.canvas in (None, size)
    return request.size is None or size == (request.size, request.size)


def conform(dataset: Dataset, request: Request) -> Dataset:
    """The data set with the size, channels and labels of the request; itself where it has them.

    What its images show, they show in another size, too.

    Raises:
        FewstepError: points or float images that would have to be resized or recoloured.
    """
    dataset = dataset if request.labels else dataset.without_labels()
    if not dataset.is_images:
        if request.size or request.channels:
            raise FewstepError(f"{dataset.name}: size and channels are for images, not points")
        return dataset
    channels, height, width = dataset.shape
    if _fits((height, width), request) and request.channels in (None, channels):
        return dataset
    if dataset.stored.is_floating_point():
        raise FewstepError(
            f"{dataset.name}: float images of shape {dataset.shape} can be neither resized nor "
            "recoloured; convert them to uint8 first"
        )
    request = request._replace(channels=request.channels or channels)
    rows, request = tiled(Rows(dataset), request)
    made = caching.in_memory(rows, request, survey(rows, request))
    told = dataset.embedding(torch.arange(len(dataset)))
    return made if told is None else with_embeddings(made, told)
