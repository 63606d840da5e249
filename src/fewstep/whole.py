"""Whole numbers, as Python's callers give them."""

from __future__ import annotations

import operator
from typing import Any

from fewstep.errors import FewstepError


def whole(value: Any, what: str) -> int:
    """A whole number of any type that is one: of Python, of numpy, or a tensor of one element.

    Args:
        value: what was given.
        what: is said of it in the message, such as "the number of samples".

    Raises:
        FewstepError: anything else, such as 2.5, "2" or None; also 2.0, which is a float.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise FewstepError(f"{what} must be a whole number, got {value!r}.") from None
