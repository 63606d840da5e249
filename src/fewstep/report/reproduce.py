"""`fewstep reproduce digits`: from nothing to the report, in parts that are never done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.data import Dataset, load, to_uint8
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, train_classifier
from fewstep.flow_map import FlowMap
from fewstep.objectives import OBJECTIVES
from fewstep.recipes import RECIPES
from fewstep.recipes.directory import MODEL
from fewstep.report import editing, figures
from fewstep.report.page import by_group, machine, write_csv, write_page
from fewstep.report.plan import ROWS, STAGES, Row
from fewstep.report.scoring import SEED, Result, Scoreboard
from fewstep.report.stages import Stages
from fewstep.sampling import sample, sampler_for
from fewstep.training.logbook import read_metrics

SHOWN = ("edm-heun-18", "edm-euler-4", "cd-heun-1", "cd-heun-2", "ect-heun-1", "ect-heun-2",
         "ict-heun-1", "ict-heun-2", "ct-heun-1", "ct-heun-2")  # fmt: skip
TEST, GAUSSIAN = "real test split", "class-wise pixel Gaussian"


@dataclass(frozen=True)
class Report:
    """Where the report is, and what it says."""

    page: Path
    results: tuple[Result, ...]
    R: float
    seconds: float


def reproduce_digits(
    directory: Path,
    *,
    workers: int | None = None,
    shorten: float = 1.0,
    device: str | None = None,
) -> Report:
    """Train EDM, CD, ECT, iCT and CT on the digits, sample, score, and write the report.

    What a former call has finished is not done again; an interrupted training is taken up.

    Args:
        directory: where everything goes.
        workers: trainings at a time; default one per core.
        shorten: factor on every training's steps.
        device: default a GPU where there is one.

    Raises:
        FewstepError: the folder is not writable, or was made with another `shorten`.
    """
    if not 0 < shorten <= 100:
        raise FewstepError(f"shorten must be a factor above 0, got {shorten}.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FewstepError(f"cannot write to {directory}: {error}.") from error
    with _clock(directory) as clock:
        stages = Stages(STAGES, directory, workers=workers, shorten=shorten, device=device)
        stages.run()
        train, test = load("digits"), load("digits", split="test")
        network = train_classifier(train.images, _labels(train))
        evaluator = Evaluator.of(network, train.images, _labels(train))
        board = Scoreboard(evaluator, directory, pick_device(device))
        results = [*_baselines(evaluator, test), *board.results(ROWS)]
        f, teacher = (FlowMap.load(directory / name / MODEL) for name in ("cd", "edm"))
        edits = editing.Edits(f, teacher, train, test, network)
        edits.run()
    return _write(directory, results, edits, clock["seconds"])


def _labels(data: Dataset) -> Tensor:
    if data.labels is None:
        raise FewstepError(f"{data.name} has no labels.")
    return data.labels


def _baselines(evaluator: Evaluator, test: Dataset) -> list[Result]:
    scores = evaluator.baselines(test.images, _labels(test))
    return [Result("Baselines", name, None, score) for name, score in scores.items()]


@contextmanager
def _clock(directory: Path) -> Iterator[dict[str, float]]:
    """Counts the seconds of all calls together, also of interrupted ones."""
    path = directory / "clock.json"
    before = json.loads(path.read_text())["seconds"] if path.is_file() else 0.0
    start, clock = time.perf_counter(), {"seconds": before}
    try:
        yield clock
    finally:
        clock["seconds"] = before + time.perf_counter() - start
        path.write_text(json.dumps(clock))


def _write(
    directory: Path, results: Sequence[Result], edits: editing.Edits, seconds: float
) -> Report:
    R = next(r.scores.fd for r in results if r.method == GAUSSIAN)
    real = next(r.scores.fd for r in results if r.method == TEST)
    pictures = {
        "comparison": figures.comparison(_strips(directory), "One noise per column, ten classes"),
        "quality": figures.quality(_series(results), R, real),
        "curves": figures.curves(directory, [stage.name for stage in STAGES]),
    }
    grids = {f"{r.method}, NFE {nfe_of(results, r)}": png for r, png in _grids(directory)}
    edited = _edited(edits)
    for name, png in {**pictures, **edited}.items():
        (directory / f"{name}.png").write_bytes(png)
    write_csv(directory / "table.csv", results, R)
    editing.write_csv(directory / "editing.csv", edits.results)
    page = directory / "report.html"
    write_page(
        page,
        pictures,
        grids,
        title="Consistency models on handwritten digits",
        lead=_lead(results, R),
        groups=by_group(results),
        R=R,
        how=_how(results, R),
        trainings=_trainings(directory),
        remarks=remarks(results, R),
        edits=groupby(edits.results, key=lambda r: r.task),
        edited=edited,
        shortfalls=editing.shortfalls(edits.results),
        machine=f"{machine()}. All of this took {seconds:.0f} s, trainings side by side.",
    )
    return Report(page, tuple(results), R, seconds)


def _edited(edits: editing.Edits) -> dict[str, bytes]:
    title = "From one seed (left) to another (right): CD, one evaluation per image"
    pictures = {"interpolation": figures.comparison(edits.interpolation(), title)}
    for number, (task, strips) in enumerate(edits.pictures(), 1):
        pictures[f"edit-{number}"] = figures.comparison(strips, task.capitalize())
    return pictures


def nfe_of(results: Sequence[Result], row: Row) -> int | None:
    """Network evaluations of a row."""
    return next(r.nfe for r in results if r.key == row.key)


def _samples(directory: Path, row: Row, n: int) -> Tensor:
    f = FlowMap.load(directory / row.stage / MODEL)
    return to_uint8(sample(f, n, sampler_for(f, row.steps, solver=row.solver), seed=SEED))


def _strips(directory: Path) -> Mapping[str, Tensor]:
    """Twenty samples per shown row, the classes in turn, all from the same noise."""
    shown = {row.key: row for row in ROWS if row.key in SHOWN}
    strips = {}
    for key in SHOWN:
        row = shown[key]
        f = FlowMap.load(directory / row.stage / MODEL)
        nfe = sampler_for(f, row.steps, solver=row.solver).nfe
        strips[f"{row.method}, NFE {nfe}"] = _samples(directory, row, 20)
    return strips


def _grids(directory: Path) -> Iterator[tuple[Row, bytes]]:
    folder = directory / "grids"
    folder.mkdir(exist_ok=True)
    for row in ROWS:
        png = figures.png_of(_samples(directory, row, 100), columns=10)
        (folder / f"{row.key}.png").write_bytes(png)
        yield row, png


def _series(results: Sequence[Result]) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for r in results:
        if r.nfe is not None:
            series.setdefault(r.method, []).append((r.nfe, r.scores.fd))
    return series


def _trainings(directory: Path) -> list[dict[str, Any]]:
    found = []
    for stage in STAGES:
        run = RECIPES[stage.recipe]()
        lines = [
            line for line in read_metrics(directory / stage.name) if "images_per_second" in line
        ]
        steps = [int(line["step"]) for line in lines]
        images = [(b - a) * run.training.batch for a, b in zip([0, *steps], steps, strict=False)]
        seconds = sum(n / line["images_per_second"] for n, line in zip(images, lines, strict=True))
        found.append(
            {
                "name": stage.name,
                "objective": str(run.objective),
                "paper": getattr(OBJECTIVES[run.objective.name], "paper", ""),
                "steps": steps[-1] if steps else 0,
                "seconds": seconds,
            }
        )
    return found


def _find(results: Sequence[Result], key: str) -> Result:
    return next(r for r in results if r.key == key)


def _lead(results: Sequence[Result], R: float) -> str:
    teacher, two = _find(results, "edm-heun-18"), _find(results, "cd-heun-2")
    return (
        "Five methods on scikit-learn's 8x8 digits, one small network. The diffusion model needs "
        f"{teacher.nfe} evaluations of it for a Fréchet distance of {teacher.scores.fd:.2f}; "
        f"distilled into a consistency model, two give {two.scores.fd:.2f}. R = {R:.2f} is the "
        "distance of a Gaussian fitted to the pixels of each class, which a generator has to beat "
        "to have shown anything."
    )


def _how(results: Sequence[Result], R: float) -> str:
    n = next(r.scores.n for r in results if r.nfe)
    test = next(r.scores.n for r in results if r.method == TEST)
    return (
        f"FD is the Fréchet distance to the {n} training images over the 32 features of a small "
        "digit classifier trained on them; IS, precision and recall (k = 3) use the same network. "
        f"Every generator made {n} images with the class counts of the training images; the real "
        f"test split has {test}, and a smaller sample has a slightly larger FD. Class is the share "
        "of images that the classifier takes for the class that was asked for. FD / R is in units "
        f"of the class-wise Gaussian's {R:.3f}. Sampling times include making the noise."
    )


def remarks(results: Sequence[Result], R: float) -> list[str]:
    """What the numbers of this run say, in sentences."""

    def fd(key: str) -> float:
        return _find(results, key).scores.fd

    def recall(key: str) -> float:
        return _find(results, key).scores.recall

    teacher, one = _find(results, "edm-heun-18"), _find(results, "cd-heun-1")
    speed = (teacher.seconds or 0) / (one.seconds or 1)
    return [
        f"CD makes an image in one evaluation at {fd('cd-heun-1') / R:.2f} R, {speed:.0f} times as "
        f"fast as its teacher with Heun's method at {fd('edm-heun-18') / R:.2f} R; the teacher's "
        f"own four Euler steps reach {fd('edm-euler-4') / R:.2f} R.",
        f"A second evaluation changes CD from {fd('cd-heun-1'):.2f} to {fd('cd-heun-2'):.2f}, ECT "
        f"from {fd('ect-heun-1'):.2f} to {fd('ect-heun-2'):.2f}, iCT from "
        f"{fd('ict-heun-1'):.2f} to {fd('ict-heun-2'):.2f}.",
        f"Plain CT, trained as in the paper, ends at {fd('ct-heun-1') / R:.2f} R in one step, "
        f"where iCT in as many steps reaches {fd('ict-heun-1') / R:.2f} R. What limits it is where "
        "it spends its loss: with neighbours chosen uniformly and a weight of 1, the small times "
        "at which strokes take their shape hardly count. docs/digits.md changes one thing at a "
        "time.",
        "FD alone rewards smoothing: a low FD with a low recall has lost variety. Recall at two "
        f"steps is {recall('cd-heun-2'):.2f} (CD), {recall('ect-heun-2'):.2f} (ECT), "
        f"{recall('ict-heun-2'):.2f} (iCT), against {recall('edm-heun-18'):.2f} for the teacher.",
        "One seed each: differences of a tenth of R are noise.",
    ]
