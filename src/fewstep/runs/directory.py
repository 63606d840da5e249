"""The folder of a run: what it was started with, its checkpoints, its models.

RUN/run.json                    the settings, whole, and where data and models were
RUN/metrics.jsonl, events.*     the log, as lines of JSON and for TensorBoard
RUN/samples/step-*.png          sample grids
RUN/checkpoints/step-*/         checkpoints; every map in them is a model file
RUN/taus.json                   time points that `fewstep tune-steps` found
RUN/model.safetensors           the finished model, one file that describes itself
RUN/.lock, .lock.json           who is writing here (see `fewstep.lock`)
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile

from fewstep.data.ignored import MADE
from fewstep.data.pairs import MANIFEST as PAIRS
from fewstep.errors import FewstepError
from fewstep.exchange.hub.fetching import local
from fewstep.files import RECORD, SHAPELESS, read_json, replacing
from fewstep.hub_name import is_hub
from fewstep.lock import FILES as LOCK_FILES
from fewstep.model_file import open_model_file
from fewstep.models import AnyModel, load_model
from fewstep.runs.record import Record, run_record
from fewstep.runs.run import Run
from fewstep.runs.sources import here
from fewstep.training.checkpoint import Checkpoint, Checkpoints
from fewstep.training.metrics import METRICS, read_metrics

MODEL = "model.safetensors"
KINDS = {**MADE, PAIRS: "pairs"}
"""What a folder holds, by the file that says so."""


def check_free(folder: Path, mine: str) -> None:
    """Raise `FewstepError` where a folder holds something of another kind.

    Args:
        folder: where something is to be written.
        mine: the key of its kind in `KINDS`.
    """
    if is_hub(folder):
        raise FewstepError(
            f"{folder} is a name of the hub, where nothing is written as it is made: give a "
            "folder, and fewstep push puts the model there."
        )
    for file, what in KINDS.items():
        if file != mine and (folder / file).is_file():
            raise FewstepError(f"{folder} holds {what}: give another folder.")


class RunDirectory:
    """A run's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, model: str | Path) -> RunDirectory:
        """The folder that a user names as a model: a run's, or one of the hub; perhaps no run."""
        return cls(local(model))

    @property
    def _record(self) -> Path:
        return self.path / RECORD

    @property
    def _model(self) -> Path:
        return self.path / MODEL

    @property
    def checkpoints(self) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def started(self) -> bool:
        """Whether a run was started here."""
        return self._record.is_file()

    @property
    def has_work(self) -> bool:
        """Whether a run was started here and has something to go on from, or to keep."""
        return self.started and self.has_weights

    @property
    def has_weights(self) -> bool:
        """Whether a checkpoint or a finished model is here, of whatever run."""
        return self._model.is_file() or bool(self.checkpoints.all())

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return self.started and self.has_made(self.run()[1].training.steps)

    def has_made(self, steps: int) -> bool:
        """Whether the model of so many steps is there, whole as far as its header tells."""
        made = step_of(self._model)
        return made is not None and made >= steps

    def record(self) -> Record:
        """What the run was started with.

        Raises:
            FewstepError: no run there, an unreadable record, or one of another version.
        """
        if not self.started:
            raise FewstepError(f"{self.path} is not a run folder: it has no run.json.")
        return read_json(self._record, run_record, "the record of a run")

    def run(self) -> tuple[str, Run]:
        """The recipe's name and the run, as it was started."""
        record = self.record()
        return record.recipe, record.run

    def here(self) -> Run:
        """The run, with data and models where they are now, as far as anything is there."""
        record = self.record()
        return here(record.run, self.path, record.sources)

    def write(self, record: Record) -> None:
        """Record a run.

        Raises:
            FewstepError: the folder is not writable.
        """
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            with replacing(self._record) as partial:
                partial.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
        except OSError as error:
            raise FewstepError(f"cannot write the run folder {self.path}: {error}.") from error

    def finish(self, checkpoint: Checkpoint) -> AnyModel:
        """The model of the last checkpoint, as the run's finished model.

        Raises:
            FewstepError: the folder is not writable, or full.
        """
        try:
            with replacing(self._model) as partial:
                copyfile(checkpoint.file(checkpoint.manifest.default), partial)
        except OSError as error:
            raise FewstepError(f"cannot write the model {self._model}: {error}.") from error
        return self.model()

    def remove_unbegun(self) -> None:
        """Remove the folder of a run that failed before it logged or saved anything."""
        if self.checkpoints.all() or read_metrics(self.path):
            return
        with suppress(OSError):  # something of the user's is in it
            for name in (RECORD, METRICS, "events.*", *LOCK_FILES):
                for path in self.path.glob(name):
                    path.unlink()
            for folder in (self.path / "checkpoints", self.path):
                folder.rmdir()

    def left(self) -> Path:
        """The file of the finished model, of a run that has no checkpoint any more.

        Raises:
            FewstepError: the model is not there either.
        """
        if not self._model.is_file():
            raise FewstepError(f"{self.path} has no checkpoint yet, and no {MODEL}: train it.")
        return self._model

    def model(self) -> AnyModel:
        """The finished model."""
        return load_model(self._model)

    def checkpoint(self, which: str = "last") -> Checkpoint:
        """A checkpoint: "last" (the newest intact), "best", or a step."""
        checkpoints = self.checkpoints
        found = {str(c.step): c for c in checkpoints.all()}
        chosen = {"last": checkpoints.latest, "best": checkpoints.best}.get(
            which, lambda: found.get(which)
        )()
        if chosen is None:
            there = ", ".join(["last", "best", *found]) if found else "no checkpoint"
            if self._model.is_file() and not found:
                there = f"last, the finished {MODEL} without the other averages"
            raise FewstepError(f"{self.path} has no checkpoint {which!r}; there is: {there}.")
        return chosen if which == "last" else chosen.intact()


def step_of(model: Path) -> float | None:
    """The step of a model file, by its header; None for no file or a damaged one.

    A file that does not say is of a run that was finished before it went on: infinity.
    """
    try:
        with open_model_file(model) as file:
            step = file.header.trained.step
            return math.inf if step is None else float(step)
    except SHAPELESS:
        return None
