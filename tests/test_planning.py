"""What the planner knows of time: budgets, and how long a step takes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewstep.data import Dataset
from fewstep.errors import FewstepError
from fewstep.planning.budget import duration, parse_budget
from fewstep.planning.throughput import seconds_per_step
from fewstep.planning.trainings import Settings, paced
from fewstep.recipes import RECIPES
from fewstep.training.trainer import Trainer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30m", 1800), ("1h30m", 5400), ("90s", 90), ("1h", 3600), ("1.5h", 5400)),
        *((" 2H 5s ", 7205), ("1d", 86400), ("0.5m", 30)),
    ],
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "-5m", "0", "0.0", "0s", "30x", "1m1h", "nan", "1e3s", "900d"]
)
def test_what_is_no_budget_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FewstepError, match="budget") as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)
    assert "0m" not in str(caught.value).replace("30m", "")


def test_a_number_alone_may_mean_minutes_or_hours() -> None:
    with pytest.raises(FewstepError, match="write 30m for minutes"):
        parse_budget("30")


@pytest.mark.parametrize("seconds", [7, 90, 600, 3600, 5400, 86400])
def test_a_duration_is_read_as_it_is_written(seconds: float) -> None:
    assert parse_budget(duration(seconds)) == seconds


@pytest.mark.parametrize("recipe", ["digits/edm", "digits/cd", "digits/dfno", "digits/tcm"])
def test_a_step_is_timed_without_its_teacher_or_pairs(recipe: str) -> None:
    run = RECIPES[recipe](batch=4)
    data = Dataset.from_arrays(torch.zeros(12, 8, 8, dtype=torch.uint8), [0, 1, 2] * 4)
    state = torch.get_rng_state()
    assert 0 < seconds_per_step(run, data, device="cpu", threads=1, seconds=0) < 5
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_is_the_median_of_those_that_are_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    took = iter([9.0, 9.0, 1.0, 5.0, 1.0, 1.0])
    now = [0.0]
    asked = []

    def step(self: Trainer, k: int) -> None:
        asked.append(k)
        now[0] += next(took)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    run = RECIPES["digits/ect"](steps=100)
    run = replace(run, data=replace(run.data, labels=False))
    data = Dataset.from_arrays(torch.zeros(12, 8, 8, dtype=torch.uint8))
    assert seconds_per_step(run, data, device="cpu", seconds=7.5) == 1.0
    assert asked == [50] * 6


@pytest.mark.parametrize("steps", [1, 19, 59, 1234, 99_999])
def test_every_preview_of_a_planned_training_is_saved(steps: int, tmp_path: Path) -> None:
    every = paced(Settings("ect", "unet", {}), steps, tmp_path).others
    assert every["sample_every"] % every["checkpoint_every"] == 0
    assert 5 <= steps / every["sample_every"] < 7 or steps < 20
