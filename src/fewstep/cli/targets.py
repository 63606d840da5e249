"""What `fewstep evaluate` scores: models, which it samples, and images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from fewstep.data import Dataset
from fewstep.data.build import Request
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, Scores
from fewstep.evaluation.images import check_size, conformed, in_channels, load_images
from fewstep.evaluation.table import Line
from fewstep.flow_map import FlowMap
from fewstep.precision import Precision
from fewstep.runs.directory import open_model
from fewstep.runs.real import labels_like
from fewstep.sampling import Sampler, sampler_for
from fewstep.sampling.shared import share_of_samples


def is_model(path: Path) -> bool:
    """Whether a target is a model to sample, rather than images."""
    return path.suffix == ".safetensors" or any(
        (path / name).is_file() for name in ("run.json", "checkpoint.json")
    )


@dataclass(frozen=True)
class Samplers:
    """How a model is sampled, once for each count of steps or of network evaluations."""

    steps: tuple[int, ...]
    nfe: tuple[int, ...]
    solver: str
    grid: str | None
    clip: bool = False

    def __post_init__(self) -> None:
        if self.steps and self.nfe:
            raise FewstepError("give --steps or --nfe, not both.")

    def of(self, f: FlowMap) -> list[Sampler]:
        """A sampler for each count; the default one where there is none."""
        make = partial(sampler_for, f, solver=self.solver, grid=self.grid, clip=self.clip)
        samplers = [make(N) for N in self.steps] + [make(nfe=nfe) for nfe in self.nfe]
        return samplers or [make()]


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
        size, channels: to bring images to, where asked for.
        precision: of a model's arithmetic.
    """

    evaluator: Evaluator
    group: Processes
    samplers: Samplers
    n: int | None
    seed: int
    checkpoint: str
    ema: str | None
    batch: int | None
    size: int | None
    channels: int | None
    precision: Precision | None

    def lines(self, target: Path) -> Iterator[Line]:
        """The target's lines: of a model one for each way to sample it."""
        if not is_model(target):
            yield self._of_images(target)
            return
        f = open_model(
            target,
            checkpoint=self.checkpoint,
            ema=self.ema,
            device=self.group.device,
            precision=self.precision,
        )
        for sampler in self.samplers.of(f):
            images, labels, notes = self._samples(f, sampler)
            data = Dataset.from_arrays(images, labels, f.classes, str(target))
            scores = self._scores(conformed(data, self.size, self.channels), str(target), notes)
            yield Line(self._named(target), scores, sampler.nfe, self.seed)

    def _named(self, target: Path) -> str:
        return str(target) if self.precision in (None, "fp32") else f"{target} ({self.precision})"

    def _of_images(self, target: Path) -> Line:
        notes: list[str] = []
        wanted = Request(size=self.size, channels=self.channels)
        given = load_images(target, notes.append, wanted)
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
