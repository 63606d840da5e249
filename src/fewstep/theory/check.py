"""What a measurement of a statement is: lines with a slope, values with a bound, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOOR = 1e-12
"""Errors below it are rounding of float64 numbers of order 1, and do not count in a slope."""


@dataclass(frozen=True)
class Line:
    """An error against a step, and the power with which it must fall.

    Args:
        name: name in the legend.
        h: the steps, or numbers of samples.
        error: the error at each.
        expected: slope of log error against log h that the statement asserts.
        tolerance: how far the measured slope may be from it.
        control: a case where the statement is known not to hold, and the slope another.
    """

    name: str
    h: tuple[float, ...]
    error: tuple[float, ...]
    expected: float
    tolerance: float
    control: bool = False

    @property
    def slope(self) -> float:
        """Least squares over the last four points that are above rounding; NaN without two."""
        points = [(h, e) for h, e in zip(self.h, self.error, strict=True) if e > FLOOR][-4:]
        if len(points) < 2 or not np.isfinite(points).all():
            return math.nan
        h, error = np.log(points).T
        return float(np.polyfit(h, error, 1)[0])

    @property
    def passed(self) -> bool:
        return abs(self.slope - self.expected) <= self.tolerance


@dataclass(frozen=True)
class Bound:
    """A value that must not exceed a limit.

    Args:
        name: what it is.
        value: as measured.
        limit: the largest that passes.
    """

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value <= self.limit


@dataclass(frozen=True)
class Check:
    """One statement of the paper, and what was measured of it.

    Args:
        key: short name; names files.
        title: heading.
        statement: what the paper says, in words.
        formula: the same as a formula, one or more lines of text.
        known: what is known exactly, and why.
        measured: what was measured, and how.
        lines: errors that must fall with a given slope.
        bounds: values that must be small.
        h: name of the horizontal axis.
        error: name of the vertical axis.
    """

    key: str
    title: str
    statement: str
    formula: str
    known: str
    measured: str
    lines: Sequence[Line]
    bounds: Sequence[Bound] = ()
    h: str = "Δt"
    error: str = "error"

    @property
    def passed(self) -> bool:
        return all(x.passed for x in self.lines) and all(b.passed for b in self.bounds)
