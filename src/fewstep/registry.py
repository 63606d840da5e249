"""Named, self-describing components.

Distances, weightings, solvers, parameterizations, networks and objectives are classes that a
user picks by name. A `Registry` holds the classes of one kind; a *spec* is the text
``name`` or ``name(argument=value, ...)`` from which an instance is built and by which it is
stored, such as ``pseudo_huber(c=0.24)``. Specs are parsed, never evaluated as code.
"""

from __future__ import annotations

import ast
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from fewstep.errors import FewstepError, out_of_memory, unknown

T = TypeVar("T")

LARGEST = 2**63  # of torch's whole numbers
LONGEST = 1000  # characters of a spec


class Registry(Generic[T]):
    """The classes of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that files the class under `name`."""

        def file(cls: type[T]) -> type[T]:
            self._classes[name] = cls
            return cls

        return file

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __getitem__(self, name: str) -> Callable[..., T]:
        if name not in self._classes:
            raise unknown(self.kind, name, self._classes)
        return self._classes[name]

    def name_of(self, cls: type) -> str:
        """The name under which a class is filed."""
        for name, known in self._classes.items():
            if known is cls:
                return name
        raise FewstepError(f"{cls.__name__} is not a registered {self.kind}.")

    def build(self, spec: str | T, **defaults: Any) -> T:
        """An instance from a spec; an instance passes through unchanged.

        `defaults` are arguments that the spec may override.

        Raises:
            FewstepError: unknown name, unknown argument, or text that is not a spec.
        """
        if not isinstance(spec, str):
            return spec
        name, arguments = parse(spec)
        return self.call(name, {**defaults, **arguments})

    def call(self, name: str, arguments: dict[str, Any]) -> T:
        """An instance of the class `name` from keyword arguments, checked against its signature."""
        cls = self[name]
        known = [p for p in inspect.signature(cls).parameters if p != "self"]
        for argument, value in arguments.items():
            if argument not in known:
                raise unknown(f"argument of the {self.kind} {name!r}", argument, known)
            if (problem := _no_number(value)) is not None:
                raise FewstepError(f"{argument} of the {self.kind} {name!r} {problem}.")
        try:
            return cls(**arguments)
        except FewstepError:
            raise
        except (TypeError, ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
            raise FewstepError(self._unbuildable(name, arguments, error)) from error

    def _unbuildable(self, name: str, arguments: dict[str, Any], error: Exception) -> str:
        """Which values a class cannot be built with: numbers of no use, or more than memory has."""
        if isinstance(error, TypeError):
            return f"{self.kind} {name!r}: {error}"
        simple = (bool, int, float, str, tuple, list)
        given = ", ".join(f"{k}={v!r}" for k, v in arguments.items() if isinstance(v, simple))
        reason = out_of_memory(error) or " ".join(str(error).split())
        return f"the {self.kind} {name!r} cannot be built with {given}: {reason}."

    def summary(self, name: str) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self[name]) or "").split("\n", 1)[0]


def _no_number(value: Any) -> str | None:
    """Why a value, or a part of it, is of no use as a number; None where it is."""
    if isinstance(value, tuple | list):
        return next(filter(None, map(_no_number, value)), None)
    if isinstance(value, float) and math.isnan(value):
        return "is not a number"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "is too large: whole numbers end at 2^63 - 1"
    return None


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """``"name(a=1)"`` -> ``("name", {"a": 1})``. Hyphens in the name count as underscores.

    Raises:
        FewstepError: anything else, and more than `LONGEST` characters.
    """
    shown = spec if len(spec) < 100 else f"{spec[:80]}..."
    problem = FewstepError(f"cannot read {shown!r}: write name or name(argument=value, ...).")
    if len(spec) > LONGEST:  # Python's parser runs out of stack on deep nesting
        raise problem
    head, bracket, tail = spec.strip().partition("(")
    head = head.strip().replace("-", "_")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python code, which this is not
            node = ast.parse(head + bracket + tail, mode="eval").body
        return _name_and_arguments(node)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise problem from None


def _name_and_arguments(node: ast.expr) -> tuple[str, dict[str, Any]]:
    """Of ``name`` or ``name(argument=literal, ...)``; `ValueError` for any other expression."""
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
        raise ValueError("not a call with keyword arguments")
    return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
