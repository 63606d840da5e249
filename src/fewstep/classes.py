"""What a class is: a name. Where a model, images, a reference or a user meet, classes agree by it.

Labels are numbers, and a number means something beside the names alone that it counts. Names that
differ only in how a text is encoded (Unicode) or in zeros before a number (``07`` and ``7``) are
the same. Classes that nobody named, as in an ``.npz``, are called by their numbers: against names
these can only be places in the list, and `Agreement.note` says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError, listed, unknown


def names_for(num_classes: int, names: Any = ()) -> tuple[str, ...]:
    """The names where there is one for each class, else the numbers."""
    given = tuple(names) if isinstance(names, list | tuple) else ()
    good = len(given) == num_classes and all(isinstance(name, str) for name in given)
    return given if good and len(set(given)) == num_classes else _places(num_classes)


def find_class(names: Sequence[str], label: str | int) -> int:
    """The number of the class that a user means by a name or a number.

    A name comes first. A number is otherwise the place in the list, counted from 0, but only where
    not every class is called by a number: among the classes 5 to 9, 0 is none.

    Raises:
        FewstepError: there is no such class; the nearest name is proposed.
    """
    if str(label) in names:
        return list(names).index(str(label))
    keys, key = _keys(names), _key(str(label))
    if key in keys:
        return keys.index(key)
    places = _places(len(names))
    if key in places and not all(map(_is_number, names)):
        return places.index(key)
    raise unknown("class", str(label), names)


@dataclass(frozen=True)
class Agreement:
    """How the classes of one side are called on the other.

    Args:
        theirs: names of the classes to translate.
        ours: names that they are translated to.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]

    @property
    def by_place(self) -> bool:
        """Whether one side has numbers for names, which can only be places in the other's list."""
        return not self._named and any(
            _are_places(a, b) for a, b in (self._sides, self._sides[::-1])
        )

    @cached_property
    def _named(self) -> dict[int, int]:
        """Pairs of equal names: their number to ours."""
        ours = {key: i for i, key in enumerate(_keys(self.ours))}
        return {i: ours[key] for i, key in enumerate(_keys(self.theirs)) if key in ours}

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Our number of each of their classes, -1 where we have none."""
        found = self._named
        if self.by_place:
            sides = [names if _all_numbers(names) else _places(len(names)) for names in self._sides]
            found = Agreement(*sides)._named
        return tuple(found.get(i, -1) for i in range(len(self.theirs)))

    @property
    def _sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.theirs, self.ours

    @property
    def missing(self) -> tuple[str, ...]:
        """Their classes that we do not have."""
        pairs = zip(self.theirs, self.numbers, strict=True)
        return tuple(name for name, number in pairs if number < 0)

    @property
    def same(self) -> bool:
        """Whether both sides have the same classes, in whatever order."""
        return not self.missing and len(self.theirs) == len(self.ours)

    @property
    def identical(self) -> bool:
        """Whether every number means the same on both sides."""
        return self.numbers == tuple(range(len(self.ours)))

    @property
    def note(self) -> str:
        """One sentence where the classes were taken in order, not by name; else empty."""
        if not self.by_place:
            return ""
        numbers, names = sorted(self._sides, key=_all_numbers, reverse=True)
        return (
            f"the classes {listed(numbers)} are numbers and {listed(names)} are names: each number "
            f"is taken for a place in the list, 0 for {names[0]}"
        )

    @property
    def merged(self) -> tuple[str, ...]:
        """Our classes in our order; where ours are but numbers, with the names that they have."""
        if not (self.by_place and _all_numbers(self.ours)):
            return self.ours
        names = dict(zip(self.numbers, self.theirs, strict=True))
        return tuple(names.get(i, name) for i, name in enumerate(self.ours))

    def translated(self, labels: Tensor) -> Tensor:
        """Their labels [N] in our numbers; -1 for a class that we do not have."""
        return torch.tensor(self.numbers, dtype=torch.int64)[labels.cpu()]

    def require(self, what: str, whose: str, labels: Tensor | None = None) -> None:
        """Raise `FewstepError` for classes of theirs that we do not have.

        Args:
            what: who they are, such as "the images photos/".
            whose: who we are, such as "the model runs/cats".
            labels: their labels; then only classes that occur count.
        """
        used = range(len(self.theirs)) if labels is None else labels.unique().tolist()
        if any(self.numbers[i] < 0 for i in used):
            raise FewstepError(
                f"{what} has the classes {listed(self.theirs)}, {whose} has {listed(self.ours)}: "
                "classes agree by name, and these do not."
            )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _all_numbers(names: Sequence[str]) -> bool:
    return bool(names) and all(map(_is_number, names))


def _places(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


def _are_places(numbers: Sequence[str], names: Sequence[str]) -> bool:
    """Whether numbers can be places in a list of names that are none."""
    if not _all_numbers(numbers) or any(map(_is_number, names)):
        return False
    return set(_keys(numbers)) <= set(_places(len(names)))


def _key(name: str) -> str:
    """What equal names have in common."""
    return (name.lstrip("0") or "0") if _is_number(name) else unicodedata.normalize("NFC", name)


def _keys(names: Sequence[str]) -> list[str]:
    """A key for each class: its name itself where two would have the same."""
    keys = [_key(name) for name in names]
    return keys if len(set(keys)) == len(keys) else list(names)
