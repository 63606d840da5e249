"""`fewstep reproduce digits --methods`: every method since the paper, side by side.

First each method is trained once. The best of them, the diffusion model and CD are then trained
with further seeds, which begin with the same models as the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from fewstep.data import load
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, train_classifier
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.recipes import RECIPES
from fewstep.report import methods_figures as figures
from fewstep.report.methods_page import write_page
from fewstep.report.methods_plan import TEACHER, Method, methods, stages
from fewstep.report.methods_scores import (
    DATA,
    LATENTS,
    PIXELS,
    STEPS,
    Findings,
    Measured,
    Sampled,
    Spread,
    lowest,
    write_csv,
)
from fewstep.report.page import machine
from fewstep.report.plan import Row
from fewstep.report.scoring import Result, Scoreboard, grid_of
from fewstep.report.story import GAUSSIAN, TEST, labels_of
from fewstep.runs.components import objective_of
from fewstep.runs.directory import MODEL, check_free
from fewstep.sampling import sampler_for
from fewstep.stages.clock import ALL, CLOCK, Clock
from fewstep.stages.how import USUAL, How
from fewstep.stages.stages import Stages
from fewstep.training.metrics import read_metrics

SEEDS = 3
BEST = 10
"""How many methods are trained with further seeds: those whose lowest distance is lowest."""
MANY = 18  # Heun steps of the diffusion model: 35 evaluations


@dataclass(frozen=True)
class MethodsReport:
    """Where the page is, and what was measured."""

    page: Path
    findings: Findings
    pictures: Mapping[str, bytes]
    seconds: float


def reproduce_methods(
    directory: Path,
    *,
    only: Sequence[str] = (),
    how: How = USUAL,
) -> MethodsReport:
    """Train every method since the paper on the digits, score all, and write the page.

    What a former call has finished is not done again; an interrupted training is taken up.

    Args:
        directory: where everything goes; that of `reproduce_digits` shares what both train.
        only: names of methods, beside the diffusion model and CD; none is all.
        how: the trainings are run.

    Raises:
        FewstepError: the folder is not writable, or was made with another `shorten`; an unknown
            method.
    """
    plan = methods(only)
    check_free(directory, CLOCK)
    with locked(directory):
        made = _Reproduction(directory, plan, how)
        with made.clock.running(ALL):
            findings = made.run()
        return made.write(findings)


class _Reproduction:
    """The trainings and scores of a plan."""

    def __init__(self, directory: Path, plan: Sequence[Method], how: How) -> None:
        self.directory, self.plan, self.how = directory, plan, how
        self.clock = Clock(directory)

    def run(self) -> Findings:
        self._train(self.plan, 1)
        evaluator = self._evaluator()
        board = Scoreboard(evaluator, self.directory, pick_device(self.how.device))
        first = self._measured(board, self.plan, {})
        again = chosen(self.plan, first)
        self._train(again, SEEDS)
        seeds = {method.name: SEEDS for method in again}
        teacher, reference, *others = self._measured(board, self.plan, seeds)
        test = load("digits", split="test")
        baselines = evaluator.baselines(test.images, labels_of(test))
        return Findings(
            teacher,
            reference,
            tuple(sorted(others, key=lowest)),
            baselines[GAUSSIAN].fd,
            baselines[TEST].fd,
            evaluator.n,
            machine(),
        )

    def write(self, findings: Findings) -> MethodsReport:
        """Write what was measured, the pictures, and the page."""
        findings.write(self.directory / "methods.json")
        write_csv(self.directory / "methods.csv", findings.all)
        pictures = figures.pictures(findings, self._curves())
        for name, png in pictures.items():
            (self.directory / f"methods-{name}.png").write_bytes(png)
        page = self.directory / "methods.html"
        write_page(page, findings, pictures, self._grids(findings), self.clock[ALL])
        return MethodsReport(page, findings, pictures, self.clock[ALL])

    def _curves(self) -> dict[str, list[tuple[float, float]]]:
        """Evaluations spent and energy distance over the first seed's training, by method."""
        curves = {}
        for method in self.plan:
            lines = read_metrics(self.directory / method.training.name)
            before = method.built_on * self.how.shorten
            curves[method.name] = [
                (before + line["step"] * method.cost, line["energy_distance"])
                for line in lines
                if "energy_distance" in line
            ]
        return curves

    def _grids(self, findings: Findings) -> dict[str, bytes]:
        """Samples of each method's first seed, in two steps where it has them."""
        stages = {method.name: method.training.name for method in self.plan}
        grids = {}
        for method in findings.all:
            s = method.at(2) or method.sampled[0]
            picture = grid_of(self.directory, Row("", method.name, stages[method.name], s.steps))
            grids[f"{method.name}, {s.nfe} evaluations"] = picture.read_bytes()
        return grids

    def _train(self, plan: Sequence[Method], seeds: int) -> None:
        Stages(stages(plan, seeds), self.directory, self.clock, self.how).run()

    def _evaluator(self) -> Evaluator:
        train = load("digits")
        network = train_classifier(train.images, labels_of(train))
        return Evaluator.of(network, train.images, labels_of(train))

    def _measured(
        self, board: Scoreboard, plan: Sequence[Method], seeds: Mapping[str, int]
    ) -> list[Measured]:
        """Each method of a plan, with as many seeds as are said, or one."""
        rows = {method.name: self._rows(method, seeds.get(method.name, 1)) for method in plan}
        results = board.results([row for of_it in rows.values() for row in of_it])
        found = {result.key: result for result in results}
        return [self._measure(method, rows[method.name], found) for method in plan]

    def _rows(self, method: Method, seeds: int) -> list[Row]:
        trained = [method.seed(seed).name for seed in range(seeds)]
        f = FlowMap.load(self.directory / trained[0] / MODEL)
        return [
            Row("", method.name, name, steps) for steps in _steps(method, f) for name in trained
        ]

    def _measure(
        self, method: Method, rows: Sequence[Row], found: Mapping[str | None, Result]
    ) -> Measured:
        run, cls = method.run, objective_of(method.run)
        summary, _, rest = cleandoc(RECIPES[method.recipe].help).partition("\n")
        by_steps: dict[int, list[Result]] = {}
        for row in rows:
            assert row.steps is not None
            by_steps.setdefault(row.steps, []).append(found[row.key])
        return Measured(
            name=method.name,
            summary=summary,
            remarks=" ".join(rest.split()),
            objective=run.objective.name,
            paper=cls.paper,
            process=run.p.name,
            needs=cls.needs.words,
            begins=_begins(method),
            steps=method.training.total(self.how.shorten),
            cost=method.cost,
            built_on=method.built_on * self.how.shorten,
            seconds=self.clock.processor(method.training.name),
            seconds_before=sum(self.clock.processor(stage.name) for stage in method.before),
            sampled=tuple(_sampled(steps, results) for steps, results in by_steps.items()),
        )


def _begins(method: Method) -> str:
    """What a method begins with."""
    if not method.before:
        return DATA
    return LATENTS if method.decoded else PIXELS


def _steps(method: Method, f: FlowMap) -> list[int]:
    """The numbers of steps that a method is sampled in."""
    if method.recipe == TEACHER:
        return [MANY]
    admitted = []
    for steps in STEPS:
        with suppress(FewstepError):  # it was distilled for another number
            sampler_for(f, steps)
            admitted.append(steps)
    return admitted


def _sampled(steps: int, results: Sequence[Result]) -> Sampled:
    scores = [result.scores for result in results]
    fd = Spread(tuple(s.fd for s in scores))
    recall = Spread(tuple(s.recall for s in scores))
    return Sampled(steps, results[0].nfe or steps, fd, recall)


def chosen(plan: Sequence[Method], first: Sequence[Measured]) -> list[Method]:
    """The diffusion model, CD, and the methods that are trained with further seeds."""
    ranked = [m.name for m in sorted(first[2:], key=lowest)]
    names = {*(m.name for m in first[:2]), *ranked[:BEST]}
    return [method for method in plan if method.name in names]
