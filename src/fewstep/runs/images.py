"""The images of a run: how their classes are numbered, and which are held out."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from fewstep.classes import Agreement, names_for
from fewstep.condition import Condition
from fewstep.data import Dataset
from fewstep.errors import FewstepError, listed
from fewstep.model_file import open_model_file
from fewstep.models import AnyModel
from fewstep.runs.directory import RunDirectory
from fewstep.runs.run import Run
from fewstep.training.checkpoint import Checkpoints
from fewstep.training.validation import evenly

HELD_OUT = 1024  # real images that validation compares samples with


def classes_in(run: Run, data: Dataset) -> int:
    """How many classes a run's network is conditioned on."""
    return data.num_classes if run.data.labels and data.labels is not None else 0


def with_known_classes(
    run: Run, data: Dataset, home: RunDirectory, origin: AnyModel | None
) -> Dataset:
    """The images with classes numbered as by the run's own checkpoints, or else by its origin.

    A network knows a class by its number alone. The same names in another order are renumbered.

    Args:
        run: with the settings.
        data: the images.
        home: the run's folder.
        origin: the teacher, or the model that it begins with.

    Raises:
        FewstepError: images of a class that the run or its teacher does not know, or a teacher of
            classes that no image has.
    """
    if not run.data.labels or data.labels is None:
        return data
    if so_far := _classes_so_far(home):
        return data.with_classes(so_far, f"the run {home.path}")
    if origin is None or not origin.num_classes:
        return data
    if Agreement(data.classes, origin.classes).same:
        return data.with_classes(origin.classes, run.origin)
    if run.teacher is None:
        return data  # weights alone are taken, and those of the classes by name
    raise FewstepError(
        f"{run.origin} has the classes {listed(origin.classes)}, the data set {data.name} has "
        f"{listed(data.classes)}: a model knows the classes of the one that it begins with. Give "
        "one of these classes, or leave them out with --no-labels."
    )


def _classes_so_far(home: RunDirectory) -> tuple[str, ...]:
    """The classes of the newest checkpoint that can be read, from the header of its map."""
    for checkpoint in reversed(Checkpoints(home.path / "checkpoints").all()):
        with suppress(FewstepError), open_model_file(checkpoint.path / "f.safetensors") as file:
            header = file.header
            return names_for(header.network.get("num_classes", 0), header.trained.classes)
    return ()


def held_out(data: Dataset) -> tuple[Tensor, Condition]:
    """A fixed draw of the images, in [-1, 1], that validation compares samples with; what they are.

    The classes have the proportions that they have in the data, in the first few as in all.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data), generator=generator)
    if data.labels is not None:
        order = evenly(data.labels, order)
    x, labels = data.batch(order[:HELD_OUT], torch.device("cpu"))
    return x, Condition(label=labels, embedding=data.embedding(order[:HELD_OUT]))
