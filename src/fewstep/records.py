"""Records read from JSON: every field is checked against its annotation, and converted to it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fewstep.errors import FewstepError, unknown

T = TypeVar("T")
LARGEST = 2**63  # whole numbers are below it
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def record_of(cls: type[T], stored: Any, name: str = "it") -> T:
    """A dataclass from a JSON object.

    Lists become tuples and whole numbers become floats where the annotation says so; a field that
    is absent has its default.

    Args:
        cls: a dataclass of numbers, text, tuples, dictionaries and dataclasses.
        stored: what JSON gave, of any shape.
        name: of the value, for messages.

    Raises:
        FewstepError: another shape; the message names the field.
    """
    if not isinstance(stored, dict):
        raise FewstepError(f"{name} must be a JSON object, not {_short(stored)}.")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    if strange := stored.keys() - fields.keys():
        raise unknown(f"entry of {name}", min(strange), fields)
    for key, field in fields.items():
        if key not in stored and _is_needed(field):
            raise FewstepError(f"{name} has no {key!r}.")
    return cls(**{key: value_of(hints[key], x, f"{name}.{key}") for key, x in stored.items()})


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def value_of(hint: Any, stored: Any, name: str) -> Any:
    """A value of an annotation from JSON.

    Raises:
        FewstepError: another shape; the message says which is wanted.
    """
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return stored
    if origin in (Union, types.UnionType):
        return _one_of(inside, stored, name)
    if origin is Literal:
        if stored not in inside:
            raise _wrong(name, f"one of {', '.join(map(repr, inside))}", stored)
        return stored
    if origin is tuple:
        return _tuple_of(inside, stored, name)
    if origin in (dict, Mapping):
        if not isinstance(stored, dict):
            raise _wrong(name, "a JSON object", stored)
        return {key: value_of(inside[1], x, f"{name}.{key}") for key, x in stored.items()}
    if dataclasses.is_dataclass(hint):
        return record_of(hint, stored, name)  # type: ignore[arg-type]
    return _plain(hint, stored, name)


def _plain(hint: Any, stored: Any, name: str) -> Any:
    """A truth value, a number, text or null."""
    if hint is type(None):
        good = stored is None
    elif hint is float:
        good = isinstance(stored, int | float) and not isinstance(stored, bool)
    else:
        good = isinstance(stored, hint) and isinstance(stored, bool) == (hint is bool)
    if not good or (isinstance(stored, int) and abs(stored) >= LARGEST):
        raise _wrong(name, _WORDS.get(hint, "null"), stored)
    return float(stored) if hint is float else stored


def _one_of(hints: tuple[Any, ...], stored: Any, name: str) -> Any:
    if stored is None and type(None) in hints:
        return None
    wanted = [hint for hint in hints if hint is not type(None)]
    for hint in wanted[:-1]:
        try:
            return value_of(hint, stored, name)
        except FewstepError:  # noqa: PERF203 - the last one says what is wrong
            continue
    return value_of(wanted[-1], stored, name)


def _tuple_of(inside: tuple[Any, ...], stored: Any, name: str) -> tuple[Any, ...]:
    any_length = inside[-1:] == (Ellipsis,)
    if not isinstance(stored, list) or not (any_length or len(stored) == len(inside)):
        raise _wrong(name, "a list" if any_length else f"a list of {len(inside)}", stored)
    hints = inside[:1] * len(stored) if any_length else inside
    return tuple(
        value_of(hint, x, f"{name}[{i}]")
        for i, (hint, x) in enumerate(zip(hints, stored, strict=True))
    )


def _wrong(name: str, wanted: str, stored: Any) -> FewstepError:
    return FewstepError(f"{name} must be {wanted}, not {_short(stored)}.")


def _short(value: Any) -> str:
    """A value in a message: its kind where it holds others, and never a long one."""
    if isinstance(value, dict | list):
        return f"{'a JSON object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return "so large a number"
    return "null" if value is None else repr(value)[:60]
