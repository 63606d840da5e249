"""Whether the data fit the model that learns from them, and who computes what."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.data import Dataset
from fewstep.data.dataset import EMBEDDING
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.stored_model import StoredModel
from fewstep.training.config import Training


def fitted(data: Dataset, f: StoredModel) -> Dataset:
    """The data with classes numbered as the model's are, where the model has names for them.

    Raises:
        FewstepError: data of another shape, without labels for a conditional model, or with
            classes that it does not have.
    """
    if tuple(data.shape) != tuple(f.shape):
        raise FewstepError(
            f"the model is of shape {list(f.shape)}, but {data.name} has {list(data.shape)}."
        )
    _check_embeddings(data, f.network.embeds)
    if not f.num_classes:
        return data
    if data.labels is None:
        raise FewstepError(
            f"the model is conditional on {f.num_classes} classes, but {data.name} has no labels. "
            "Give the images class folders, or train without labels."
        )
    if f.trained.classes:
        return data.with_classes(f.classes, "the model")
    if data.num_classes > f.num_classes:
        raise FewstepError(
            f"the model is conditional on {f.num_classes} classes, but {data.name} has "
            f"{data.num_classes}."
        )
    return data


def _check_embeddings(data: Dataset, numbers: int) -> None:
    """Raise `FewstepError` unless images have embeddings where the model takes them, and fit."""
    column = data.columns.get(EMBEDDING)
    there = 0 if column is None else column.shape[-1]
    if numbers and there != numbers:
        raise FewstepError(
            f"the model is conditional on embeddings of {numbers} numbers, and those of "
            f"{data.name} have {there}: give --encoder or --embeddings as it was trained with."
        )


@dataclass(frozen=True)
class Share:
    """Which micro-batches of how many this process computes.

    Args:
        total: over all processes.
        mine: their numbers.
    """

    total: int
    mine: tuple[int, ...]

    @classmethod
    def of(cls, config: Training, group: Processes) -> Share:
        """Of this process: every ``world``-th.

        Raises:
            FewstepError: the batch cannot be parted so.
        """
        total = config.microbatches or group.world
        if total % group.world:
            raise FewstepError(
                f"microbatches={total} must be a multiple of the {group.world} processes."
            )
        if config.batch % total:
            raise FewstepError(f"batch={config.batch} must be a multiple of {total} micro-batches.")
        return cls(total, tuple(group.share(total)))
