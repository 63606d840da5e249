"""The search of time points: finds a known optimum, resumes, refuses foreign states."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fewstep.cli.tune_steps import counts_of
from fewstep.errors import FewstepError
from fewstep.parameterization import EDM
from fewstep.recipes.time_points import SearchState, greedy_ternary_search

BEST = (5.0, 0.8)


def valley(taus: tuple[float, ...]) -> float:
    return sum(abs(math.log(tau / best)) for tau, best in zip(taus, BEST, strict=False))


def test_finds_each_point_of_a_known_optimum() -> None:
    taus = greedy_ternary_search(EDM(), 3, 30, valley)
    assert taus == pytest.approx(BEST, rel=1e-3)


def test_a_resumed_search_computes_nothing_again(tmp_path: Path) -> None:
    calls: list[tuple[float, ...]] = []

    def search() -> list[float]:
        state = SearchState(tmp_path / "state.json", {"model": "a"})

        def compute(taus: tuple[float, ...]) -> float:
            calls.append(taus)
            if len(calls) == 7:
                raise KeyboardInterrupt
            return valley(taus)

        return greedy_ternary_search(EDM(), 3, 6, lambda t: state.score(t, lambda: compute(t)))

    with pytest.raises(KeyboardInterrupt):
        search()
    resumed = search()
    assert resumed == greedy_ternary_search(EDM(), 3, 6, valley)
    assert len(calls) - 1 == len(set(calls))
    with pytest.raises(FewstepError, match="another model"):
        SearchState(tmp_path / "state.json", {"model": "b"})


@pytest.mark.parametrize("text", ["1", "1..3", "4..2", "two"])
def test_steps_that_have_no_time_points_are_refused(text: str) -> None:
    with pytest.raises(FewstepError, match="from 2 on"):
        counts_of(text)
