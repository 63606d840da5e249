"""Sample every row of the table, score the samples, and remember the scores and a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.data import to_uint8
from fewstep.digest import sha256_of
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, Scores
from fewstep.files import read_json, write_json
from fewstep.flow_map import FlowMap
from fewstep.progress import progress
from fewstep.records import value_of
from fewstep.report.figures import png_of
from fewstep.report.plan import Row
from fewstep.runs.directory import MODEL
from fewstep.sampling import (
    Multistep,
    NestedDDIM,
    Prior,
    Sampler,
    Walk,
    sample,
    sampler_for,
)
from fewstep.solvers import SOLVERS
from fewstep.spec import parse

SEED = 0
SHEET = 100  # samples in a row's picture, made before the clock starts
COLUMNS = 10  # of that picture: the classes in turn


@dataclass(frozen=True)
class Result:
    """A line of the table.

    Args:
        group: heading.
        method: name.
        nfe: network evaluations per sample; None for what no network made.
        scores: of its samples.
        seconds: sampling time per image.
        key: names files; None for a baseline.
    """

    group: str
    method: str
    nfe: int | None
    scores: Scores
    seconds: float | None = None
    key: str | None = None


@dataclass(frozen=True)
class _Known:
    """What is stored of a row."""

    scores: dict[str, Any]
    seconds: float | None
    nfe: int | None
    sampler: str | None = None


def _scores_of(stored: Any) -> dict[str, Any]:
    known: dict[str, _Known] = value_of(dict[str, _Known], stored, "it")
    for row in known.values():
        Scores.from_record(row.scores)
    return {_renamed(identity): asdict(row) for identity, row in known.items()}


_EARLIER: dict[str, Callable[..., Sampler]] = {
    "Walk": Walk,
    "Multistep": Multistep,
    "NestedDDIM": NestedDDIM,
    "Prior": Prior,
}


def _renamed(identity: str) -> str:
    """The identity of a row that an earlier version has scored, with its sampler as a spec.

    It was written as Python does: ``Walk(N=18, solver='heun', grid=None, budget=None, ...)``.
    """
    key, _, rest = identity.partition(" ")
    how, *hashes = rest.rsplit(" ", 2)
    if how.partition("(")[0] not in _EARLIER:
        return identity
    name, arguments = parse(how)
    walks = name == "Walk" and (arguments["budget"] or SOLVERS.build(arguments["solver"]).adaptive)
    if walks:
        del arguments["N"]  # which was not looked at
    return " ".join([key, _EARLIER[name](**arguments).spec, *hashes])


class Scoreboard:
    """Scores rows with one evaluator; what was scored before is read from a file.

    Args:
        evaluator: with the reference images.
        directory: the reproduction's folder.
        device: where to sample.
        n: samples of a row that are scored; default as many as the reference has.
        sheet: samples in a row's picture.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        directory: Path,
        device: torch.device,
        *,
        n: int | None = None,
        sheet: int = SHEET,
    ) -> None:
        self.evaluator, self.directory, self.device = evaluator, directory, device
        self.n, self.sheet = n or evaluator.n, sheet
        self._path = directory / "scores.json"
        self._known: dict[str, Any] = {}
        if self._path.is_file():
            with suppress(FewstepError):  # damaged: score again
                self._known = read_json(self._path, _scores_of, "a table of scores")

    def results(self, rows: Sequence[Row]) -> list[Result]:
        """Every row's result, in order."""
        found = []
        with progress("sampling and scoring", len(rows)) as advance:
            for row in rows:
                found.append(self._result(row))
                advance(1)
        return found

    def grid(self, row: Row) -> Path:
        """The picture of a row's samples, the classes in turn."""
        return grid_of(self.directory, row)

    def _result(self, row: Row) -> Result:
        path = self.directory / row.stage / MODEL
        f = FlowMap.load(path, self.device)
        sampler = sampler_of(f, row)
        identity = f"{row.key} {sampler.spec} {sha256_of(path)} {self.evaluator.fingerprint}"
        if self.n != self.evaluator.n:
            identity += f" {self.n}"
        if identity not in self._known or not self.grid(row).is_file():
            self.grid(row).parent.mkdir(exist_ok=True)
            self.grid(row).write_bytes(png_of(samples(f, row, self.sheet), columns=COLUMNS))
            images, seconds = self._timed(f, sampler)
            scores = self.evaluator.score(images, self._labels)
            self._known[identity] = {
                "scores": scores.record(),
                "seconds": seconds,
                "nfe": sampler.nfe,
                "sampler": sampler.spec,
            }
            self._write()
        known = self._known[identity]
        scores = Scores.from_record(known["scores"])
        return Result(row.group, row.method, known["nfe"], scores, known["seconds"], row.key)

    def _timed(self, f: FlowMap, sampler: Sampler) -> tuple[Tensor, float]:
        """Samples with labels in the reference's proportions, and the seconds per image."""
        labels = self._labels if f.num_classes else None
        start = time.perf_counter()
        x = sample(f, self.n, sampler, seed=SEED, labels=labels)
        return to_uint8(x), (time.perf_counter() - start) / self.n

    @property
    def _labels(self) -> Tensor | None:
        return None if self.evaluator.labels is None else self.evaluator.labels_for(self.n)

    def _write(self) -> None:
        write_json(self._path, self._known)


def grid_of(directory: Path, row: Row) -> Path:
    """Where the picture of a row's samples is."""
    return directory / "grids" / f"{row.key}.png"


def sampler_of(f: FlowMap, row: Row) -> Sampler:
    """How a row samples its model."""
    return sampler_for(
        f, row.steps, solver=row.solver, nfe=row.nfe, sampler=row.sampler, grid=row.grid
    )


def samples(f: FlowMap, row: Row, n: int) -> Tensor:
    """``n`` 8-bit samples of a row, the classes in turn, from the same noise for every row."""
    return to_uint8(sample(f, n, sampler_of(f, row), seed=SEED))
