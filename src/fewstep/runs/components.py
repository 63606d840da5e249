"""The kinds of components that a run is made of, and their settings."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

from fewstep.networks import NETWORKS
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.parameterization import PARAMETERIZATIONS
from fewstep.plugins.used import Used, used_in
from fewstep.registry import Registry
from fewstep.runs.run import Run

REGISTRIES: dict[str, Registry[Any]] = {
    "objective": OBJECTIVES,
    "network": NETWORKS,
    "p": PARAMETERIZATIONS,
}


def objective_of(run: Run) -> type[Objective]:
    """The class of the run's objective."""
    return OBJECTIVES[run.objective.name]


def arguments_of(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The settings of an objective, network or parameterization that a user may override."""
    given = {"self", "f", "K", "teacher", "shape", "num_classes"}
    found = inspect.signature(REGISTRIES[kind][name]).parameters
    return {k: v for k, v in found.items() if k not in given}


def plugins_of(recipe: str, run: Run) -> tuple[Used, ...]:
    """The plugins that gave a run's recipe, components or reader of data."""
    reader = (run.data.data or "").partition(":")[0]
    parts = [asdict(part) for part in (run.objective, run.network, run.p)]
    return used_in(recipe, reader, *parts, asdict(run.training))
