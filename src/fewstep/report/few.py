"""The page of `fewstep fit` and `fewstep distil`: a model of few steps beside one of many."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fewstep.data import to_uint8
from fewstep.evaluation.copies import Memorisation
from fewstep.flow_map import FlowMap
from fewstep.planning.measures import GAUSSIAN, TRAINING, Point, best_sampler
from fewstep.planning.plan import Plan, shown
from fewstep.report import figures
from fewstep.report.page import data_url, fill, machine
from fewstep.sampling import sample

SHEET, COLUMNS = 100, 20
NEIGHBOURS = 12
ENOUGH = 1.1  # times the lowest Fréchet distance that is as good as it


@dataclass(frozen=True)
class Page:
    """Where the page is, and what was measured."""

    path: Path
    model: Path
    points: tuple[Point, ...]
    R: float
    copies: Memorisation
    seconds: float


def write_few(
    plan: Plan,
    few: FlowMap,
    points: Sequence[Point],
    copies: tuple[Memorisation, Tensor],
    train: Tensor,
    *,
    how: str,
    notes: Sequence[str],
    model: Path,
    stages: Sequence[str],
    seconds: float,
) -> Page:
    """Write ``report.html`` and its pictures into a plan's folder.

    Args:
        plan: with its choices, and the title and first sentence of the page.
        few: the model of few steps.
        points: its scores and those of others.
        copies: how near its samples lie to training images, and these samples.
        train: the training images.
        how: how the scores were made.
        notes: sentences on what was done.
        model: file of the model.
        stages: folders of trainings whose curves are shown.
        seconds: that all of it took.
    """
    directory = plan.round.directory
    R = next(p.scores.fd for p in points if p.model == GAUSSIAN)
    real = next(p.scores.fd for p in points if p.model == TRAINING)
    sampler = best_sampler(few)
    pictures = {
        "samples": figures.png_of(to_uint8(sample(few, SHEET, sampler, seed=0)), COLUMNS),
        "comparison": figures.comparison(_strips(points), "One noise per column"),
        "quality": figures.quality(_series(points), R, real, "training images"),
        "neighbours": neighbours(copies, train),
        "curves": figures.curves(directory, stages),
    }
    for name, png in pictures.items():
        (directory / f"{name}.png").write_bytes(png)
    steps = f"{sampler.nfe} network evaluation{'s' * (sampler.nfe != 1)} each"
    fill(
        directory / "report.html",
        "few.html",
        title=plan.title,
        lead=plan.lead,
        sheet=f"{SHEET} samples, {steps}, the first that come"
        + (", the classes in turn." if few.num_classes else "."),
        pictures={name: data_url(png) for name, png in pictures.items()},
        classes=bool(few.num_classes),
        points=points,
        R=R,
        how=how,
        advice=advice(points),
        commands=commands(model, few),
        memorisation=copies[0].sentence(),
        chosen=[(n, shown(c.value), c.why) for n, c in plan.choices.made.items()],
        said=[*plan.said, *notes],
        machine=f"{machine()}. All of this took {seconds:.0f} s.",
    )
    return Page(directory / "report.html", model, tuple(points), R, copies[0], seconds)


def _strips(points: Sequence[Point]) -> Mapping[str, Tensor]:
    return {f"{p.model}, NFE {p.nfe}" if p.nfe else p.model: p.strip for p in points}


def _series(points: Sequence[Point]) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for p in points:
        if p.nfe:
            series.setdefault(p.model, []).append((p.nfe, p.scores.fd))
    return series


def neighbours(copies: tuple[Memorisation, Tensor], train: Tensor) -> bytes:
    """Samples most like copies above, the training image of each below."""
    found, samples = copies
    pairs = found.pairs(NEIGHBOURS)
    above, below = torch.tensor(pairs).T
    return figures.png_of(torch.cat([samples[above], train[below]]), columns=len(pairs))


def advice(points: Sequence[Point]) -> list[str]:
    """What to use when, by the scores."""
    made = [p for p in points if p.nfe]
    few = min((p for p in made if p.nfe <= 4), key=lambda p: p.scores.fd, default=None)
    many = min((p for p in made if p.nfe > 4), key=lambda p: p.scores.fd, default=None)
    one = next((p for p in made if p.nfe == 1), None)
    R = next(p.scores.fd for p in points if p.model == GAUSSIAN)
    lines = []
    if few is not None and many is not None:
        ratio = few.scores.fd / max(many.scores.fd, 1e-9)
        times = many.seconds / max(few.seconds, 1e-9)
        lines.append(
            f"For most uses {few.model} with {few.nfe} evaluations: {ratio:.2f} times the Fréchet "
            f"distance of {many.model} with {many.nfe}, and {times:.0f} times as fast."
        )
        if ratio > ENOUGH:
            lines.append(
                f"Where quality counts more than time, {many.model} with {many.nfe} evaluations."
            )
    if one is not None and one is not few:
        lines.append(
            f"Where every millisecond counts, {one.model} in one evaluation: a Fréchet distance "
            f"of {one.scores.fd:.3g}."
        )
    best = min(made, key=lambda p: p.scores.fd)
    if best.scores.fd >= R:
        lines.append(
            "None of these is below R, which a model reaches that knows the mean and covariance "
            "of each class alone: give a longer --budget, or more images."
        )
    return lines


def commands(model: Path, few: FlowMap) -> list[str]:
    """How to use the model on the command line."""
    steps = [] if few.trained.steps is not None else ["--steps", "2"]
    sample = ["sample", str(model), "-n", "64", *steps]
    to = ["-o", "samples.png"]
    lines = [[*sample, *to]]
    if few.trained.classes:
        lines.append([*sample, "--label", few.trained.classes[0], *to])
    lines.append(["serve", str(model)])
    return [shlex.join(["fewstep", *line]) for line in lines]
