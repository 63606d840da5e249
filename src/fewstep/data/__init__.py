"""Data: from files of every kind to training batches, and from samples back to files.

`load` reads a data set, `Dataset.batch` gives float batches in [-1, 1], `batch_indices` says in
which order a run sees them, `save_images` writes pictures.
"""

from fewstep.data import (  # noqa: F401 - readers, which register themselves
    digits,
    fashion_mnist,
    toy2d,
)
from fewstep.data.dataset import Dataset
from fewstep.data.images import check_place, grid, save_images, to_float, to_uint8
from fewstep.data.order import batch_indices
from fewstep.data.readers import READERS
from fewstep.data.sources import load
from fewstep.data.splits import NoSplit

__all__ = [
    "READERS",
    "Dataset",
    "NoSplit",
    "batch_indices",
    "check_place",
    "grid",
    "load",
    "save_images",
    "to_float",
    "to_uint8",
]
