"""How a user says how long something may take, and how that is said again."""

from __future__ import annotations

import re

from fewstep.errors import FewstepError

UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
"""Seconds of each unit, from the longest on."""
LONGEST = 365 * UNITS["d"]
_PART = r"(?:(\d+(?:\.\d+)?){})?"
_WRITTEN = re.compile("".join(_PART.format(unit) for unit in UNITS))


def parse_budget(text: str) -> float:
    """Seconds of a time such as ``30m``, ``1h30m``, ``90s`` or ``1.5h``.

    Args:
        text: numbers with the units d, h, m and s, from the longest unit to the shortest.

    Raises:
        FewstepError: anything else, a number without a unit, or no time at all.
    """
    written = "".join(text.split()).lower()
    if re.fullmatch(r"\d+(\.\d+)?", written) and float(written):
        raise FewstepError(
            f"the budget {text!r} has no unit: write {written}m for minutes, {written}h for hours."
        )
    found = _WRITTEN.fullmatch(written)
    if not written or found is None:
        raise FewstepError(f"a budget is a time such as 30m, 1h30m or 90s, not {text!r}.")
    seconds = sum(
        float(n) * UNITS[unit] for n, unit in zip(found.groups(), UNITS, strict=True) if n
    )
    if not 0 < seconds <= LONGEST:
        raise FewstepError(f"a budget is more than 0 s and at most 365d, not {text!r}.")
    return seconds


def duration(seconds: float) -> str:
    """The same in words that `parse_budget` reads: ``1h30m``, ``12m``, ``90s``, ``7s``."""
    whole = round(seconds)
    if whole < 2 * UNITS["m"]:
        return f"{whole}s"
    minutes = round(seconds / UNITS["m"])
    hours, rest = divmod(minutes, 60)
    return f"{hours}h" * bool(hours) + f"{rest}m" * bool(rest)
