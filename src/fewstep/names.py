"""What was filed under which name, of every kind: each name once.

Registries and recipes file what they hold through `file`, so that a plugin can be told what it
gives, a model what gave its parts, and a name that is there already is never taken away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fewstep.errors import FewstepError

OURS = "fewstep"


@dataclass(frozen=True, eq=False)
class Filed:
    """A name that was given.

    Args:
        kind: of what, such as "network".
        name: the name.
        thing: the class or function behind it.
        book: where it is kept, by name.
    """

    kind: str
    name: str
    thing: Callable[..., Any]
    book: dict[str, Any]

    @property
    def module(self) -> str:
        """The module that defines it."""
        return module_of(self.thing)

    @property
    def ours(self) -> bool:
        """Whether this package defines it, and no plugin."""
        return top(self.module) == OURS

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def remove(self) -> None:
        """Take the name away again."""
        self.book.pop(self.name, None)
        LEDGER.remove(self)


LEDGER: list[Filed] = []
"""Every name, in the order in which they were given."""


def file(kind: str, name: str, thing: Callable[..., Any], value: Any, book: dict[str, Any]) -> None:
    """Keep ``value``, which is or belongs to ``thing``, in a book under a name.

    What is defined anew in its module, as in a notebook, replaces what was before.

    Raises:
        FewstepError: the name is another thing's.
    """
    before = next((x for x in LEDGER if x.book is book and x.name == name), None)
    if before is not None:
        new = _loading and before not in _loading[-1]  # by the same code a moment ago
        if new or _home(before.thing) != _home(thing):
            raise FewstepError(
                f"the {kind} {name!r} is registered twice, by {_home(before.thing)} and "
                f"{_home(thing)}: give one of them another name."
            )
        before.remove()
    book[name] = value
    LEDGER.append(Filed(kind, name, thing, book))


_loading: list[set[Filed]] = []


@contextmanager
def loading() -> Iterator[set[Filed]]:
    """Inside, where code is imported once, no name is given twice; gives the names before."""
    _loading.append(set(LEDGER))
    try:
        yield _loading[-1]
    finally:
        _loading.pop()


def _home(thing: Callable[..., Any]) -> str:
    return f"{module_of(thing)}.{getattr(thing, '__qualname__', '')}"


def plugin_files() -> list[str]:
    """The files of the modules, not ours, that have given names."""
    modules = [sys.modules.get(filed.module) for filed in LEDGER if not filed.ours]
    return sorted({file for module in modules if (file := getattr(module, "__file__", None))})


def module_of(thing: object) -> str:
    """The module that defines a class or function."""
    return getattr(thing, "__module__", None) or ""


def top(module: str) -> str:
    """The package, or single module, that a module belongs to."""
    return module.partition(".")[0]
