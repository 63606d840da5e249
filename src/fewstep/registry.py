"""Named, self-describing components.

Distances, weightings, solvers, parameterizations, networks and objectives are classes that a
user picks by name. A `Registry` holds the classes of one kind; a *spec* (see `fewstep.spec`) is the
text ``name`` or ``name(argument=value, ...)`` from which an instance is built and by which it is
stored, such as ``pseudo_huber(c=0.24)``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from fewstep import names
from fewstep.annotations import fits, hints_of, kind_of
from fewstep.errors import FewstepError, out_of_memory, unknown
from fewstep.spec import parse, written

T = TypeVar("T")

LARGEST = 2**63  # of torch's whole numbers
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


REGISTRIES: list[Registry[Any]] = []
"""All that there are, in the order in which they were made."""


class Registry(Generic[T]):
    """The classes of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}
        REGISTRIES.append(self)

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that files the class under `name`.

        A class that is defined anew in its module, as in a notebook, replaces the one before.

        Raises:
            FewstepError: another class has the name.
        """

        def file(cls: type[T]) -> type[T]:
            names.file(self.kind, name, cls, cls, self._classes)
            _HOMES[cls] = self
            return cls

        return file

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise unknown(self.kind, name, self._classes)
        return self._classes[name]

    def holds(self, cls: type) -> bool:
        """Whether a class is filed here."""
        return any(known is cls for known in self._classes.values())

    def holds_kinds_of(self, cls: type) -> bool:
        """Whether every class that is filed here is one of ``cls``."""
        return bool(self._classes) and all(issubclass(c, cls) for c in self._classes.values())

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
        if isinstance(spec, int | float | tuple | list | None):
            raise FewstepError(f"a {self.kind} is a spec, name(argument=value), got {spec!r:.60}.")
        if not isinstance(spec, str):
            return spec
        name, arguments = parse(spec)
        self._check_types(name, arguments)
        return self.call(name, {**defaults, **arguments})

    def call(self, name: str, arguments: dict[str, Any]) -> T:
        """An instance of the class `name` from keyword arguments, checked against its signature."""
        cls = self[name]
        known = parameters(cls)
        for argument, value in arguments.items():
            if argument not in known:
                raise unknown(f"argument of the {self.kind} {name!r}", argument, known)
            if (problem := _no_number(value)) is not None:
                raise FewstepError(f"{argument} of the {self.kind} {name!r} {problem}.")
        try:
            return cls(**{known[a].name: value for a, value in arguments.items()})
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

    def _check_types(self, name: str, arguments: dict[str, Any]) -> None:
        """Raise `FewstepError` for a text where a number is wanted, and the like."""
        cls = self[name]
        hints = hints_of(cls)
        for argument, parameter in parameters(cls).items():
            if argument in arguments and parameter.name in hints:
                value, hint = arguments[argument], hints[parameter.name]
                if not fits(value, hint):
                    raise FewstepError(
                        f"{argument} of the {self.kind} {name!r} must be {kind_of(hint)}, got "
                        f"{value!r}."
                    )

    def summary(self, name: str) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self[name]) or "").split("\n", 1)[0]


_HOMES: dict[type, Registry[Any]] = {}
"""Where each registered class is filed."""


def spec_of(component: Any) -> str:
    """The spec of a registered component, with the arguments that are not the default ones.

    `Registry.build` makes an equal component of it.

    Raises:
        FewstepError: a component whose class is not registered.
    """
    cls = type(component)
    if cls not in _HOMES:
        raise FewstepError(f"{cls.__name__} is not registered, so it has no spec.")
    given = {
        argument: _plain(getattr(component, parameter.name))
        for argument, parameter in parameters(cls).items()
        if getattr(component, parameter.name) != parameter.default
    }
    return written(_HOMES[cls].name_of(cls), given)


def _plain(value: Any) -> Any:
    return spec_of(value) if type(value) in _HOMES else value


def parameters(cls: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class as a spec spells them.

    A class may spell one otherwise than its constructor: ``spelled`` maps the parameter's name to
    the spec's.
    """
    spelled = getattr(cls, "spelled", {})
    found = inspect.signature(cls).parameters.values()
    return {spelled.get(p.name, p.name): p for p in found if p.kind not in _REST}


def _no_number(value: Any) -> str | None:
    """Why a value, or a part of it, is of no use as a number; None where it is."""
    if isinstance(value, tuple | list):
        return next(filter(None, map(_no_number, value)), None)
    if isinstance(value, float) and math.isnan(value):
        return "is not a number"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "is too large: whole numbers end at 2^63 - 1"
    return None
