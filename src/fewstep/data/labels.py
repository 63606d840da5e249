"""A class is a name: labels of any kind become names, and numbers that count them from 0.

A label may be text, a truth value or a whole number, also one stored as a float. Its class is
called by the label itself: labels 1, 2, 3 are the classes "1", "2", "3", numbered 0, 1, 2. So no
class exists that no example has, and two data sets agree by the names of their classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError, listed

NUMBER = re.compile(r"(\d+)")
SHOWN = 40  # characters of a value in a message


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts numbers inside names as numbers: 0, 1, 2, 10, "class 2", "class 10".

    Names that differ in nothing but leading zeros stay apart, in the order of their text.
    """
    parts = NUMBER.split(name)
    numbers = [part.lstrip("0") for part in parts[1::2]]
    whole: list[tuple[int, str]] = [(0, "")] * len(parts)
    whole[::2] = [(0, text) for text in parts[::2]]
    whole[1::2] = [(len(number), number) for number in numbers]
    return (*whole, (0, name))


def numbered(
    labels: Any, n: int, classes: Sequence[str] = ()
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as int64 [n] in `0 ... C-1`, and the names of the C classes.

    Args:
        labels: one per example, [n] or [n, 1]; or None.
        n: number of examples.
        classes: names of all classes, of which numbers are the places; without them the classes
            are the labels that there are, in the order of `natural`.

    Raises:
        FewstepError: not one label per example; an example without a label or with one that is no
            class; a label that is none of `classes`.
    """
    if labels is None:
        return None, ()
    values = _listed(labels, n)
    distinct = _distinct(values)
    if classes:
        order = tuple(classes)
        _check_differ(order)
        places = {name: i for i, name in enumerate(order)}
        index = {value: _place(value, values, places) for value in distinct}
    else:
        names = {value: _name(value, values) for value in distinct}
        order = tuple(sorted(set(names.values()), key=natural))
        places = {name: i for i, name in enumerate(order)}
        index = {value: places[name] for value, name in names.items()}
    return torch.tensor([index[value] for value in values], dtype=torch.int64), order


def used(labels: Tensor, classes: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """The same labels and names without the classes that no example has."""
    here, numbers = labels.unique(return_inverse=True)
    return numbers, tuple(classes[i] for i in here.tolist())


def _listed(labels: Any, n: int) -> list[Any]:
    if not hasattr(labels, "tolist"):
        labels = np.array(labels, dtype=object)
    shape = tuple(labels.shape)
    if shape not in ((n,), (n, 1)):
        rows = "; give the class of a one-hot row: argmax(1)" if shape[:1] == (n,) else ""
        raise FewstepError(
            f"labels must be {n} integers or names, one per example, got {list(shape)}{rows}"
        )
    values: list[Any] = labels.reshape(n).tolist()
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _distinct(values: list[Any]) -> set[Any]:
    try:
        return set(values)
    except TypeError:  # lists and dictionaries
        first = next(i for i, value in enumerate(values) if type(value).__hash__ is None)
        raise _no_class(first, values[first]) from None


def _check_differ(classes: tuple[str, ...]) -> None:
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise FewstepError(f"two classes are called {twice!r}: class names must differ")


def _name(value: Any, values: list[Any]) -> str:
    """The class that a label is."""
    number = _whole(value, values)
    if isinstance(value, bool) or number is None:
        return value.decode() if isinstance(value, bytes) else str(value)
    return str(number)


def _place(value: Any, values: list[Any], places: dict[str, int]) -> int:
    number = _whole(value, values)
    if number is None:
        number = places.get(_name(value, values), -1)
    if not 0 <= number < len(places):
        raise FewstepError(
            f"example {_first(value, values)} has label {_shown(value)}, but there are "
            f"{len(places)} classes: {listed(places)}"
        )
    return number


def _whole(value: Any, values: list[Any]) -> int | None:
    """The number that a label is; None for text.

    Raises:
        FewstepError: it is neither.
    """
    if value is None or value != value or value in ("", b""):  # a NaN differs from itself
        raise FewstepError(
            f"example {_first(value, values)} has no label ({_shown(value)}); give it one, or pass "
            "labels=False (--no-labels)"
        )
    if isinstance(value, (str, bytes)):
        _check_text(value, values)
        return None
    if not isinstance(value, (int, float)) or value in (np.inf, -np.inf) or value != int(value):
        raise _no_class(_first(value, values), value)
    if value < 0:
        raise FewstepError(
            f"labels are counted from 0, but example {_first(value, values)} has {int(value)}; "
            "pass labels=False (--no-labels) where this split carries none"
        )
    return int(value)


def _check_text(value: str | bytes, values: list[Any]) -> None:
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            raise _no_class(_first(value, values), value) from None


def _first(value: Any, values: list[Any]) -> int:
    return next(i for i, other in enumerate(values) if other is value or other == value)


def _no_class(index: int, value: Any) -> FewstepError:
    return FewstepError(
        f"example {index} has label {_shown(value)} ({type(value).__name__}), which is no class: "
        "labels are text, whole numbers or truth values; pass labels=False (--no-labels) to leave "
        "them out"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
