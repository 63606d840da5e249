"""Modules that moved are found under their old names, with a note, for two minor versions.

Scripts name modules, and a module that is gone is an error before the first line of theirs runs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from fewstep.errors import FewstepWarning

_RUNS = (
    "activations beginning components directory dry_run estimate execute latent_space pairs parts "
    "real requirements resume run sources step stored_taus time_points"
)
MOVED = {f"fewstep.recipes.{name}": f"fewstep.runs.{name}" for name in _RUNS.split()} | {
    "fewstep.sampling.samplers": "fewstep.sampling",
    "fewstep.training_times": "fewstep.schedules",
}
"""Where a module is now, by the name that it had in version 0.1."""
DIVIDED = {"fewstep.runs.directory": ("fewstep.runs.opening",)}
"""Where other names of a module of then are."""


class Finder(MetaPathFinder, Loader):
    """Finds a module that moved, after everybody else has found none."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Of an old name; None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Let the module have every name of the one that took its place."""
        now = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {now} now.", FewstepWarning, stacklevel=2)
        module.__dict__["__getattr__"] = partial(_name_of, (now, *DIVIDED.get(now, ())))


def _name_of(modules: Sequence[str], name: str) -> Any:
    """A name of the first of some modules that has it."""
    *some, last = map(import_module, modules)
    found = (module for module in some if hasattr(module, name))
    return getattr(next(found, last), name)


def find_moved() -> None:
    """Find modules under their old names from now on."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
