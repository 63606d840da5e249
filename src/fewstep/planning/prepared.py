"""The images of a plan, once in the size that they are trained in, with some held out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.data import Dataset, NoSplit
from fewstep.data.fits import OutOfCanvas
from fewstep.data.labels import numbered
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation.copies import pixel_keys
from fewstep.files import replacing
from fewstep.fit_name import FitName
from fewstep.planning.looked_at import Looked, classes_worth, groups, look
from fewstep.runs.parts import load
from fewstep.runs.run import Data

SHARE, MOST = 0.15, 2000  # of the images that are held out where nobody has divided them
FEWEST = 2  # test images of the source's own that can be scored with
TRAIN, TEST = "train.npz", "test.npz"


@dataclass(frozen=True)
class Prepared:
    """Training images and held-out ones, of one size and with the same classes."""

    train: Dataset
    test: Dataset
    looked: Looked

    def write(self, folder: Path) -> None:
        """Keep them in a folder, where a training finds them wherever the folder is moved."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((TRAIN, self.train), (TEST, self.test)):
            arrays: dict[str, Any] = {"images": data.images.numpy()}
            if data.labels is not None:
                arrays["labels"] = np.array(data.classes)[data.labels.numpy()]
            with replacing(folder / name) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)


def prepare(
    source: str,
    size: int | None,
    channels: int | None = None,
    *,
    fit: FitName = "crop",
    labels: bool | None = None,
    how: Data | None = None,
) -> Prepared:
    """Read images, decide what is held out and whether classes are told, and look at them.

    See `divided` for which are held out.

    Args:
        source: a folder or file, as `fewstep.load` takes it.
        size: side to crop and resize to; None for the images' own.
        channels: 1 or 3; default what they are.
        fit: what becomes of images that are not square.
        labels: whether the model is told the classes; default what suits them.
        how: names of columns.

    Raises:
        FewstepError: nothing that can be read; classes that are wanted and not there.
    """
    settings = replace(
        how or Data(), data=source, size=size, channels=channels, fit=fit, skip_bad=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)
        train = load(replace(settings, labels=labels is not False))
    worth, why = classes_worth(train)
    if labels is not None:
        worth, why = labels, "The model is told the classes." if labels else "Classes are left out."
    if worth and train.labels is None:
        raise FewstepError(f"{source} has no classes to tell a model: leave out --labels.")
    if not worth:
        train = train.without_labels()
    train, test = (_as_kept(part) for part in divided(train, settings))
    return Prepared(train, test, look(train, len(test), why))


def _as_kept(data: Dataset) -> Dataset:
    """With its classes in the order that they have once it is written and read again."""
    if data.labels is None:
        return data
    labels, classes = numbered(np.array(data.classes)[data.labels.numpy()], len(data))
    return replace(data, labels=labels, classes=classes)


def divided(data: Dataset, settings: Data) -> tuple[Dataset, Dataset]:
    """Images to train on and images to score with.

    Those that the source itself calls test images are held out, but for those that are training
    images, too; where there are none or one, or they are of another shape, a seventh of all is, of
    each class alike. Images that are nearly one stay on one side.

    Args:
        data: the training images of a source.
        settings: the source, and how it is read.

    Raises:
        FewstepError: test images that cannot be read, or of other classes.
    """
    C, height, width = data.shape
    try:
        found = load(replace(settings, labels=data.labels is not None), "test", (height, width))
    except (NoSplit, OutOfCanvas):
        return held_out(data)
    if found.shape != (C, height, width):
        return held_out(data)
    known = frozenset(pixel_keys(data.images))
    new = [i for i, key in enumerate(pixel_keys(found.images)) if key not in known]
    if len(new) < FEWEST:
        return held_out(data)
    data, found = replace(data, skipped=data.skipped + found.skipped), found.subset(new)
    if data.labels is not None:
        found = found.with_classes(data.classes, "the training images")
    return data, found


def held_out(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Images to train on and images to score with; those that are nearly one stay together.

    Unless a quarter of all would have to follow those that are held out. A class of which none
    would be left to train on is not held out.
    """
    n = max(2, min(MOST, round(SHARE * len(data))))
    rest, apart = data.stratified_split(n / len(data), seed)
    rows = torch.arange(len(data)) if data.rows is None else data.rows
    kept, out = (_numbers(rows, part) for part in (rest, apart))
    same = groups(data.images)
    twins = torch.isin(same[kept], same[out])
    if twins.sum() <= len(data) // 4:
        kept, out = kept[~twins], torch.cat([out, kept[twins]])
    if data.labels is not None:
        learned = torch.isin(data.labels[out], data.labels[kept])
        kept, out = torch.cat([kept, out[~learned]]), out[learned]
    return data.subset(kept.sort().values), data.subset(out.sort().values)


def _numbers(rows: Tensor, part: Dataset) -> Tensor:
    """Which of the rows the examples of a part are."""
    assert part.rows is not None
    return torch.searchsorted(rows, part.rows)
