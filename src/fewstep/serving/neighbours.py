"""The training images that are nearest to a picture, where they are at hand."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.data import Dataset
from fewstep.errors import FewstepError
from fewstep.evaluation.copies import neighbours_of
from fewstep.hub_name import HUB
from fewstep.runs.directory import RunDirectory
from fewstep.runs.parts import real_data
from fewstep.runs.real import Real
from fewstep.runs.run import Data
from fewstep.runs.sources import is_there
from fewstep.serving.images import base64_png

LARGEST = 2**32  # bytes of the images that are looked through


class TrainingImages:
    """Training images of served models, read when they are asked for.

    Args:
        places: where each model was opened, by its id.
        shown: whether they may be seen by those who use the server.
    """

    def __init__(self, places: Mapping[str, Path] | None = None, *, shown: bool = True) -> None:
        self.places, self.shown = dict(places or {}), shown
        self._read: dict[Path, Dataset] = {}
        self._lock = threading.Lock()

    def missing(self, name: str) -> str | None:
        """Why the training images of a model are not at hand, as a sentence; None where they are.

        Nothing is read.
        """
        if not self.shown:
            return "They are not shown on this server, which others can reach."
        place = self.places.get(name)
        if place is None or not RunDirectory(place).started:
            return "It is served as a model alone; its run's folder says what they are."
        try:
            given = real_data(RunDirectory(place).here()).data
        except FewstepError as error:
            return f"Its run does not say which they are: {error}"
        if given is None:
            return "It was trained on images in memory, which no file keeps."
        if given.startswith(HUB):
            return "They are a data set of the hub, which is not fetched for this."
        if not is_there(given):
            return "They are not where they were when it was trained."
        return None

    def check(self, name: str) -> None:
        """Raise `FewstepError` where the training images of a model are not at hand."""
        if (why := self.missing(name)) is not None:
            raise FewstepError(f"the training images of {name} are not at hand. {why}")

    def nearest(self, name: str, image: Tensor, n: int) -> dict[str, Any]:
        """The part of an answer that tells of the nearest training images.

        Args:
            name: the model's.
            image: uint8 [C, H, W].
            n: how many.

        Raises:
            FewstepError: the images are not at hand, cannot be read, are too many or of another
                shape.
        """
        self.check(name)
        place = self.places[name]
        data, training = self._data(place), RunDirectory(place).run()[1].training
        if tuple(data.shape) != tuple(image.shape):
            C, H, W = data.shape
            raise FewstepError(f"the training images of {name} are {W}x{H} with {C} channels.")
        found = neighbours_of(
            image, data.images, n, mirrored=training.flip or bool(training.augment)
        )
        return {
            "images": len(data),
            "source": data.name,
            "data": [
                {
                    "b64_json": base64_png(
                        data.images[one.which], {"data": data.name, "index": one.which}
                    ),
                    "index": one.which,
                    "distance": round(one.distance, 3),
                    "mirrored": one.mirrored,
                    "class": _class_of(data, one.which),
                }
                for one in found
            ],
        }

    def _data(self, place: Path) -> Dataset:
        with self._lock:  # of several requests one reads them
            if place not in self._read:
                self._read[place] = _whole(Real.of(place, Data()).data)
            return self._read[place]


def _whole(data: Dataset | None) -> Dataset:
    if data is None:
        raise FewstepError("the run was trained on statistics, not on images.")
    size = len(data) * math.prod(data.shape)
    if size > LARGEST:
        raise FewstepError(
            f"{data.name} has {len(data):,} images of {size / 2**30:.0f} GiB, too many to look "
            f"through here: at most {LARGEST / 2**30:.0f}."
        )
    return Dataset(data.images, data.labels, data.classes, data.name, data.source)


def _class_of(data: Dataset, which: int) -> str | None:
    return None if data.labels is None else data.classes[int(data.labels[which])]
