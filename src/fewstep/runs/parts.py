"""What a run is made of besides itself: its images, its teacher, the models that it begins with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fewstep.data import Dataset
from fewstep.data.build import Request
from fewstep.data.fits import Size
from fewstep.data.pairs import is_pairs, read_manifest
from fewstep.data.sources import load_requested
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.exchange.origin import exact
from fewstep.models import AnyModel
from fewstep.needs import TeacherUse
from fewstep.records import record_of
from fewstep.runs.components import objective_of
from fewstep.runs.directory import RunDirectory
from fewstep.runs.opening import open_model
from fewstep.runs.resume import Begun
from fewstep.runs.run import COMPANIONS, Data, Run, require
from fewstep.runs.sources import (
    DATA,
    Finder,
    Source,
    given_of,
    is_there,
    known_images,
    known_model,
    placed,
)

T = TypeVar("T", Dataset, AnyModel)


class Parts:
    """The images and models of a run, wherever they are now.

    Args:
        run: with the names of them.
        home, before, group, data: see `prepare`.
    """

    def __init__(
        self,
        run: Run,
        home: RunDirectory,
        before: Begun | None,
        group: Processes,
        data: Dataset | None,
    ) -> None:
        self.run, self.home, self.before, self.group, self.data = run, home, before, group, data
        self.known = {} if before is None else before.record.sources
        self.sources: dict[str, Source] = {}
        self.notes: list[str] = []

    def images(self) -> Dataset:
        """The training images, under the name that they had when the run began."""
        if self.data is None:
            require_data(self.run.data)
            found = self._find(
                DATA, lambda place: load_data(self.run.override({DATA: place})), known_images
            )
        else:
            found = self.data
            self.sources[DATA] = known = known_images(found)
            if DATA in self.known and known.fingerprint != self.known[DATA].fingerprint:
                raise FewstepError(
                    f"the images in memory ({known.about}) are not those that {self.home.path} "
                    f"began with ({self.known[DATA].about})."
                )
        return replace(found, name=self.sources[DATA].name)

    def model(self, kind: str) -> AnyModel | None:
        """The companion that a run names by a setting; None where it names none.

        Raises:
            FewstepError: it is missing or not wanted; it is not where it was, or another model is
                there.
        """
        check_companion(self.run, kind)
        if given_of(self.run, kind) is None:
            return None
        passing = COMPANIONS[kind].passing
        if passing and self.before is not None and kind not in self.before.new:
            self.sources |= {k: v for k, v in self.known.items() if k == kind}
            return None
        return self._find(kind, open_model, known_model)

    def _find(self, kind: str, read: Callable[[str], T], known: Callable[[T], Source]) -> T:
        given = given_of(self.run, kind) or ""
        new = self.before is not None and kind in self.before.new
        source = self.known.get(kind)
        finder = Finder(self.home.path, kind, source, given, new)
        place, found = self.group.in_turn(lambda: finder.find(read, known))
        what = known(found)
        if source is not None:
            what = replace(what, name=source.name)
        place = place if isinstance(found, Dataset) else exact(place, found.info)
        self.sources[kind] = now = placed(what, place, self.home.path)
        if source is not None and now.path != source.path:
            self.notes.append(f"note: the {kind} {source.path or given} is now {place}")
        return found


def load_data(run: Run) -> Dataset:
    """The images that ``run.data`` names."""
    try:
        return load(run.data)
    except FewstepError as error:
        needs = objective_of(run).needs
        if not needs.columns or needs.other_columns:
            raise
        raise FewstepError(
            f"{run.objective.name} learns from pairs, which fewstep pairs makes; {error}"
        ) from error


def load(settings: Data, split: str = "train", canvas: Size | None = None) -> Dataset:
    """The images that a record of settings names, or those of another split of them.

    Args:
        settings: the source, and how it is read.
        split: the part.
        canvas: height and width in which images are laid by fit=pad, so that a split has the shape
            of another; default what holds them all.
    """
    request = request_of(settings, split)._replace(canvas=canvas)
    return load_requested(require_data(settings), request)


def request_of(settings: Data, split: str) -> Request:
    """How `fewstep.data` is asked for a split of what a record of settings names."""
    return Request(
        split,
        settings.size,
        settings.channels,
        settings.labels,
        settings.skip_bad,
        settings.image_column,
        settings.label_column,
        settings.fit,
        settings.encoder,
        settings.text_column,
        settings.embeddings,
    )


def real_data(run: Run) -> Data:
    """The images that a run's model imitates: for pairs, those that their teacher was trained on.

    Raises:
        FewstepError: the pairs' manifest is damaged or does not say.
    """
    folder = Path(run.data.data or "")
    if not is_pairs(folder):
        return run.data
    manifest = read_manifest(folder)
    if not manifest.data:
        raise FewstepError(f"{folder} does not say what its teacher was trained on.")
    data: Data = record_of(Data, manifest.data, f"the data of {folder}")
    if manifest.beside and not is_there(data.data or ""):
        return replace(data, data=os.path.normpath(folder / manifest.beside))
    return data


def require_data(settings: Data) -> str:
    """The name of the images.

    Raises:
        FewstepError: none is given.
    """
    return require(
        settings.data,
        "no data given: pass --data with a folder of images, a .parquet, .npz, .npy or IDX file, "
        "hub:NAME, fashion-mnist, or digits.",
    )


def check_companion(run: Run, kind: str) -> None:
    """Raise `FewstepError` where a companion is missing that a run needs, or named in vain."""
    name, needs, given = run.objective.name, objective_of(run).needs, given_of(run, kind)
    if given is not None and not COMPANIONS[kind].taken(needs):
        why = f" {needs.teacher.value}: it" if kind == "teacher" else ""
        raise FewstepError(f"{name}{why} takes no --{kind}.")
    weights_alone = needs.teacher is TeacherUse.START and run.init is not None
    if kind == "teacher" and needs.teacher is not TeacherUse.NONE and not weights_alone:
        require(given, f"{name} {needs.teacher.value}: say which with --teacher RUN.")
