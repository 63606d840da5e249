"""`fewstep reproduce toy2d`: every objective on points of the plane, beside the exact map.

The plan names no method. It takes the recipes of `fewstep.recipes.toy2d` and finds what each needs
by what its objective declares: a diffusion model of the same process, or pairs of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fewstep.errors import unknown
from fewstep.files import read_json, write_json
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.needs import FixedPoint, TeacherUse
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.progress import progress
from fewstep.recipes import toy2d as recipes
from fewstep.report import toy2d_figures as figures
from fewstep.report.page import data_url, fill, machine
from fewstep.report.toy2d_scores import Score, floor, samplers_of, score
from fewstep.runs.components import make_p
from fewstep.runs.directory import MODEL, check_free
from fewstep.stages.clock import ALL, CLOCK, Clock
from fewstep.stages.how import USUAL, How
from fewstep.stages.stage import Pairs, Stage, Training
from fewstep.stages.stages import Stages

BANDS = "toy2d_bands.json"
SCORES = "scores.json"
WIDE = 3  # standard deviations
LEAST = 0.1  # of the mean: what a standard deviation over three seeds is taken to be at least


@dataclass(frozen=True)
class Method:
    """An objective on the plane.

    Args:
        name: of the objective.
        scores: with each of its samplers.
        left: the numbers of steps whose score is outside what is expected.
        known: whether an expectation is stored.
    """

    name: str
    scores: tuple[Score, ...]
    left: tuple[int, ...] = ()
    known: bool = True

    @property
    def cls(self) -> type[Objective[Any]]:
        return OBJECTIVES[self.name]

    @property
    def summary(self) -> str:
        """The first line of the objective's docstring."""
        return (self.cls.__doc__ or "").split("\n", 1)[0]

    @property
    def paper(self) -> str:
        return self.cls.paper

    @property
    def recipe(self) -> str:
        return recipes.name_of(self.name)

    def at(self, steps: int) -> Score | None:
        """The score in so many steps."""
        return next((s for s in self.scores if s.steps == steps), None)


@dataclass(frozen=True)
class ToyReport:
    """Where the page is, and what was measured."""

    page: Path
    methods: tuple[Method, ...]
    floor: float
    seconds: float

    @property
    def left(self) -> tuple[Method, ...]:
        """The methods that have left their band."""
        return tuple(method for method in self.methods if method.left)


def plan(only: Sequence[str] = (), seed: int = 0) -> tuple[Stage, ...]:
    """The stages, those that others need first.

    Args:
        only: names of objectives; none is all.
        seed: of every training.

    Raises:
        FewstepError: an objective that the plane does not have.
    """
    for name in only:
        if name not in recipes.OBJECTIVES:
            raise unknown("objective of toy2d", name, recipes.OBJECTIVES)
    stages: dict[str, Stage] = {}
    for name in only or recipes.OBJECTIVES:
        for stage in _stages(name, seed):
            stages.setdefault(stage.name, stage)
    return tuple(stages.values())


def _stages(name: str, seed: int) -> list[Stage]:
    """An objective's training, after all that it needs."""
    needs, before, given = OBJECTIVES[name].needs, list[Stage](), dict[str, str]()
    if needs.teacher is not TeacherUse.NONE or needs.columns:
        teacher = _teacher(name)
        before += _stages(teacher, seed)
        if needs.teacher is not TeacherUse.NONE:
            given["--teacher"] = teacher
        if needs.columns:
            states = 4 if "trajectory" in needs.columns else 0
            pairs = f"{'trajectories' if states else 'pairs'}-{teacher}"
            before.append(Pairs(pairs, model=teacher, trajectory=states))
            given["--data"] = pairs
    options = ("--seed", str(seed)) if seed else ()
    return [*before, Training(name, given, recipes.name_of(name), options)]


def _teacher(name: str) -> str:
    """The model that an objective learns from: one of its process, else EDM's diffusion model."""
    process = make_p(recipes.run_of(name)).process
    refines = OBJECTIVES[name].needs.teacher is TeacherUse.REFINE
    known = [other for other in recipes.OBJECTIVES if _is_teacher(other, refines)]
    alike = [n for n in known if make_p(recipes.run_of(n)).process.same(process)]
    return (alike or known)[0]


def _is_teacher(name: str, consistency: bool) -> bool:
    """Whether an objective makes diffusion models of the data, or consistency models."""
    cls = OBJECTIVES[name]
    if consistency:
        made = cls.makes
        whole = made.maps_to_eps and made.from_any_time
        return whole and cls.needs.teacher is TeacherUse.START
    from_data = cls.needs.teacher is TeacherUse.NONE and not cls.needs.columns
    return cls.fixed_point is FixedPoint.DENOISER and from_data


def reproduce_toy2d(
    directory: Path,
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    how: How = USUAL,
) -> ToyReport:
    """Train objectives on the plane, score them against the exact map, and write the page.

    What a former call has finished is not done again; an interrupted training is taken up.

    Args:
        directory: where everything goes.
        only: names of objectives, and what they need; none is all.
        seed: of every training.
        how: the trainings are run.

    Raises:
        FewstepError: the folder is not writable, or was made with another `shorten`; an unknown
            objective.
    """
    stages = plan(only, seed)
    check_free(directory, CLOCK)
    with locked(directory):
        clock = Clock(directory)
        with clock.running(ALL):
            Stages(stages, directory, clock, how).run()
            names = [stage.name for stage in stages if isinstance(stage, Training)]
            methods = _scored(directory, names, compare=how.shorten == 1)
            return _write(directory, methods, clock)


def _scored(directory: Path, names: Sequence[str], compare: bool) -> tuple[Method, ...]:
    bands = expected() if compare else {}
    methods = []
    with progress("scores", len(names)) as advance:
        for name in names:
            f = _model(directory, name)
            scores = tuple(score(f, steps, sampler) for steps, sampler in samplers_of(f))
            band = bands.get(name, {})
            left = tuple(s.steps for s in scores if _outside(s, band))
            methods.append(Method(name, scores, left, bool(band)))
            advance(1)
    record = {method.name: [asdict(s) for s in method.scores] for method in methods}
    write_json(directory / SCORES, record)
    return tuple(methods)


def _model(directory: Path, name: str) -> FlowMap:
    return FlowMap.load(directory / name / MODEL)


Band = dict[str, tuple[float, float]]
"""Mean and standard deviation of the distance over seeds, by the number of steps."""


def expected() -> dict[str, Band]:
    """The stored bands of each objective, where they are of these very trainings."""
    path = Path(str(files("fewstep.report").joinpath(BANDS)))
    stored = read_json(path, dict, "the expected scores")
    return stored["bands"] if stored["of"] == setting() else {}


def setting() -> dict[str, Any]:
    """What decides the trainings, as JSON."""
    shape = {"width": recipes.WIDTH, "blocks": recipes.BLOCKS}
    return {"evaluations": recipes.EVALUATIONS, "batch": recipes.TRAINING.batch, **shape}


def _outside(s: Score, band: Band) -> bool:
    if str(s.steps) not in band:
        return False
    mean, std = band[str(s.steps)]
    return abs(s.distance - mean) > WIDE * max(std, LEAST * mean)


def _write(directory: Path, methods: tuple[Method, ...], clock: Clock) -> ToyReport:
    report = ToyReport(directory / "report.html", methods, floor(), clock[ALL])
    pictures = {"paths": figures.paths(), "density": figures.density()}
    pictures |= {m.name: figures.method(_model(directory, m.name)) for m in methods}
    pictures["quality"] = figures.quality(methods, report.floor)
    folder = directory / "pictures"
    folder.mkdir(exist_ok=True)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    fill(
        report.page,
        "toy2d.html",
        methods=methods,
        left=report.left,
        floor=report.floor,
        evaluations=recipes.EVALUATIONS,
        batch=recipes.TRAINING.batch,
        pictures={name: data_url(png) for name, png in pictures.items()},
        machine=f"{machine()}. Made in {report.seconds:.0f} s.",
    )
    return report
