"""Scores of a plan's models: few steps against many, on images that no training has seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fewstep.data import Dataset, to_uint8
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, FeatureNetwork, Scores
from fewstep.evaluation.baselines import class_gaussian
from fewstep.evaluation.copies import Memorisation, memorisation
from fewstep.flow_map import FlowMap
from fewstep.progress import progress
from fewstep.runs.real import labels_like
from fewstep.runs.time_points import Search, SearchState, greedy_search
from fewstep.sampling import COARSE, Sampler, Walk, default_taus, flows, sample, sampler_for

TRAINING, GAUSSIAN = "training images", "class-wise pixel Gaussian"
STEPS = (1, 2, 4)  # of a model of few steps
SOLVED = (18, 5, 3)  # of a diffusion model, by Heun's method
WALKED, FLOW = 9, "its flow, by Heun"  # of a flow map, whose velocity is solved; and its name
MOST, FEWEST = 1000, 64  # samples of a score
SEARCHED, GRID = 400, 5  # samples that a time point is judged by, and points that are tried
COMPARED = 500  # samples that are compared with training images
SCORED, SEARCH = 0.45, 0.25  # parts of the time after the trainings
STRIP = 12  # samples in a row of the comparison


@dataclass(frozen=True)
class Point:
    """A model, sampled in some steps.

    Args:
        model: what it is called.
        nfe: network evaluations of a sample; 0 for what no network made.
        scores: beside images that no training has seen.
        seconds: of a sample; 0 for what no network made.
        strip: a few samples uint8 [n, C, H, W], of the same noise in every row.
    """

    model: str
    nfe: int
    scores: Scores
    seconds: float
    strip: Tensor


class Measures:
    """Scores models beside held-out images.

    Args:
        network: feature network.
        train: the training images.
        test: images that no training has seen.
        seconds: that the scores may take, as far as can be foreseen.
        device: where to sample.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        train: Dataset,
        test: Dataset,
        seconds: float,
        device: torch.device,
    ) -> None:
        self.train, self.test, self.seconds, self.device = train, test, seconds, device
        self._evaluation: float | None = None
        self.evaluator = Evaluator.of(network, test.images, test.labels, test.classes)

    def count(self, models: Sequence[FlowMap]) -> int:
        """How many samples each score can have in the time there is."""
        evaluations = sum(sampler.nfe or 0 for f in models for sampler in samplers(f))
        possible = SCORED * self.seconds / (evaluations * self.evaluation(models[-1]))
        return int(min(MOST, max(FEWEST, possible)))

    def evaluation(self, f: FlowMap) -> float:
        """Seconds of one evaluation of a model's network on one image, measured once."""
        if self._evaluation is None:
            sampler = samplers(f)[0]
            took = [self._timed(f, sampler) for _ in range(2)][1]
            self._evaluation = max(took / (16 * (sampler.nfe or 1)), 1e-9)
        return self._evaluation

    def _timed(self, f: FlowMap, sampler: Sampler) -> float:
        began = time.perf_counter()
        sample(f, 16, sampler, seed=1)
        return time.perf_counter() - began

    def points(self, models: dict[str, FlowMap]) -> list[Point]:
        """Every model in its numbers of steps, and the baselines."""
        n = self.count(list(models.values()))
        found = self._baselines(n)
        rows = [
            (FLOW if isinstance(sampler, Walk) and not f.trained.solves else name, f, sampler)
            for name, f in models.items()
            for sampler in samplers(f)
        ]
        with progress("sampling and scoring", len(rows)) as advance:
            for name, f, sampler in rows:
                found.append(self._point(name, f, sampler, n))
                advance(1)
        return found

    def _point(self, name: str, f: FlowMap, sampler: Sampler, n: int) -> Point:
        labels, _ = labels_like(self.evaluator, f, n)
        began = time.perf_counter()
        images = to_uint8(sample(f, n, sampler, seed=0, labels=labels))
        took = (time.perf_counter() - began) / n
        known = None if self.evaluator.labels is None else self.evaluator.labels_for(n)
        scores = self.evaluator.score(images, known if labels is not None else None)
        strip = to_uint8(sample(f, STRIP, sampler, seed=1))
        return Point(name, sampler.nfe or 0, scores, took, strip)

    def _baselines(self, n: int) -> list[Point]:
        """Real training images, and a Gaussian of the pixels of each class of these."""
        known = self.evaluator.labels
        wanted = torch.zeros(n).long() if known is None else self.evaluator.labels_for(n)
        draws = class_gaussian(self.train.images, self.train.labels, wanted)
        labels = None if known is None else wanted
        order = torch.linspace(0, len(self.train) - 1, min(n, len(self.train))).round().long()
        real = self.train.subset(order)
        made = [(TRAINING, real.images, real.labels), (GAUSSIAN, draws, labels)]
        return [
            Point(name, 0, self.evaluator.score(images, given), 0.0, images[:STRIP])
            for name, images, given in made
        ]

    def copies(self, f: FlowMap, mirrored: bool) -> tuple[Memorisation, Tensor]:
        """How near samples lie to training images; and these samples."""
        n = min(COMPARED, max(FEWEST, self.count([f])))
        images = to_uint8(sample(f, n, best_sampler(f), seed=2))
        found = memorisation(images, self.train.images, self.test.images, mirrored=mirrored)
        return found, images

    def with_time_point(self, f: FlowMap, folder: Path) -> tuple[FlowMap, str]:
        """The model with a time point for two steps that is better than the default; a sentence."""
        try:
            f.trained.check_time_points("it")
            default = default_taus(f, 2)
        except FewstepError:
            return f, "It has no time points to choose."
        each = 2 * (GRID + 4) * self.evaluation(f)
        n = int(min(SEARCHED, SEARCH * self.seconds / each))
        if n < FEWEST:
            return f, "There is no time to look for a better time point of two steps."
        network = self.evaluator.network
        train = Evaluator.of(
            network, self.train.images, self.train.labels, self.train.classes, metrics=("fd",)
        )
        state = SearchState(folder / "time-points.json", {"n": n})
        search = Search(f, train, state, n, seeds=1)
        found = greedy_search(f.p, 2, search.mean_fd, grid=GRID, rounds=1)
        before, after = (search.fd(taus, 2) for taus in (default, found))
        state.remove()
        if not after < before:
            return f, f"In two steps the time point {default[0]:.3g} stays: none is better."
        f.trained = replace(f.trained, taus={**f.trained.taus, "2": found})
        return f, (
            f"In two steps the time point {found[0]:.3g} is better than {default[0]:.3g} (Fréchet "
            f"distance to training images {after:.3g} instead of {before:.3g}, on a fresh seed)."
        )


def samplers(f: FlowMap) -> list[Sampler]:
    """The ways in which a model is scored: of a flow map also its velocity, solved."""
    trained = f.trained
    if _has_one(f):
        return [sampler_for(f, trained.steps)]
    if trained.solves:
        return [sampler_for(f, n, grid="straight" if n < COARSE else None) for n in SOLVED]
    walk = [Walk(WALKED).fitted(f)] if trained.maps_to_any and flows(f) else []
    return [*(sampler_for(f, n) for n in STEPS), *walk]


def best_sampler(f: FlowMap) -> Sampler:
    """Two steps of a model of few, or what its one number of steps is; else the most steps."""
    if _has_one(f) or f.trained.solves:
        return samplers(f)[0]
    return sampler_for(f, 2)


def _has_one(f: FlowMap) -> bool:
    """Whether a model has one number of steps."""
    return f.trained.steps is not None or f.trained.starts == "T"
