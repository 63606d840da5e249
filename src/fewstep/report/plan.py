"""What the short reproduction trains, and which lines its table has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fewstep.stages.stage import Stage, Training

SAMPLED = "Diffusion + samplers"
DISTILLED = "Diffusion + distillation"
DIRECT = "Direct generation"


@dataclass(frozen=True)
class Row:
    """One line of the table: a trained model and a way to sample it.

    Args:
        group: heading it stands under, after Table 1 of Song et al. 2023.
        method: name in the table.
        stage: the training it comes from.
        steps: solver steps of a diffusion model, evaluations of a consistency model; None where
            ``nfe`` says it, or where the solver chooses them itself.
        solver: solver of a diffusion model, as a spec; default heun.
        sampler: spec of the sampler, where it is not the model's own.
        nfe: network evaluations to spend exactly, instead of ``steps``.
        published: the line of the paper's table that it stands for: method and evaluations.
        grid: spec of the solver's time grid, where it is not that of its paper.
    """

    group: str
    method: str
    stage: str
    steps: int | None = None
    solver: str | None = None
    nfe: int | None = None
    sampler: str | None = None
    published: tuple[str, int] | None = None
    grid: str | None = None

    @property
    def key(self) -> str:
        """Unique in the table; names files."""
        how = slug(self.sampler or self.solver or "heun")
        where = "" if self.grid is None else f"-{slug(self.grid)}"
        count = "own" if self.count is None else self.count[1]
        return f"{self.stage}-{how}{where}-{count}"

    @property
    def count(self) -> tuple[str, int] | None:
        """The flag of the command line that says how long to sample, and its value."""
        if self.nfe is not None:
            return "--nfe", self.nfe
        return None if self.steps is None else ("--steps", self.steps)

    @property
    def options(self) -> list[str]:
        """The options of ``fewstep evaluate`` for this line."""
        given = {"--sampler": self.sampler, "--solver": self.solver, "--grid": self.grid}
        chosen = [w for flag, spec in given.items() if spec for w in (flag, _quoted(spec))]
        return chosen + ([] if self.count is None else [self.count[0], str(self.count[1])])


def slug(text: str) -> str:
    """A part of a file name: letters, digits and points, with dashes between."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")


def _quoted(spec: str) -> str:
    return f'"{spec}"' if "(" in spec else spec


@dataclass(frozen=True)
class Plan:
    """A reproduction.

    Args:
        stages: what is made, those that others need first.
        rows: the lines of the table, group by group.
        shown: keys of the rows whose samples stand in the page's first picture.
        curves: trainings whose curves are drawn.
    """

    stages: tuple[Stage, ...]
    rows: tuple[Row, ...]
    shown: tuple[str, ...]
    curves: tuple[str, ...] = ("edm", "ict", "cd", "ect", "ct")

    def stage(self, name: str) -> Stage:
        """The stage of a name."""
        return next(stage for stage in self.stages if stage.name == name)

    def all_required(self, name: str) -> Sequence[Stage]:
        """A stage and all that it builds on, each once, those needed first at the front."""
        found: dict[str, Stage] = {}
        for required in self.stage(name).requires:
            found |= {stage.name: stage for stage in self.all_required(required)}
        return [*found.values(), self.stage(name)]


SHORT = Plan(
    stages=(
        Training("edm", recipe="digits/edm"),
        Training("ict", recipe="digits/ict"),
        Training("cd", {"--teacher": "edm"}, "digits/cd"),
        Training("ect", {"--teacher": "edm"}, "digits/ect"),
        Training("ct", recipe="digits/ct"),
    ),
    rows=(
        Row(SAMPLED, "EDM, Heun", "edm", 18, published=("EDM", 36)),
        Row(SAMPLED, "EDM, Heun", "edm", 5),
        Row(SAMPLED, "EDM, Heun, grid straight", "edm", 3, grid="straight"),
        Row(SAMPLED, "EDM, Euler (DDIM)", "edm", 35, "euler"),
        Row(SAMPLED, "EDM, Euler (DDIM)", "edm", 10, "euler", published=("DDIM", 10)),
        Row(SAMPLED, "EDM, Euler (DDIM)", "edm", 4, "euler"),
        Row(DISTILLED, "CD", "cd", 1, published=("CD", 1)),
        Row(DISTILLED, "CD", "cd", 2, published=("CD", 2)),
        Row(DISTILLED, "CD", "cd", 4),
        Row(DISTILLED, "ECT", "ect", 1),
        Row(DISTILLED, "ECT", "ect", 2),
        Row(DISTILLED, "ECT", "ect", 4),
        Row(DIRECT, "iCT", "ict", 1),
        Row(DIRECT, "iCT", "ict", 2),
        Row(DIRECT, "iCT", "ict", 4),
        Row(DIRECT, "CT", "ct", 1, published=("CT", 1)),
        Row(DIRECT, "CT", "ct", 2, published=("CT", 2)),
    ),
    shown=(
        *("edm-heun-18", "edm-euler-4", "cd-heun-1", "cd-heun-2", "ect-heun-1", "ect-heun-2"),
        *("ict-heun-1", "ict-heun-2", "ct-heun-1", "ct-heun-2"),
    ),
)
