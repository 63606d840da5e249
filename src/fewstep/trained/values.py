"""What the fields of a record may be."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fewstep.errors import FewstepError, unknown

STARTS = ("any", "T", "steps", "prior")
ENDS = ("denoiser", "eps", "any", "image")


def check_starts(starts: object) -> None:
    """Raise `FewstepError` unless these are times that a map may start at."""
    if isinstance(starts, str):
        if starts not in STARTS:
            raise unknown("start of a map, trained.starts", starts, STARTS)
    elif not (isinstance(starts, tuple) and starts and all(map(is_number, starts))):
        raise FewstepError(
            f"trained.starts must be {', '.join(STARTS)} or times, got {starts!r:.60}"
        )


def checked_taus(taus: object) -> dict[str, tuple[float, ...]]:
    """Time points by the number of steps: ``n - 1`` of them for ``n`` steps.

    Raises:
        FewstepError: anything else.
    """

    def fits(steps: object, points: object) -> bool:
        return (
            isinstance(steps, str)
            and steps.isdecimal()
            and isinstance(points, (list, tuple))
            and len(points) == int(steps[:9]) - 1
            and all(map(is_number, points))
        )

    if not (isinstance(taus, Mapping) and all(fits(*item) for item in taus.items())):
        raise FewstepError(
            "taus must be lists of n - 1 time points by the number of steps n, "
            f'{{"2": [0.8]}}, got {taus!r:.60}'
        )
    return {steps: tuple(map(float, points)) for steps, points in taus.items()}


def checked_names(names: object) -> tuple[str, ...]:
    """Names of classes.

    Raises:
        FewstepError: anything else.
    """
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise FewstepError(f"classes must be a list of names, got {names!r:.60}")
    return tuple(names)


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no truth value."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and -math.inf < value < math.inf  # type: ignore[operator]


def is_weight(value: object) -> bool:
    """Whether it is a guidance weight, a number from 0 on."""
    return is_number(value) and value >= 0  # type: ignore[operator]


def is_range(value: object) -> bool:
    """Whether it is a lowest and a highest weight."""
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(is_weight, value))
    return pair and value[0] <= value[1]  # type: ignore[index]


def is_count(value: object, least: int) -> bool:
    """Whether it is a whole number of at least ``least``, or None."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and value >= least)  # type: ignore[operator]
