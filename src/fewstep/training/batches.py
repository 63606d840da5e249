"""The micro-batches of a step, each with random streams of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.condition import Condition
from fewstep.data import Dataset, batch_indices
from fewstep.data.augment import Augmentation
from fewstep.distributed import Processes
from fewstep.objectives import Objective
from fewstep.objectives.fit import check_augmented, check_columns
from fewstep.training.arithmetic import mix, seed_streams, stream
from fewstep.training.config import Training
from fewstep.training.examples import Share, fitted


@dataclass(frozen=True)
class Part:
    """One micro-batch.

    Args:
        x: images [B, *shape].
        condition: of each.
        columns: what else the objective learns from.
        last: whether it is this process's last one of the batch.
    """

    x: Tensor
    condition: Condition
    columns: dict[str, Tensor]
    last: bool


class Batches:
    """What the steps of a training learn from: a function of the seed and of the step's numbers.

    Args:
        objective: what is minimised.
        data: training images.
        config: how.
        group: the processes that train together.

    Raises:
        FewstepError: data that the model or the objective cannot learn from; a batch that cannot
            be parted, or into parts of fewer images than the objective's `fewest`.
    """

    def __init__(
        self, objective: Objective[Any], data: Dataset, config: Training, group: Processes
    ) -> None:
        self.objective, self.config, self.device = objective, config, group.device
        self.share = Share.of(config, group)
        objective.fewest.check(config.batch // self.share.total)
        self.data = fitted(data, objective.f)
        check_columns(objective.name, objective.needs, data, config.flip or config.augment > 0)
        self.augment = Augmentation(config.augment) if config.augment else None
        if self.augment is not None:
            check_augmented(objective.f, self.data)

    def parts(self, number: int, k: int, repeats: int = 1, repeat: int = 0) -> Iterator[Part]:
        """This process's micro-batches of a batch, each after its random streams are set.

        Args:
            number: of the turn, from 0; every turn goes through the data in an order of its own.
            k: the step.
            repeats: batches of the turn in this step.
            repeat: which of these, from 0.
        """
        seed, mine = self.config.seed, self.share.mine
        order = mix(seed, number) if number else seed
        indices = batch_indices(len(self.data), self.config.batch, k * repeats + repeat, order)
        for part, micro in enumerate(indices.chunk(self.share.total)):
            if part in mine:
                seed_streams(stream(seed, k, part, number, repeat), self.device)
                yield self._part(micro, last=part == mine[-1])

    def _part(self, indices: Tensor, *, last: bool) -> Part:
        x, label = self.data.batch(indices, self.device, self.config.flip)
        x, augment = (x, None) if self.augment is None else self.augment(x)
        given = label if self.objective.f.num_classes else None
        names = self.objective.needs.columns
        embedding = None
        if "embedding" in self.objective.f.network.takes:
            embedding = self.data.embedding(indices, self.device)
        columns = {name: self.data.column(name, indices, self.device) for name in names}
        return Part(x, Condition(label=given, embedding=embedding, augment=augment), columns, last)
