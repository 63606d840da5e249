"""What a contract is: a function of what fits an objective, which raises `Broken`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.objectives import Objective
from fewstep.objectives.turns import Turn
from fewstep.testing.fitting import Examples, Fitting

Contract = Callable[[Fitting], None]
CONTRACTS: dict[str, Contract] = {}
"""The contracts, by what they say of an objective."""


class Broken(AssertionError):
    """An objective does not do what every objective does."""


def contract(check: Contract) -> Contract:
    """File a contract, which always sees the same random numbers and leaves those of others."""

    def seeded(fitting: Fitting) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(fitting)

    CONTRACTS[check.__name__] = seeded
    return seeded


def must(met: object, what: str) -> None:
    """Raise `Broken` unless something is so."""
    if not met:
        raise Broken(what)


def losses(
    o: Objective, batch: Examples, k: int, condition: Condition = NONE
) -> Iterator[tuple[Turn, Tensor]]:
    """Each turn of step ``k`` and its loss of each example [B]; gradients are those of the turn."""
    for turn in o.turns(k):
        with o.only(turn):
            yield turn, o(batch.x, k, condition, turn, **batch.columns)
