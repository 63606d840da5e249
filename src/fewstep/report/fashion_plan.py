"""What `fewstep reproduce fashion` trains within a budget, and for how many steps.

Three trainings have fixed shares of the time: the diffusion model, its distillation, and a flow map
from the data alone, which takes about as long as the other two together. So two workers are busy
from the first minute to the last. How many steps that is, a few timed steps of each tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fewstep.data import Dataset
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.files import read_json, write_json
from fewstep.planning.budget import duration
from fewstep.planning.shares import seconds_of
from fewstep.planning.throughput import fastest_precision, seconds_per_step
from fewstep.recipes import RECIPES
from fewstep.records import record_of
from fewstep.report.plan import DIRECT, DISTILLED, SAMPLED, Plan, Row
from fewstep.runs.run import Run
from fewstep.stages.how import cores
from fewstep.stages.stage import Training
from fewstep.training.config import Precision

PLAN = "plan.json"
BUDGET = {"cpu": 60 * 60.0, "cuda": 6 * 60.0, "mps": 30 * 60.0}
"""Seconds, by the kind of device, where no budget is given."""
SHARES = {"edm": 0.55, "cd": 0.45, "soflow": 1.0}
"""Of the trainings' time, that of the longest being 1."""
TRAINED = 0.75
"""Of the budget; the rest is for the classifier, samples, scores and edits."""
BESIDE = 1.1
"""By how much a step slows down when another training computes beside it."""
MEASURED = 90.0
"""Part of the budget, one in so many, for which each kind of step is timed."""
WARM_UP = 0.03
"""Part of a training in which its learning rate rises."""
LOOKS = 4
"""Times that a training shows samples and saves what it is; with a smaller budget fewer."""

GRID = "straight"
"""Of the diffusion model: in so few steps Karras' grid is far worse (docs/samplers.md)."""

ROWS = (
    Row(SAMPLED, "EDM, Heun", "edm", 9, grid=GRID),
    Row(SAMPLED, "EDM, Heun", "edm", 5, grid=GRID),
    Row(SAMPLED, "EDM, Heun", "edm", 3, grid=GRID),
    Row(SAMPLED, "EDM, Euler (DDIM)", "edm", 4, "euler", grid=GRID),
    *(Row(DISTILLED, "CD", "cd", steps) for steps in (1, 2, 4)),
    *(Row(DIRECT, "SoFlow", "soflow", steps) for steps in (1, 2, 4)),
)
SHOWN = (
    *("edm-heun-straight-9", "edm-heun-straight-5", "edm-heun-straight-3"),
    *("cd-heun-1", "cd-heun-2", "cd-heun-4", "soflow-heun-1", "soflow-heun-2", "soflow-heun-4"),
)


@dataclass(frozen=True)
class Layout:
    """How long a reproduction trains, as it was measured when it began.

    Args:
        budget: seconds for all of it.
        device: where it was measured.
        precision: of the trainings.
        steps: of each training.
        seconds: of a step of each, alone.
    """

    budget: float
    device: str
    precision: str
    steps: Mapping[str, int]
    seconds: Mapping[str, float]

    def plan(self, data: str) -> Plan:
        """The stages and rows.

        Args:
            data: the images, as ``--data`` of a training.
        """
        return Plan(
            stages=(
                self._training("edm", data),
                self._training("soflow", data),
                self._training("cd", data, {"--teacher": "edm"}),
            ),
            rows=ROWS,
            shown=SHOWN,
            curves=("edm", "cd", "soflow"),
        )

    def of(self, most: int, least: int) -> int:
        """A number that a smaller budget than the default makes smaller in proportion."""
        whole = BUDGET[self.device.partition(":")[0]]
        return max(least, min(most, round(most * self.budget / whole)))

    def _training(self, name: str, data: str, needs: Mapping[str, str] | None = None) -> Training:
        steps = self.steps[name]
        looks = str(-(-steps // self.of(LOOKS, 1)))
        options = {
            "--data": data,
            "--precision": self.precision,
            "--warmup": str(round(WARM_UP * steps)),
            "--sample-every": looks,
            "--samples": str(self.of(64, 16)),
            "--checkpoint-every": looks,
        }
        words = tuple(word for pair in options.items() for word in pair)
        return Training(name, needs or {}, f"fashion/{name}", words, steps)


def layout(
    directory: Path,
    images: Dataset,
    budget: float | None,
    *,
    workers: int | None,
    device: str | None,
) -> Layout:
    """How a reproduction was begun in a folder, or how to begin it there.

    Args:
        directory: of the reproduction.
        images: to learn from.
        budget: seconds for all of it; default that of the folder, else by the device.
        workers: trainings at a time; default one per core, on a GPU one.
        device: where; default a GPU where there is one.

    Raises:
        FewstepError: the folder is of another budget or device.
    """
    path = directory / PLAN
    if path.is_file():
        remedy = "Give another --out."
        found = read_json(path, lambda stored: record_of(Layout, stored), "a plan", remedy)
        if budget not in (None, found.budget):
            raise FewstepError(
                f"{directory} was begun with a budget of {duration(found.budget)}, not "
                f"{duration(budget)}: give that again, or another --out."
            )
        if device is not None and str(pick_device(device)) != found.device:
            raise FewstepError(
                f"{directory} was begun on {found.device}, where its steps were timed, not on "
                f"{device}: leave out --device, or give another --out."
            )
        return found
    made = _measured(images, budget, workers, device)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(made))
    return made


def _measured(
    images: Dataset, budget: float | None, workers: int | None, device: str | None
) -> Layout:
    place = str(pick_device(device))
    kind = place.partition(":")[0]
    budget = BUDGET[kind] if budget is None else budget
    at_once = workers_on(place, workers)
    threads = max(1, cores() // at_once)

    how: dict[str, Any] = {"threads": threads, "seconds": min(2.0, budget / MEASURED)}
    precision, of_edm = fastest_precision(_run("edm"), images, torch.device(place), **how)
    seconds = {"edm": of_edm}
    for name in ("cd", "soflow"):
        seconds[name] = seconds_per_step(_run(name, precision), images, device=place, **how)
    stages = [Training(name, {"t": "edm"} if name == "cd" else {}) for name in SHARES]
    trained = TRAINED * budget / (BESIDE if at_once > 1 else 1.0)
    given = seconds_of(stages, SHARES, trained, at_once)
    steps = {name: max(1, round(given[name] / seconds[name])) for name in SHARES}
    return Layout(budget, place, precision, steps, seconds)


def workers_on(device: str, workers: int | None) -> int:
    """Trainings at a time: as asked for, else one on a GPU and one per core of a CPU."""
    if workers is not None:
        return workers
    return min(cores(), len(SHARES)) if device.startswith("cpu") else 1


def _run(name: str, precision: Precision = "fp32") -> Run:
    run = RECIPES[f"fashion/{name}"]()
    return replace(run, training=replace(run.training, precision=precision))
