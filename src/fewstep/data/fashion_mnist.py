"""Fashion-MNIST by its name, where somebody has put it; nothing is downloaded.

70,000 pictures of clothes in ten classes, 28 x 28 grey: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a
Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017 (MIT licence).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fewstep.cache import expanded
from fewstep.data.dataset import Dataset
from fewstep.data.idx import FASHION, images_of, is_idx, read_idx
from fewstep.data.listing import list_files
from fewstep.data.readers import READERS
from fewstep.data.splits import split_files
from fewstep.errors import FewstepError, listed

NAME = "fashion-mnist"
INSTALLED = Path("/usr/share/datasets")
"""Where the Debian package `dataset-fashion-mnist` puts it."""
FOLDERS = "FEWSTEP_DATA"
"""Folders of data sets, as in PATH."""


def places() -> Iterator[Path]:
    """Where Fashion-MNIST is looked for, the first one first."""
    for folder in (os.environ.get(FOLDERS) or "").split(os.pathsep):
        if folder:
            yield expanded(folder) / NAME
    yield Path(NAME)
    yield INSTALLED / NAME


@READERS.register(NAME)
def fashion_mnist(where: str, split: str) -> Dataset:
    """60,000 images for "train", 10,000 for "test" or "val": uint8 [N, 1, 28, 28] in ten classes.

    Args:
        where: the folder that holds its four IDX files; by default the first of `places`.
        split: the wanted part.

    Raises:
        FewstepError: not there; other images; an unknown split.
    """
    here = [expanded(where)] if where else list(places())
    folder = next((place for place in here if place.is_dir()), None)
    if folder is None:
        raise FewstepError(
            f"Fashion-MNIST is not in {listed(here)}: install the Debian package "
            f"dataset-fashion-mnist, or put the four files of "
            "github.com/zalandoresearch/fashion-mnist (data/fashion) into a folder and pass its "
            "path as --data"
        )
    names = [name for name in list_files(folder, ("",)) if is_idx(name)]
    if not names:
        raise FewstepError(
            f"{folder} holds no IDX files such as train-images-idx3-ubyte.gz; to read other data "
            f"in it, pass {folder.absolute()}"
        )
    path = split_files(images_of(folder, names), split, str(folder))[0]
    found = read_idx(path)
    if found.classes != FASHION:
        raise FewstepError(
            f"{path} is not Fashion-MNIST: its labels are others; to "
            f"read it all the same, pass {path.absolute()}"
        )
    data = Dataset.from_arrays(found.images, found.labels, found.classes, NAME)
    return replace(data, source=str(path))
