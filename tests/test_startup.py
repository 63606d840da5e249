"""What the command line does not do before anything happens: import torch, build every recipe."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fewstep
from fewstep.cli.catalogue import entries
from fewstep.cli.listing import REGISTRIES
from fewstep.distances import DISTANCES
from fewstep.networks import NETWORKS
from fewstep.objectives import OBJECTIVES
from fewstep.parameterization import (
    FORMS,
    PARAMETERIZATIONS,
    PRECONDITIONINGS,
    PREDICTIONS,
    PROCESSES,
)
from fewstep.registry import Registry
from fewstep.sampling import SAMPLERS
from fewstep.schedules import TIME_GRIDS, TIME_PAIRS, TRAINING_TIMES
from fewstep.solvers import PHI, SOLVERS
from fewstep.training.loggers import LOGGERS
from fewstep.weightings import WEIGHTINGS

LISTED: dict[str, Registry] = {
    "OBJECTIVES": OBJECTIVES,
    "NETWORKS": NETWORKS,
    "PARAMETERIZATIONS": PARAMETERIZATIONS,
    "PROCESSES": PROCESSES,
    "PRECONDITIONINGS": PRECONDITIONINGS,
    "FORMS": FORMS,
    "PREDICTIONS": PREDICTIONS,
    "SAMPLERS": SAMPLERS,
    "SOLVERS": SOLVERS,
    "PHI": PHI,
    "TIME_GRIDS": TIME_GRIDS,
    "DISTANCES": DISTANCES,
    "WEIGHTINGS": WEIGHTINGS,
    "TRAINING_TIMES": TRAINING_TIMES,
    "TIME_PAIRS": TIME_PAIRS,
    "LOGGERS": LOGGERS,
}


def imported(program: str) -> set[str]:
    """The modules that are there after a program has run in a process of its own."""
    program += "\nimport sys\nprint('modules:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "solvers"],
        ["list", "nonsense"],
        ["sampel"],
        ["train", "--help"],
        ["train", "no/recipe"],
    ],
)
def test_what_is_only_shown_does_not_wait_for_torch(words: list[str]) -> None:
    found = imported(f"from fewstep.cli import run; run({words!r})")
    assert not found & {"torch", "numpy", "PIL", "scipy", "importlib.metadata"}
    assert "fewstep.plugins.load" not in found


def test_the_digits_do_not_wait_for_scikit_learn() -> None:
    found = imported("import fewstep; fewstep.load('digits')")
    assert not found & {"sklearn", "scipy", "pandas"}
    parts = [fewstep.load("digits", split=split) for split in ("train", "test")]
    ours = np.concatenate([part.stored[part.rows].numpy()[:, 0] for part in parts])
    theirs = (load_digits().images / 16 * 255).round().astype("uint8")
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))


@pytest.mark.parametrize("name", REGISTRIES)
def test_the_catalogue_is_what_is_registered(name: str) -> None:
    registry = LISTED[name]
    found = {e.name: (e.summary, e.paper) for e in entries() if e.registry == name}
    assert found == {
        key: (registry.summary(key), getattr(registry[key], "paper", None)) for key in registry
    }


def test_the_catalogue_reads_what_an_objective_declares() -> None:
    """Also what it has from its base."""
    found = {e.name: (e.needs, e.cost) for e in entries() if e.registry == "OBJECTIVES"}
    assert found == {name: (OBJECTIVES[name].needs, OBJECTIVES[name].cost) for name in OBJECTIVES}


COUNTED = """
import docstring_parser
from fewstep.cli import recipe, run

built, described = [], []
build, parse = recipe.command_of, docstring_parser.parse_from_object
recipe.command_of = lambda asked: (built.append(asked.name), build(asked))[1]
docstring_parser.parse_from_object = lambda cls: (described.append(cls), parse(cls))[1]
assert run(["train", "digits/cd", "--steps", "0"]) == 2
assert built == ["digits/cd"], built
assert len(set(described)) == len(described) <= 13, described
assert all(cls.__module__.startswith("fewstep.") for cls in described), described
"""


def test_one_recipe_is_built_and_each_of_its_classes_is_described_once() -> None:
    assert "torch" in imported(COUNTED)
