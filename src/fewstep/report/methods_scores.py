"""What was measured of every method, as a record that is stored, and tables are written from."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev

from fewstep.files import read_json, write_json
from fewstep.records import record_of

STORED = "methods_scores.json"
"""In this package: what the version's own command has measured."""
STEPS = (1, 2, 4)
PIXELS, LATENTS, DATA = "a diffusion model", "a diffusion model of latents", "data alone"
GROUPS = (PIXELS, LATENTS, DATA)
"""What methods begin with."""


@dataclass(frozen=True)
class Spread:
    """A number of each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds; None of one seed."""
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")


@dataclass(frozen=True)
class Sampled:
    """A model in so many steps.

    Args:
        steps: of its sampler.
        nfe: evaluations of the network for each image.
        fd: Fréchet distance of each seed.
        recall: of each seed.
    """

    steps: int
    nfe: int
    fd: Spread
    recall: Spread


@dataclass(frozen=True)
class Measured:
    """A method's line.

    Args:
        name: of the recipe within its family.
        summary: the first line of the recipe's docstring.
        remarks: the rest of it.
        objective: name.
        paper: of the objective.
        process: name.
        needs: of the objective, in words.
        begins: with what, one of `GROUPS`.
        steps: of its own training.
        cost: of a step, in evaluations of the network for each image of the batch.
        built_on: evaluations of the trainings that it builds on.
        seconds: of the processor, for the first seed's own training; 0 where they were not counted.
        seconds_before: likewise of those that it builds on.
        sampled: in every number of steps that it admits.
    """

    name: str
    summary: str
    remarks: str
    objective: str
    paper: str
    process: str
    needs: tuple[str, ...]
    begins: str
    steps: int
    cost: float
    built_on: float
    seconds: float
    seconds_before: float
    sampled: tuple[Sampled, ...]

    @property
    def spent(self) -> float:
        """Evaluations of its own training, for each image of a batch."""
        return self.steps * self.cost

    @property
    def seeds(self) -> int:
        return max(len(s.fd.values) for s in self.sampled)

    @property
    def best(self) -> Sampled:
        """The number of steps with the lowest mean distance."""
        return min(self.sampled, key=lambda s: s.fd.mean)

    def at(self, steps: int) -> Sampled | None:
        """What it has in so many steps."""
        return next((s for s in self.sampled if s.steps == steps), None)


@dataclass(frozen=True)
class Findings:
    """All that a reproduction has measured.

    Args:
        teacher: the diffusion model, in many steps.
        reference: CD, by which the compute of all is measured.
        methods: the others.
        R: Fréchet distance of the class-wise Gaussian.
        real: that of the test images.
        n: images of each score.
        machine: in words.
    """

    teacher: Measured
    reference: Measured
    methods: tuple[Measured, ...]
    R: float
    real: float
    n: int
    machine: str

    @property
    def all(self) -> tuple[Measured, ...]:
        """The teacher, the reference, and the others."""
        return (self.teacher, self.reference, *self.methods)

    @property
    def groups(self) -> dict[str, tuple[Measured, ...]]:
        """CD and the methods by what they begin with, the best of each group first."""
        few = (self.reference, *self.methods)
        return {
            group: tuple(sorted((m for m in few if m.begins == group), key=lowest))
            for group in GROUPS
        }

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Findings:
        """What was written.

        Raises:
            FewstepError: another file.
        """
        return read_json(path, lambda stored: record_of(cls, stored), "the scores of methods")


def lowest(method: Measured) -> float:
    """The lowest mean distance of a method, by which methods are ranked."""
    return method.best.fd.mean


def stored() -> Findings:
    """What this version's own command has measured."""
    return Findings.read(Path(str(files("fewstep.report").joinpath(STORED))))


def write_csv(path: Path, methods: Sequence[Measured]) -> None:
    """A line for each method and number of steps, for other programs."""
    names = ("name", "objective", "process", "steps", "cost", "spent", "built_on", "seconds")
    head = (*names, "sampling_steps", "nfe", "seeds", "fd", "fd_std", "recall")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for method in methods:
            of_it = [getattr(method, name) for name in names]
            for s in method.sampled:
                found = [s.steps, s.nfe, method.seeds, s.fd.mean, s.fd.std, s.recall.mean]
                writer.writerow([*of_it, *found])
