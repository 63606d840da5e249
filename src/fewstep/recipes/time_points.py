"""Time points of multistep sampling, found by greedy ternary search (Song et al. 2023, Section 3).

The points are found one after the other, each with the earlier ones fixed, by ternary search on
Karras' coordinate ``t^(1/rho)``: the interval between the last point and ``eps`` loses a third at
each comparison of two scores. Ternary search finds the minimum of a score with one valley.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization

RHO = 7.0
Score = Callable[[tuple[float, ...]], float]


def greedy_ternary_search(
    p: Parameterization, steps: int, rounds: int, score: Score
) -> list[float]:
    """The ``steps - 1`` time points after ``T``, decreasing.

    Args:
        p: gives ``T`` and ``eps``.
        steps: network evaluations, at least 2.
        rounds: comparisons per point; each takes two scores and a third of the interval.
        score: of the points so far; the smaller the better.
    """
    if steps < 2 or rounds < 1:
        raise FewstepError(f"need steps >= 2 and rounds >= 1, got {steps} and {rounds}.")
    taus: list[float] = []
    high = p.T ** (1 / RHO)
    for _ in range(steps - 1):
        a, b = p.t_min ** (1 / RHO), high
        for _ in range(rounds):
            left, right = a + (b - a) / 3, b - (b - a) / 3
            if score((*taus, left**RHO)) < score((*taus, right**RHO)):
                b = right
            else:
                a = left
        high = (a + b) / 2
        taus.append(high**RHO)
    return taus


class SearchState:
    """Scores that were computed, in a file, so that an interrupted search resumes.

    Args:
        path: the file.
        settings: what the scores depend on.

    Raises:
        FewstepError: the file is unreadable, or of a search with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self._known: dict[str, float] = {}
        if not path.is_file():
            return
        try:
            before = json.loads(path.read_text())
            same, self._known = before["settings"] == settings, before["scores"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FewstepError(
                f"cannot read {path} ({error!r}): delete it to start anew."
            ) from error
        if not same:
            raise FewstepError(
                f"{path} is of a search of another model or with other settings: "
                "delete it to start anew."
            )

    def score(self, taus: Sequence[float], compute: Callable[[], float]) -> float:
        """The score of these points, computed at most once."""
        key = " ".join(repr(tau) for tau in taus)
        if key not in self._known:
            self._known[key] = compute()
            write_json(self.path, {"settings": self.settings, "scores": self._known})
        return self._known[key]


def write_json(path: Path, value: Any) -> None:
    """Write JSON at once or not at all."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(value, indent=1))
        os.replace(partial, path)
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error}.") from error
