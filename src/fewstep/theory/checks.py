"""All checks, in the order of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fewstep.theory.boundary import boundary
from fewstep.theory.check import Check
from fewstep.theory.continuous import theorems_3_and_4, theorems_5_and_6
from fewstep.theory.lemma1 import lemma_1
from fewstep.theory.solvers import solver_orders, theorem_1
from fewstep.theory.theorem2 import theorem_2

CHECKS: tuple[Callable[[int], Check], ...] = (
    lemma_1,
    boundary,
    solver_orders,
    theorem_1,
    theorem_2,
    theorems_3_and_4,
    theorems_5_and_6,
)
"""Each measures one statement; the argument is the seed of what is drawn."""


def verify(seed: int = 0) -> Iterator[Check]:
    """Measure one statement after another."""
    for check in CHECKS:
        yield check(seed)
