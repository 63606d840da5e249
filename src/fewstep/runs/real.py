"""The real images that scores compare with, and samples in their proportions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fewstep.classes import Agreement
from fewstep.data import Dataset, NoSplit
from fewstep.data.columns import NoColumns
from fewstep.data.fits import Size
from fewstep.distributed import Processes
from fewstep.errors import FewstepError, FewstepWarning, listed
from fewstep.evaluation import Evaluator, FeatureNetwork, Reference
from fewstep.evaluation.images import as_bytes, check_size, conformed, load_images
from fewstep.evaluation.reference import holds_statistics
from fewstep.guidance import embeds
from fewstep.runs.directory import RunDirectory
from fewstep.runs.parts import load, real_data, request_of
from fewstep.runs.run import Data
from fewstep.sampling import Model

Reader = Callable[[str, Size | None], Dataset]
"""Reads the images of a split, which where they are padded are laid in a canvas."""


@dataclass(frozen=True)
class Real:
    """Real images, or statistics of them.

    Args:
        source: file of the statistics, or what the images were read from.
        data: the images, as bytes; None for statistics.
        held_out: reads those of its test split likewise; None for statistics.
    """

    source: str
    data: Dataset | None = None
    held_out: Callable[[], Dataset] | None = None

    @classmethod
    def of(cls, target: Path, reference: Data) -> Real:
        """What a user gives as the reference, or the images that a run was trained on.

        Args:
            target: a run folder.
            reference: images or statistics, and how to read them; without a name those of the run,
                read as the run does where nothing else is said. Images are cropped and resized to
                the size that the run's were, which is said.

        Raises:
            FewstepError: no reference was given and the target has none; nothing readable.
        """
        source = reference.data
        if source is not None and holds_statistics(source):
            _without_columns(source, reference)
            return cls(source)
        if source is not None:
            how = reference if reference.size else _like_run(reference, target)
            read, size = _reader_of(source, how), None  # which the images have then
        else:
            settings, size = _trained_on(target), reference.size
            source = str(settings.data)
            read = _reader_of_run(settings, reference)
        train = read("train", None)
        data = conformed(train, size, reference.channels)

        def held_out() -> Dataset:
            return conformed(read("test", _size(train)), size, data.shape[0])

        return cls(source, data, held_out)

    def test_split(self) -> Dataset | None:
        """The held-out images of the same source, in the shape of the others.

        None where it has none that can be read so, which is said.
        """
        if self.data is None or self.held_out is None:
            return None
        try:
            found = self.held_out()
            check_size(found.images, self.data.shape, "it")
            return found
        except NoSplit:
            return None  # there is one baseline fewer
        except FewstepError as error:
            _say(self.source, f"the test split is left out: {error}")
            return None

    def as_seen_by(self, network: FeatureNetwork, group: Processes | None = None) -> Reference:
        """The reference that these images are to a feature network."""
        if self.data is None:
            return Reference.load(self.source, network)
        return Reference.of_data(network, self.data, group=group)


def _size(data: Dataset) -> Size:
    _, height, width = data.shape
    return height, width


def _like_run(reference: Data, target: Path) -> Data:
    """The reference's settings with the size and fit of a run's images, where they have one."""
    home = RunDirectory.of(target)
    theirs = home.run()[1].data if home.started else Data()
    if theirs.size is None and theirs.fit != "pad":
        return reference
    _say(str(reference.data), f"images {_brought_to(theirs)}, as those of {target} were.")
    return replace(reference, size=theirs.size, fit=theirs.fit)


def _brought_to(settings: Data) -> str:
    if settings.size is None:
        return f"laid in one shape by fit={settings.fit}"
    if settings.fit == "crop":
        return f"cropped and resized to {settings.size}x{settings.size}"
    return f"brought to size {settings.size} by fit={settings.fit}"


def _without_columns(statistics: str, how: Data) -> None:
    """Raise `NoColumns` where a column is named of what has none."""
    if how.image_column or how.label_column:
        raise NoColumns(
            f"{statistics} holds statistics: --image-column and --label-column are for images.",
            "image_column" if how.image_column else "label_column",
        )


def _reader_of(source: str, how: Data) -> Reader:
    """Reads what a user names, by the user's columns."""

    def read(split: str, canvas: Size | None) -> Dataset:
        request = request_of(how, split)._replace(canvas=canvas)
        return load_images(source, partial(_say, source), request)

    return read


def _reader_of_run(settings: Data, how: Data) -> Reader:
    """Reads a run's images as the run does, but for what the user says otherwise."""
    settings = settings.without_texts().read_as(how)

    def read(split: str, canvas: Size | None) -> Dataset:
        return as_bytes(load(settings, split, canvas), partial(_say, str(settings.data)))

    return read


def _trained_on(target: Path) -> Data:
    """How a run names its images.

    Raises:
        FewstepError: the target is no run.
    """
    home = RunDirectory.of(target)
    settings = real_data(home.here()) if home.started else Data()
    if settings.data is None:
        raise FewstepError(f"{target} does not say what it was trained on: give --reference.")
    return settings


def _say(source: str, note: str) -> None:
    warnings.warn(f"{source}: {note}", FewstepWarning, stacklevel=2)


def labels_like(evaluator: Evaluator, f: Model, n: int) -> tuple[Tensor | None, list[str]]:
    """`_labels_like`, and a note where samples are told less than the model was in training."""
    labels, notes = _labels_like(evaluator, f, n)
    if embeds(f):
        notes = [*notes, "the model was sampled without a text or embedding, which it takes."]
    return labels, notes


def _labels_like(evaluator: Evaluator, f: Model, n: int) -> tuple[Tensor | None, list[str]]:
    """Classes for ``n`` samples in the reference's proportions, by the model's numbers [n].

    Where the model does not know all of the reference's classes, or the reference is statistics,
    every class of the model comes equally often; the former is said in a note.
    """
    if not f.num_classes:
        return None, []
    in_turn = torch.arange(n) % f.num_classes
    if evaluator.labels is None:
        return in_turn, []
    wanted = evaluator.labels_for(n)
    classes = evaluator.reference.classes
    if not classes:
        return wanted, []
    labels = Agreement(classes, f.classes).translated(wanted)
    if bool((labels >= 0).all()):
        return labels, []
    lost = [classes[i] for i in wanted[labels < 0].unique().tolist()]
    return in_turn, [
        f"the model does not make the reference's classes {listed(lost)}: it was sampled with its "
        f"own, {listed(f.classes)}, equally often."
    ]
