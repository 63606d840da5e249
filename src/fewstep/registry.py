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
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from fewstep.errors import FewstepError, unknown

T = TypeVar("T")


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
        for argument in arguments:
            if argument not in known:
                raise unknown(f"argument of the {self.kind} {name!r}", argument, known)
            value = arguments[argument]
            if isinstance(value, float) and math.isnan(value):
                raise FewstepError(f"{argument} of the {self.kind} {name!r} is not a number.")
        try:
            return cls(**arguments)
        except TypeError as error:
            raise FewstepError(f"{self.kind} {name!r}: {error}") from error

    def summary(self, name: str) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self[name]) or "").split("\n", 1)[0]


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """``"name(a=1)"`` -> ``("name", {"a": 1})``. Hyphens in the name count as underscores."""
    problem = FewstepError(f"cannot read {spec!r}: write name or name(argument=value, ...).")
    head, bracket, tail = spec.strip().partition("(")
    head = head.strip().replace("-", "_")
    try:
        node = ast.parse(head + bracket + tail, mode="eval").body
    except SyntaxError:
        raise problem from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
        raise problem
    try:
        return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except ValueError:
        raise problem from None
