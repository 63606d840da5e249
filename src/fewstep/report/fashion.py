"""Fashion-MNIST: the second story, on real 28x28 pictures, as good as the time it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fewstep.data import Dataset, load
from fewstep.evaluation import Evaluator, class_gaussian
from fewstep.evaluation.classifier import Classifier
from fewstep.evaluation.copies import Memorisation, memorisation
from fewstep.evaluation.scores import Scores
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.planning.budget import duration
from fewstep.report import figures
from fewstep.report.editing import Edits
from fewstep.report.fashion_plan import PLAN, Layout, layout, workers_on
from fewstep.report.reproduce import Report, tell
from fewstep.report.scoring import Result, Scoreboard, samples
from fewstep.report.story import (
    BASELINES,
    GAUSSIAN,
    HELD_OUT,
    TRAINING,
    Section,
    Story,
    find,
    labels_of,
)
from fewstep.runs.directory import MODEL, check_free
from fewstep.stages.how import USUAL, How

NAME = "fashion-mnist"
EDITED = (100, 20)  # test images that are edited, with the default budget and the least
COMPARED = 10_000  # training images that baselines of an edit look at
BLURS = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5)
SHEET = (200, 50)  # samples in a picture of a row, likewise
SAMPLES = (2_000, 500)  # that are scored
NEIGHBOURS = 20  # samples in the picture of nearest training images
TEACHER, TEACHER_TARGET = "edm-heun-straight-9", 0.25
TEACHER_IN_FEW = "edm-heun-straight-3"
FEW_STEP = {"CD": "cd-heun", "SoFlow": "soflow-heun"}
CLOSE, RECALL, ACCURATE = 1.4, 0.6, 0.95  # what a few-step model should reach


def reproduce_fashion(
    directory: Path,
    data: str | None = None,
    budget: float | None = None,
    *,
    how: How = USUAL,
) -> Report:
    """Train a diffusion model and few-step models on Fashion-MNIST, score them, write the report.

    What a former call has finished is not done again; an interrupted training is taken up.

    Args:
        directory: where everything goes.
        data: a folder with the IDX files, or anything `fewstep.load` reads; default where the
            Debian package `dataset-fashion-mnist` puts them.
        budget: seconds for all of it; default an hour on a CPU, 6 minutes on a GPU.
        how: the trainings are run; by default one per core, on a GPU one.

    Raises:
        FewstepError: no such images; the folder is not writable, or was begun with another budget.
    """
    where = NAME if data is None else data
    train, test = load(where), load(where, split="test")
    for images in (train, test):
        labels_of(images)
    check_free(directory, PLAN)
    with locked(directory):
        made = layout(directory, train, budget, workers=how.workers, device=how.device)
        at_once = workers_on(made.device, how.workers)
        story = Fashion(made, where, train, test)
        return tell(directory, story, replace(how, workers=at_once, device=made.device))


class Fashion(Story):
    """Clothes, or other images of 28x28 pixels in classes, scored against the test images.

    Args:
        made: how long each training is.
        data: the images, as ``--data`` of a training.
        train, test: the same, in memory.
    """

    title = "Clothes in one step: consistency models on Fashion-MNIST"
    caption = (
        "CD starts from the diffusion model in the first rows and follows it; SoFlow never saw it."
    )
    expected = "What it should reach, with R as the measure:"
    edits_note = (
        "The feature distance is the mean distance in the 64 features of the classifier. The model "
        "is told each image's class, and so is the mean image; the other baselines have no use for "
        "it. The blur is the best of eight widths on training images."
    )
    sheet_width = "30rem"

    def __init__(self, made: Layout, data: str, train: Dataset, test: Dataset) -> None:
        self.made, self._train, self._test = made, train, test
        self.plan = made.plan(data)
        self.samples = self.n = min(made.of(*SAMPLES), len(test))
        self.sheet = made.of(*SHEET)

    @property
    def train(self) -> Dataset:
        return self._train

    @property
    def test(self) -> Dataset:
        return self._test

    def evaluator(self, network: Classifier) -> Evaluator:
        return Evaluator.of(network, self.test.images, labels_of(self.test))

    def baselines(self, evaluator: Evaluator) -> list[Result]:
        labels = evaluator.labels_for(self.n)
        draws = class_gaussian(self.train.images, labels_of(self.train), labels)
        seen = _spread(self.train, self.n)
        found = {
            HELD_OUT: self._halves(evaluator),
            TRAINING: evaluator.score(seen.images, labels_of(seen)),
            GAUSSIAN: evaluator.score(draws, labels),
        }
        return [Result(BASELINES, name, None, scores) for name, scores in found.items()]

    def _halves(self, evaluator: Evaluator) -> Scores:
        """Every second test image against the others: what real images reach."""
        ours, theirs = (self.test.subset(torch.arange(i, len(self.test), 2)) for i in (0, 1))
        half = Evaluator.of(evaluator.network, ours.images, labels_of(ours))
        return half.score(theirs.images, labels_of(theirs))

    def edits(self, f: FlowMap, teacher: FlowMap, network: Classifier) -> Edits:
        train, test = _spread(self.train, COMPARED), _spread(self.test, self.made.of(*EDITED))
        return Edits(f, teacher, train, test, network, blurs=BLURS, factor=4)

    def lead(self, results: Sequence[Result], R: float) -> str:
        teacher, (name, two) = find(results, TEACHER), best(results, 2)
        return (
            f"A diffusion model (EDM) and two ways to few steps, on {len(self.train):,} pictures "
            f"of {self.train.shape[1]}x{self.train.shape[2]} pixels, with a budget of "
            f"{duration(self.made.budget)}. "
            f"EDM needs {teacher.nfe} evaluations of the network for a Fréchet distance of "
            f"{teacher.scores.fd:.2f}; with two, {name} has {two.fd:.2f}. R = {R:.2f} is the "
            "distance of a Gaussian fitted to the pixels of each class, which a generator has to "
            "beat to have shown anything."
        )

    def how(self, results: Sequence[Result], R: float) -> str:
        return (
            f"FD is the Fréchet distance to the {len(self.test):,} test images, which no training "
            "saw, over the 64 features of a classifier of the training images. It recognises "
            f"{100 * (_real(results).class_accuracy or 0):.1f} % of the real test images. IS, "
            f"precision and recall (k = 3) use the same network. Every generator made "
            f"{self.n:,} images with the class counts of the test images. Class is the share "
            "of images that the classifier takes for the class that was asked for. FD / R is in "
            f"units of the class-wise Gaussian's {R:.2f}. Sampling times include making the noise."
        )

    def remarks(self, results: Sequence[Result], R: float) -> list[str]:
        teacher, few = find(results, TEACHER), find(results, TEACHER_IN_FEW)
        one = best(results, 1)
        steps = ", ".join(f"{name} {n:,}" for name, n in self.made.steps.items())
        return [
            f"Steps of training in {self.made.precision}, as many as the budget of "
            f"{duration(self.made.budget)} gave on this machine: {steps}. A longer budget gives "
            "better pictures.",
            f"{one[0]} makes an image in one evaluation at {one[1].fd / R:.2f} R; its teacher's "
            f"kind, EDM, in {teacher.nfe} at {teacher.scores.fd / R:.2f} R and in {few.nfe} at "
            f"{few.scores.fd / R:.2f} R.",
            "FD alone rewards smoothing: a low FD with a low recall has lost variety. Recall at "
            f"two steps: {self._recalls(results)}; of EDM {teacher.scores.recall:.2f}.",
            "One seed each: differences of a twentieth of R are noise.",
        ]

    def _recalls(self, results: Sequence[Result]) -> str:
        found = {name: find(results, f"{key}-2").scores for name, key in FEW_STEP.items()}
        return ", ".join(f"{name} {scores.recall:.2f}" for name, scores in found.items())

    def targets(self, results: Sequence[Result], R: float) -> list[str]:
        teacher = find(results, TEACHER).scores
        (first, one), (name, two) = best(results, 1), best(results, 2)
        real = _real(results).class_accuracy or 1.0
        found = {
            f"EDM with Heun's solver below {TEACHER_TARGET} R": (
                teacher.fd / R,
                teacher.fd < TEACHER_TARGET * R,
            ),
            f"{name} within {CLOSE} times EDM's distance at two steps, and EDM below R": (
                two.fd / teacher.fd,
                two.fd <= CLOSE * teacher.fd and teacher.fd < R,  # two of noise are near as well
            ),
            f"{first} below R at one step": (one.fd / R, one.fd < R),
            f"{name}'s recall at two steps above {RECALL}": (two.recall, two.recall > RECALL),
            f"{name} shows the asked class {ACCURATE} times as often as real test images": (
                (two.class_accuracy or 0) / real,
                (two.class_accuracy or 0) >= ACCURATE * real,
            ),
        }
        return [
            f"{what[0].upper()}{what[1:]}: {value:.3f}, {'reached' if yes else 'not reached'}."
            for what, (value, yes) in found.items()
        ]

    def more(self, board: Scoreboard) -> list[Section]:
        name, _ = best(board.results(self.plan.rows), 2)
        row = next(row for row in self.plan.rows if row.key == f"{FEW_STEP[name]}-2")
        f = FlowMap.load(board.directory / row.stage / MODEL, board.device)
        found = samples(f, row, self.n)
        said = memorisation(found, self.train.images, self.test.images)
        return [_neighbours(f"{name} in two evaluations", found, self.train, said)]


def best(results: Sequence[Result], steps: int) -> tuple[str, Scores]:
    """The few-step model with the smallest Fréchet distance in so many steps."""
    found = {name: find(results, f"{key}-{steps}").scores for name, key in FEW_STEP.items()}
    return min(found.items(), key=lambda pair: pair[1].fd)


def _real(results: Sequence[Result]) -> Scores:
    """Of real test images."""
    return next(r.scores for r in results if r.method == HELD_OUT)


def _spread(data: Dataset, most: int) -> Dataset:
    """At most so many of the images, evenly spaced."""
    n = len(data)
    return data if n <= most else data.subset(torch.linspace(0, n - 1, most).long())


def _neighbours(of: str, found: Tensor, train: Dataset, said: Memorisation) -> Section:
    """Samples above their nearest training images: the first ones, and those most like copies."""
    first = list(zip(said.rows.tolist(), said.nearest.which.tolist(), strict=True))[:NEIGHBOURS]
    pictures = {
        "neighbours": (first, f"{of}, and the training image nearest to each"),
        "copies": (said.pairs(NEIGHBOURS), "Those of all samples that are most like copies"),
    }
    return Section(
        "Nearest training images",
        (
            said.sentence(),
            "Nearness is that of the pixels, relative to the next fifty training images. A model "
            "that had learned its training images by heart would show the same picture twice.",
        ),
        {name: _pairs(pairs, found, train, title) for name, (pairs, title) in pictures.items()},
    )


def _pairs(pairs: Sequence[tuple[int, int]], found: Tensor, train: Dataset, title: str) -> bytes:
    ours, theirs = ([pair[i] for pair in pairs] for i in (0, 1))
    strips = {"sample": found[ours], "training image": train.images[theirs]}
    return figures.comparison(strips, title)
