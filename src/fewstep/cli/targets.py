"""What `fewstep evaluate` scores: models, which it samples, and images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.data import Dataset
from fewstep.data.build import Request
from fewstep.data.columns import NoColumn, NoColumns
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, Scores
from fewstep.evaluation.images import Say, check_size, conformed, in_channels, load_images
from fewstep.evaluation.table import Line
from fewstep.exchange.graphs.engines import Engine
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided, Open, guidance_of
from fewstep.models import as_sampled
from fewstep.precision import Precision
from fewstep.registry import spec_of
from fewstep.runs.opening import is_model, open_model
from fewstep.runs.real import labels_like
from fewstep.sampling import Asked, Sampler
from fewstep.sampling.shared import share_of_samples


@dataclass(frozen=True)
class Samplers:
    """How a model is sampled: by each sampler, for each count and for each guidance.

    A solver, a grid and clipping are for the models among the targets that solve the PF-ODE.
    """

    steps: tuple[int, ...]
    nfe: tuple[int, ...]
    solver: str | None = None
    grid: str | None = None
    clip: bool = False
    samplers: tuple[str, ...] = ()
    guidance: tuple[Guided, ...] = ()

    def __post_init__(self) -> None:
        if self.steps and self.nfe:
            raise FewstepError("give --steps or --nfe, not both.")
        self._asked()

    def of(self, f: FlowMap, engine: Engine, open: Open) -> list[tuple[str | None, Sampler]]:
        """The samplers of a model, each with the spec that it was asked for by.

        Args:
            f: the model.
            engine: what evaluates it.
            open: opens the weaker model of an autoguidance.
        """
        asked = self._asked(self._solves(f))
        return [(_said(one), engine.sampler(f, one.opened(open))) for one in asked]

    def notes(self, f: FlowMap) -> list[str]:
        """What is left out for a model."""
        said = {"solver": self.solver, "grid": self.grid, "clip": self.clip}
        given = [f"--{name}" for name, value in said.items() if value]
        if not given or self._solves(f):
            return []
        return [f"{f.trained.name} takes no solver: {' and '.join(given)} left out."]

    def _solves(self, f: FlowMap) -> bool:
        """Whether a model is told of the solver: where a spec asks for a sampler, it always is."""
        known = f.trained
        return bool(self.samplers) or not known.known or (known.denoises and known.steps is None)

    def _asked(self, solves: bool = True) -> list[Asked]:
        counts = [Asked(steps=N) for N in self.steps] + [Asked(nfe=nfe) for nfe in self.nfe]
        walk: dict[str, Any] = {"solver": self.solver, "grid": self.grid, "clip": self.clip}
        walk = walk if solves else {}
        return [
            replace(count, sampler=spec, guidance=guidance, **walk)
            for spec in self.samplers or (None,)
            for count in counts or [Asked()]
            for guidance in self.guidance or (None,)
        ]


def _said(asked: Asked) -> str | None:
    """What was said of sampling, beside its steps, which a table has in a column of their own."""
    guidance = None if asked.guidance is None else spec_of(guidance_of(asked.guidance))
    return ", ".join(said for said in (asked.spec, guidance) if said) or None


@dataclass(frozen=True)
class Targets:
    """Scores models, which it samples, and images.

    Args:
        evaluator: with the reference.
        group: the processes that share the work.
        samplers: how a model is sampled.
        n: samples of a model; None for as many as the reference has.
        seed: of the samples.
        checkpoint, ema: which of a run's models.
        batch: samples made at once.
        wanted: how images are read: their size and channels, where asked for, and the rest.
        theirs: whether the columns that it names are the targets'; else they are the reference's,
            and are taken where a target has them, too.
        precision: of a model's arithmetic.
        engine: what evaluates a model.
        open: opens the weaker model of an autoguidance.
    """

    evaluator: Evaluator
    group: Processes
    samplers: Samplers
    n: int | None
    seed: int
    checkpoint: str
    ema: str | None
    batch: int | None
    wanted: Request
    theirs: bool
    precision: Precision | None
    engine: Engine
    open: Open

    def lines(self, target: Path) -> Iterator[Line]:
        """The target's lines: of a model one for each way to sample it."""
        if not is_model(target):
            yield self._of_images(target)
            return
        model = open_model(
            target,
            checkpoint=self.checkpoint,
            ema=self.ema,
            device=self.group.device,
            precision=self.precision,
        )
        f = self.engine.model(as_sampled(model))
        for spec, sampler in self.samplers.of(f, self.engine, self.open):
            images, labels, notes = self._samples(f, sampler)
            notes += self.samplers.notes(f)
            data = Dataset.from_arrays(images, labels, f.classes, str(target))
            data = conformed(data, self.wanted.size, self.wanted.channels)
            scores = self._scores(data, str(target), notes)
            name = self._named(target, spec)
            yield Line(name, scores, sampler.nfe, self.seed, sampler.spec)

    def _named(self, target: Path, spec: str | None) -> str:
        precision = None if self.precision == "fp32" else self.precision
        engine = None if self.engine.name == "torch" else self.engine.name
        how = ", ".join(word for word in (engine, precision, spec) if word is not None)
        return f"{target} ({how})" if how else str(target)

    def _of_images(self, target: Path) -> Line:
        notes: list[str] = []
        missing = NoColumns if self.theirs else NoColumn
        given = _images_of(target, self.wanted, notes.append, missing)
        if given.skipped:
            notes.append(f"{given.skipped:,} files cannot be read as images and are left out.")
        return Line(str(target), self._scores(given, str(target), notes))

    def _scores(self, given: Dataset, whose: str, notes: list[str]) -> Scores:
        images, reference = given.images, self.evaluator.reference.images
        if reference is not None:
            images = in_channels(images, reference.shape[1], whose, notes.append)
            check_size(images, tuple(reference.shape[1:]), whose)
        scores = self.evaluator.score(images, given.labels, given.classes)
        return replace(scores, notes=(*notes, *scores.notes))

    def _samples(self, f: FlowMap, sampler: Sampler) -> tuple[Tensor, Tensor | None, list[str]]:
        count = self.n or self.evaluator.n
        labels, notes = labels_like(self.evaluator, f, count)
        mine = share_of_samples(
            f, count, sampler, self.group, seed=self.seed, labels=labels, batch=self.batch
        )
        return self.group.all_gather_shares(mine, count), labels, notes


def _images_of(target: Path, wanted: Request, say: Say, missing: type[NoColumn]) -> Dataset:
    """The images of a target, read without a column that it lacks in a way that may be."""
    try:
        return load_images(target, say, wanted)
    except missing as error:
        unnamed: dict[str, Any] = {error.setting: None}
        return _images_of(target, wanted._replace(**unnamed), say, missing)
