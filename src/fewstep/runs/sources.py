"""What a run takes from elsewhere, and how it is found again once either of them has moved."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from fewstep.data import READERS, Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.hub_name import HUB, is_hub
from fewstep.models import AnyModel
from fewstep.runs.run import COMPANIONS, Run

T = TypeVar("T")

DATA = "data"
KINDS = (DATA, *COMPANIONS)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images or a model that a run began with.

    Args:
        fingerprint: tells whether another place holds the same.
        about: a few words, such as how many images there were.
        name: what the images are called; "" for a model.
        path: absolute, or a name that is no place, such as ``digits``; "" for images in memory.
        relative: the same from the run's folder; None where there is no such way.
    """

    fingerprint: str
    about: str = ""
    name: str = ""
    path: str = ""
    relative: str | None = None

    def places(self, home: Path, given: str) -> list[str]:
        """Where it may be: beside the run as it was, where it was, and as it was called."""
        if is_hub(self.path):  # the commit that it was, before what the name stands for now
            return list(dict.fromkeys((self.path, given)))
        beside = [] if self.relative is None else [os.path.normpath(home / self.relative)]
        found: dict[str, str] = {}
        for place in (*beside, self.path or given, given):
            found.setdefault(os.path.abspath(os.path.expanduser(place)), place)
        return list(found.values())


def placed(source: Source, given: str | None, home: Path) -> Source:
    """A source with the place that ``given`` names.

    Args:
        source: what was found there.
        given: a path, or a name of data; None for images in memory.
        home: the run's folder.
    """
    if given is None or is_name(given):
        return replace(source, path=given or "")
    path = os.path.abspath(os.path.expanduser(given))
    try:
        relative = Path(os.path.relpath(path, home.absolute())).as_posix()
    except ValueError:  # on another drive
        relative = None
    return replace(source, path=path, relative=relative)


def is_name(given: str) -> bool:
    """Whether data or models are called by a name that is the same everywhere."""
    return READERS.knows(given) or given.startswith(HUB) or is_hub(given)


def given_of(run: Run, kind: str) -> str | None:
    """How the user named a source."""
    return run.data.data if kind == DATA else getattr(run, kind)


def here(run: Run, home: Path, sources: Mapping[str, Source]) -> Run:
    """The run with every source where there is something now; fingerprints are not compared.

    Where images are in several of the places, the first is taken, and the user is told.
    """
    for kind, source in sources.items():
        if given := given_of(run, kind):
            there = [place for place in source.places(home, given) if is_there(place)]
            run = run.override({kind: there[0]}) if there else run
            if kind == DATA and len(set(map(os.path.realpath, there))) > 1:
                _say_chosen(home, there)
    return run


def _say_chosen(home: Path, there: list[str]) -> None:
    first, *others = there
    warnings.warn(
        f"the images of {home} are taken from {first}; there is also {' and '.join(others)}.",
        FewstepWarning,
        stacklevel=3,
    )


def is_there(place: str) -> bool:
    """Whether something is at a place, which may be a pattern of files or a name of data."""
    if is_name(place):
        return True
    path = os.path.expanduser(place)
    return os.path.exists(path) or bool(glob.glob(path, recursive=True))


@dataclass(frozen=True)
class Finder:
    """Finds what a run began with.

    Args:
        home: the run's folder.
        kind: "data", "teacher", ...
        source: what the run began with; None where nothing tells.
        given: how the user names it.
        new: whether the user says another place than when the run began: no other one is looked at.
    """

    home: Path
    kind: str
    source: Source | None
    given: str
    new: bool = False

    def find(self, read: Callable[[str], T], known: Callable[[T], Source]) -> tuple[str, T]:
        """The place where it is now, and what is there.

        Args:
            read: gives what is at a place.
            known: the fingerprint of that, and a few words about it.

        Raises:
            FewstepError: it is nowhere, or something else is there; what reading it raises.
        """
        if self.source is None:
            return self.given, read(self.given)
        places = [self.given] if self.new else self.source.places(self.home, self.given)
        there = [place for place in places if is_there(place)]
        faults: list[FewstepError] = []
        for place in there:
            try:
                found = read(place)
            except FewstepError as error:
                faults.append(error)
                continue
            if known(found).fingerprint == self.source.fingerprint:
                return place, found
            faults.append(FewstepError(self._other(place, self.source, known(found))))
        raise faults[0] if faults else FewstepError(self._gone(places))

    def _gone(self, places: list[str]) -> str:
        return (
            f"the {self.kind} {self.given} that {self.home} began with is gone: nothing is at "
            f"{' or '.join(places)}. Say where it is now: --{self.kind} PATH."
        )

    def _other(self, place: str, then: Source, now: Source) -> str:
        if self.kind == DATA:
            counts = f"{then.about} then, {now.about} now"
            return (
                f"the images of {place} are not those that {self.home} began with ({counts}): put "
                "them back as they were, say with --data where those are, or begin another run "
                f"with what this one has learned: --init {self.home} --out NEW."
            )
        return (
            f"the {self.kind} {place} ({now.about}) is not the one that {self.home} began with "
            f"({then.about}): say with --{self.kind} where that is, such as a checkpoint of it, or "
            "begin another run with --out."
        )


def known_images(data: Dataset) -> Source:
    """What tells images again: themselves, their labels and the names of their classes."""
    whole = json.dumps([data.fingerprint(), list(data.classes)])
    classes = f" in {data.num_classes} classes" if data.classes else ""
    return Source(
        fingerprint=hashlib.sha256(whole.encode()).hexdigest(),
        about=f"{len(data):,} images{classes}",
        name=data.name,
    )


def known_model(f: AnyModel) -> Source:
    """What tells a model again: its weights and settings."""
    digest = fingerprint(f)
    step = f.trained.step
    about = f"SHA-256 {digest[:12]}" + ("" if step is None else f", step {step}")
    return Source(fingerprint=digest, about=about)


def fingerprint(f: AnyModel) -> str:
    """SHA-256 of a model's weights and settings."""
    return f.fingerprint
