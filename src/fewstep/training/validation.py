"""Sample grids in the course of training, and a score to tell the best checkpoint by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.models import as_sampled
from fewstep.sampling import sample
from fewstep.stored_model import StoredModel
from fewstep.training.score import Score

BATCH = 64  # samples at once, so that they fit beside what trains
DIGITS = 6  # of an influence that are kept


def energy_distance(a: Tensor, b: Tensor) -> Score:
    """``2 E|a - b| - E|a - a'| - E|b - b'|`` between two samples [n, ...], [m, ...].

    Zero if and only if the distributions are the same (Székely & Rizzo 2013); this is its
    unbiased estimate, so it can be slightly negative. It needs no feature network and, unlike a
    loss, compares models across objectives and training steps.

    Its error is that of the first order: ``a`` adds ``2 E|a - b| - 2 E|a - a'|``, and ``b``
    likewise.
    """
    a, b = a.flatten(1), b.flatten(1)
    between = torch.cdist(a, b)
    of_a, of_b = (torch.cdist(x, x).sum(1) / max(1, len(x) - 1) for x in (a, b))
    value = float(2 * between.mean() - (of_a.mean() + of_b.mean()))
    return Score(value, _kept(2 * (between.mean(1) - of_a)), _kept(2 * (between.mean(0) - of_b)))


def _kept(influence: Tensor) -> list[float]:
    return [float(f"{x:.{DIGITS}g}") for x in influence.tolist()]


def evenly(labels: Tensor, order: Tensor) -> Tensor:
    """An order in which every beginning has the classes in the proportions of the whole: [N].

    Args:
        labels: class of each example [N].
        order: in which the examples of a class come [N].
    """
    by_class = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels)
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[labels[by_class]]
    place = (rank + 0.5) / counts[labels[by_class]]
    return by_class[place.argsort(stable=True)]


@dataclass(frozen=True)
class Validation:
    """Samples of one seed, held against real images.

    The noises and the labels are the same each time, so that the scores of two checkpoints differ
    by what these have learned, and little by luck.

    Args:
        real: real images [m, *shape] in [-1, 1].
        n: number of samples; at least 2.
        seed: their seed.
        told: classes or embeddings of the real images [m], which the samples have, too; without
            classes all in turn.
    """

    real: Tensor
    n: int
    seed: int = 0
    told: Condition = NONE

    def __call__(self, f: StoredModel) -> tuple[Tensor, Score]:
        """Samples [n, *shape] on the CPU and their energy distance to the real images."""
        told = self.told.rows(torch.arange(self.n) % len(self.real))
        x = sample(
            as_sampled(f),
            self.n,
            seed=self.seed,
            labels=told.label if f.num_classes else None,
            embedding=told.embedding if "embedding" in f.network.takes else None,
            batch=BATCH,
        )
        return x, energy_distance(x, self.real)
