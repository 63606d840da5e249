"""`fewstep reproduce`: from nothing to a report on images, in parts that are never done twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.distributed import pick_device
from fewstep.evaluation import train_classifier
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.recipes import RECIPES
from fewstep.report import editing, figures
from fewstep.report.digits import Digits
from fewstep.report.page import by_group, machine, write_csv, write_page
from fewstep.report.plan import SAMPLED, SHORT, Plan, slug
from fewstep.report.scoring import Result, Scoreboard, samples
from fewstep.report.story import GAUSSIAN, REAL, Section, Story, labels_of
from fewstep.report.table import Table
from fewstep.runs.components import objective_of
from fewstep.runs.directory import MODEL, check_free
from fewstep.stages.clock import ALL, CLOCK, Clock
from fewstep.stages.how import USUAL, How
from fewstep.stages.stage import Training
from fewstep.stages.stages import Stages


@dataclass(frozen=True)
class Report:
    """Where the report is, and what it says."""

    page: Path
    results: tuple[Result, ...]
    R: float
    seconds: float
    table: Table


def reproduce_digits(
    directory: Path,
    plan: Plan = SHORT,
    how: How = USUAL,
) -> Report:
    """Train a plan's models on the digits, sample, score, and write the report.

    What a former call has finished is not done again; an interrupted training is taken up.

    Args:
        directory: where everything goes.
        plan: what to train and sample.
        how: the trainings are run.

    Raises:
        FewstepError: the folder is not writable, or was made with another `shorten`.
    """
    check_free(directory, CLOCK)
    with locked(directory):
        return tell(directory, Digits(plan), how)


def tell(
    directory: Path,
    story: Story,
    how: How = USUAL,
) -> Report:
    """Train the models of a story's plan, sample, score, and write the report.

    Args:
        directory: where everything goes, locked by the caller.
        story: the images, what to make of them, and how to say what came out.
        how: the trainings are run.
    """
    clock, plan = Clock(directory), story.plan
    with clock.running(ALL):
        Stages(plan.stages, directory, clock, how).run()
        network = train_classifier(story.train.images, labels_of(story.train))
        evaluator = story.evaluator(network)
        board = Scoreboard(
            evaluator, directory, pick_device(how.device), n=story.samples, sheet=story.sheet
        )
        results = [*story.baselines(evaluator), *board.results(plan.rows)]
        f, teacher = (FlowMap.load(directory / name / MODEL) for name in story.edited_by)
        edits = story.edits(f, teacher, network)
        edits.run()
        more = story.more(board)
    return _write(directory, story, board, results, edits, more, clock)


def _write(
    directory: Path,
    story: Story,
    board: Scoreboard,
    results: Sequence[Result],
    edits: editing.Edits,
    more: Sequence[Section],
    clock: Clock,
) -> Report:
    plan = story.plan
    R = next(r.scores.fd for r in results if r.method == GAUSSIAN)
    pictures = {
        "comparison": figures.comparison(
            _strips(directory, plan, results), "One noise per column, ten classes"
        ),
        **_quality(results, R),
        "curves": figures.curves(directory, plan.curves),
    }
    named = {r.key: f"{r.method}, NFE {r.nfe}" for r in results if r.key}
    grids = {named[row.key]: board.grid(row).read_bytes() for row in plan.rows}
    edited = _edited(edits)
    shown = {name: png for section in more for name, png in section.pictures.items()}
    for name, png in {**pictures, **edited, **shown}.items():
        (directory / f"{name}.png").write_bytes(png)
    write_csv(directory / "table.csv", results, R)
    table = Table(plan, results, R, directory, clock)
    if story.papers:
        table.write(directory / "table.md")
    editing.write_csv(directory / "editing.csv", edits.results)
    trainings = [stage for stage in plan.stages if isinstance(stage, Training)]
    page = directory / "report.html"
    write_page(
        page,
        pictures,
        grids,
        title=story.title,
        lead=story.lead(results, R),
        caption=story.caption,
        groups=by_group(results),
        R=R,
        how=story.how(results, R),
        trainings=[_training(stage, directory, clock) for stage in trainings],
        remarks=story.remarks(results, R),
        expected=story.expected,
        relations=table.relations() if story.papers else story.targets(results, R),
        edits=groupby(edits.results, key=lambda r: r.task),
        edited=edited,
        edits_note=story.edits_note,
        shortfalls=editing.shortfalls(edits.results),
        more=more,
        sheet_width=story.sheet_width,
        machine=f"{machine()}. All of this took {clock[ALL]:.0f} s, trainings side by side.",
    )
    return Report(page, tuple(results), R, clock[ALL], table)


def _edited(edits: editing.Edits) -> dict[str, bytes]:
    title = "From one seed (left) to another (right): CD, one evaluation per image"
    pictures = {"interpolation": figures.comparison(edits.interpolation(), title)}
    for task, strips in edits.pictures():
        pictures[slug(task)] = figures.comparison(strips, task.capitalize())
    return pictures


def _strips(directory: Path, plan: Plan, results: Sequence[Result]) -> Mapping[str, Tensor]:
    """Twenty samples per shown row, the classes in turn, all from the same noise."""
    found = {r.key: r for r in results}
    rows = {row.key: row for row in plan.rows}
    strips = {}
    for key in plan.shown:
        f = FlowMap.load(directory / rows[key].stage / MODEL)
        strips[f"{rows[key].method}, NFE {found[key].nfe}"] = samples(f, rows[key], 20)
    return strips


def _quality(results: Sequence[Result], R: float) -> dict[str, bytes]:
    """Fréchet distance against evaluations; of many rows, the samplers in a figure of their own."""
    real = next(r.scores.fd for r in results if r.method in REAL)
    if len(_series(results)) <= figures.LEGEND:
        return {"quality": figures.quality(_series(results), R, real)}
    few = [r for r in results if r.group != SAMPLED and (r.nfe or 0) <= 4]
    sampled = [r for r in results if r.group == SAMPLED or (r.nfe or 0) > 4]
    return {
        "quality": figures.quality(_series(few), R, real),
        "samplers": figures.quality(_series(sampled), R, real),
    }


def _series(results: Sequence[Result]) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for r in results:
        if r.nfe is not None:
            series.setdefault(r.method, []).append((r.nfe, r.scores.fd))
    return series


def _training(stage: Training, directory: Path, clock: Clock) -> dict[str, Any]:
    run = RECIPES[stage.recipe]()
    return {
        "name": stage.name,
        "objective": str(run.objective),
        "paper": objective_of(run).paper,
        "steps": stage.progress(directory).done,
        "seconds": clock[stage.name],
    }
