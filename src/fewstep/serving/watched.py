"""Runs that are watched: how far each is, its log as it grows, its sample grids."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError, not_there, refusals, unknown
from fewstep.files import RECORD
from fewstep.hub_name import is_hub
from fewstep.lock import in_use
from fewstep.runs.directory import MODEL, RunDirectory, step_of
from fewstep.runs.record import Record
from fewstep.serving.growing import Growing
from fewstep.serving.shelf import names_for, readable
from fewstep.stages.clock import CLOCK
from fewstep.training.metrics import METRICS
from fewstep.training.recent import seconds_left

RUNS = Path("runs")
DEEP = 2  # folders below a given one in which runs are looked for
MANY = 500  # runs that are watched at once
BEGUN = (CLOCK, "plan.json")  # of a reproduction, and of fewstep fit or distil
SAMPLE = re.compile(r"step-(\d+)\.png$")


@dataclass
class Watched:
    """A run in its folder, which may be unfinished, and may vanish.

    Args:
        id: unique among those that are watched.
        group: the folder of runs that it belongs to; "" for a run that was named itself.
        path: the run's folder.
    """

    id: str
    group: str
    path: Path
    log: Growing = field(init=False)
    _record: tuple[int, Record | None, str] = (0, None, "")
    _model: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        self.log = Growing(self.path / METRICS)

    def look(self) -> dict[str, Any]:
        """What there is to say of it now."""
        self.log.read()
        record, fault = self._read()
        state = self._state(record, fault)
        said = _settings(record) if record else {"steps": None}
        running = state == "running" and record is not None
        training = record.run.training if running and record else None
        return {
            "id": self.id,
            "group": self.group,
            "name": self.id.removeprefix(f"{self.group}/"),
            "state": state,
            "why": fault,
            "step": self.log.step,
            "seconds_left": training
            and seconds_left(self.log.rows, training.steps, training.batch),
            "epoch": self.log.epoch,
            "rows": len(self.log.rows),
            "damaged": self.log.damaged,
            "samples": self.samples(),
            **said,
        }

    def samples(self) -> list[int]:
        """Steps of the sample grids, up to the newest step of the log."""
        with suppress(OSError):
            names = [path.name for path in (self.path / "samples").iterdir()]
            steps = sorted(int(found[1]) for name in names if (found := SAMPLE.match(name)))
            return [step for step in steps if not self.log.rows or step <= self.log.step]
        return []

    def sample(self, step: int) -> bytes:
        """The PNG of a sample grid.

        Raises:
            FewstepError: there is none of that step.
        """
        try:
            return (self.path / "samples" / f"step-{step:08d}.png").read_bytes()
        except OSError:
            raise FewstepError(f"the run {self.id} has no samples of step {step}.") from None

    def _read(self) -> tuple[Record | None, str]:
        """The run's record, read again where it was written again; why there is none."""
        try:
            stamp = (self.path / RECORD).stat().st_mtime_ns
        except OSError:
            return (None, "") if is_run(self.path) else (self._record[1], GONE)
        if stamp != self._record[0]:
            try:
                self._record = stamp, RunDirectory(self.path).record(), ""
            except FewstepError as error:
                here = f"{self.path}/"  # where it lies is nobody else's concern
                self._record = stamp, None, readable(str(error).replace(here, ""))
        return self._record[1:]

    def _state(self, record: Record | None, fault: str) -> str:
        if fault:
            return "gone" if fault == GONE else "damaged"
        if record is not None and self._made() >= record.run.training.steps:
            return "finished"
        if not in_use(self.path):
            return "stopped"
        return "running" if self.log.rows else "starting"

    def _made(self) -> float:
        """Steps of the finished model, whose header is read where it was written again."""
        try:
            stamp = (self.path / MODEL).stat().st_mtime_ns
        except OSError:
            return 0.0
        if stamp != self._model[0]:
            self._model = stamp, step_of(self.path / MODEL) or 0.0
        return self._model[1]


GONE = "its folder is gone; what was read of it is kept."


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, or the log of a training from Python.

    One that may not be looked into holds none.
    """
    with suppress(OSError):
        return any((folder / name).is_file() for name in (RECORD, METRICS))
    return False


def _settings(record: Record) -> dict[str, Any]:
    """What the page tells of a run's settings: no paths, which are nobody else's concern."""
    run = record.run
    names = {"data": run.data.data, "teacher": run.teacher, "weak": run.weak, "init": run.init}
    return {
        "recipe": record.recipe,
        "objective": run.objective.name,
        "network": run.network.name,
        "steps": run.training.steps,
        "batch": run.training.batch,
        "changes": [asdict(change) for change in record.changes],
        **{what: name and _last(name) for what, name in names.items()},
    }


def _last(name: str) -> str:
    return readable(name if is_hub(name) else Path(name).name or name)


class Runs:
    """The runs that are watched, by id: those that were named, and those in folders that were.

    Args:
        named: run folders and folders of runs, by name.
    """

    def __init__(self, named: Mapping[str, Path] | None = None) -> None:
        self.named = dict(named or {})
        self._found: dict[str, Watched] = {}
        self._left_out = 0
        self._lock = threading.Lock()

    @classmethod
    def open(cls, paths: Sequence[Path]) -> Runs:
        """What a user names; without anything the runs in ``runs``.

        Raises:
            FewstepError: one that is no run and holds none, or nothing to watch.
        """
        given = list(paths) or [RUNS]
        for path in given:
            with refusals():
                check_watched(path, asked=bool(paths))
        return cls(dict(zip(names_for(given), given, strict=True)))

    @classmethod
    def of_models(cls, named: Mapping[str, Path]) -> Runs:
        """Those of models that are served as run folders."""
        return cls({name: path for name, path in named.items() if is_run(path)})

    def look(self) -> tuple[list[dict[str, Any]], int]:
        """Each of them as it is now, and how many older ones are left out.

        New ones are found. One that is gone stays, unless there are more than `MANY`.
        """
        with self._lock:
            self._find()
            return [run.look() for run in self._found.values()], self._left_out

    def log(self, id: str, after: int, epoch: str) -> dict[str, Any]:
        """Rows of a run's log: see `Growing.after`."""
        with self._lock:
            run = self._run(id)
            run.log.read()
            return {"run": id, **run.log.after(after, epoch)}

    def sample(self, id: str, step: int) -> bytes:
        """The PNG of a sample grid."""
        with self._lock:
            run = self._run(id)
        return run.sample(step)

    def _run(self, id: str) -> Watched:
        if id not in self._found:
            self._find()
        if id not in self._found:
            raise unknown("run", id, self._found)
        return self._found[id]

    def _find(self) -> None:
        there = {run[0]: run for run in self._there()}
        newest = set(sorted(there, key=lambda id: _begun(there[id][2]))[-MANY:])
        for id in [id for id in there if id in newest and id not in self._found]:
            self._found[id] = Watched(*there[id])
        others = [id for id in self._found if id not in newest]
        for id in others[: max(0, len(self._found) - MANY)]:
            del self._found[id]
        self._left_out = len(there.keys() - self._found.keys())

    def _there(self) -> Iterator[tuple[str, str, Path]]:
        """Id, group and folder of each run that is named, or in a folder that is."""
        for name, path in self.named.items():
            if name in self._found or is_run(path):
                yield name, "", path
                continue
            for folder in runs_in(path):
                yield f"{name}/{readable(folder.relative_to(path).as_posix())}", name, folder


def runs_in(folder: Path, deep: int = DEEP) -> Iterator[Path]:
    """The runs in a folder, the oldest first; of those in folders below it, too."""
    inner: list[Path] = []
    with suppress(OSError):
        inner = [path for path in folder.iterdir() if path.name[0] != "." and _is_folder(path)]
    for path in sorted(inner, key=_begun):
        if is_run(path):
            yield path
        elif deep > 1:
            yield from runs_in(path, deep - 1)


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def _begun(folder: Path) -> tuple[float, str]:
    """When a run's record was written, or the newest of what a folder holds; its name."""
    for path in (folder / RECORD, folder / METRICS, folder):
        with suppress(OSError):
            return path.stat().st_mtime, folder.name
    return 0.0, folder.name


def check_watched(path: Path, *, asked: bool = True) -> None:
    """Raise `FewstepError` for what is no run and holds none.

    Args:
        asked: whether the user named it.
    """
    if is_hub(path):
        raise FewstepError(f"{path} is a model of the hub, which has no log: name a run's folder.")
    if path.is_file():
        raise FewstepError(f"{path} is a file, which has no log: name a run's folder.")
    if not path.exists() and asked:
        raise not_there("run folder", path)
    begun = any((path / file).is_file() for file in BEGUN)  # its first stage is about to begin
    if not is_run(path) and not begun and next(runs_in(path), None) is None:
        if not asked:
            raise FewstepError(f"there is no run in {path}/: name the folder of one.")
        raise FewstepError(
            f"{path} is neither a run's folder (it has no {RECORD} and no {METRICS}) nor a folder "
            "of runs."
        )
