"""What a parameter's annotation accepts of the values that text can hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SIMPLE = (bool, int, float, str, NoneType, tuple, list)
NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "a name or spec"}


def hints_of(cls: Callable[..., Any], *, whole: bool = False) -> dict[str, Any]:
    """The annotations of a class's constructor; none where they name what cannot be found.

    Args:
        cls: the class, or a function.
        whole: with what `typing.Annotated` adds.
    """
    call = getattr(cls, "__init__", cls) if inspect.isclass(cls) else cls
    try:
        return get_type_hints(call, include_extras=whole)
    except (NameError, AttributeError, TypeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a simple type is one of an annotation; every other value is taken."""
    if not isinstance(value, SIMPLE) or hint is Any:
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple and isinstance(value, tuple | list):
        return _each_fits(value, arguments)
    home = origin or hint
    if is_protocol(home):  # which no text has
        return False
    return not inspect.isclass(home) or isinstance(value, home)


def is_protocol(hint: Any) -> bool:
    """Whether an annotation says how a value looks, not of which class it is."""
    return bool(getattr(hint, "_is_protocol", False))


def _each_fits(values: Any, hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(fits, values, hints))


def kind_of(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(kind_of(one) for one in arguments if _named(one)))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return f"a tuple such as ({'0.5' if float in arguments else '1'},)"
    return "None" if hint is NoneType else NAMES.get(hint, "a spec")


def _named(hint: Any) -> bool:
    """Whether a part of a union is worth a word: a component is written as its spec anyway."""
    return hint is not NoneType and (hint in NAMES or get_origin(hint) is not None)
