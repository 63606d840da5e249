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
import re
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch

from fewstep.data.ignored import MADE
from fewstep.data.pairs import MANIFEST as PAIRS
from fewstep.distributed import checked_device
from fewstep.errors import FewstepError, FewstepWarning, not_there, refusals
from fewstep.exchange.diffusers.writing import own_weights
from fewstep.exchange.files.shards import in_folder
from fewstep.exchange.hub.fetching import kept, local
from fewstep.exchange.origin import with_hub
from fewstep.exchange.sources import holds_foreign, import_model, is_foreign
from fewstep.files import RECORD, SHAPELESS, read_json, replacing
from fewstep.hub_name import is_hub, said_otherwise
from fewstep.lock import FILES as LOCK_FILES
from fewstep.model_file import open_model_file
from fewstep.models import AnyModel, load_model
from fewstep.plugins.used import Used
from fewstep.precision import Precision
from fewstep.records import record_of
from fewstep.runs.run import Run
from fewstep.runs.sources import Source, here
from fewstep.runs.stored_taus import read_taus
from fewstep.training.checkpoint import MANIFEST, Checkpoint, Checkpoints
from fewstep.training.metrics import METRICS, read_metrics
from fewstep.version import __version__

FORMAT = 1
MODEL = "model.safetensors"
_PLAIN_AVERAGE = re.compile(r"ema-(0\.\d+)$")
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


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that was changed when a run went on at a step."""

    step: int
    setting: str
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """What ``run.json`` holds.

    Args:
        recipe: the name that the run is filed under.
        run: the settings, as the user gave them.
        sources: where data and models were, by the setting that names them.
        changes: of settings, when the run went on.
        plugins: code of the user's own that gave parts of the run.
        format, fewstep, torch: versions that began the run.
    """

    format: int = FORMAT
    fewstep: str = __version__
    torch: str = torch.__version__
    recipe: str
    run: Run
    sources: dict[str, Source] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    plugins: tuple[Used, ...] = ()


def _record_of(stored: Any) -> Record:
    if isinstance(stored, dict) and stored.get("format", FORMAT) != FORMAT:
        raise FewstepError(
            f"it was made by fewstep {stored.get('fewstep')} in format {stored['format']}; "
            f"this fewstep {__version__} reads format {FORMAT}."
        )
    return record_of(Record, stored, "the record")


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
        return read_json(self._record, _record_of, "the record of a run")

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


@refusals()
def open_model(
    path: str | Path,
    *,
    checkpoint: str = "last",
    ema: str | None = None,
    device: str | torch.device = "cpu",
    precision: Precision | None = None,
) -> AnyModel:
    """The model of a run folder, a checkpoint folder, a model file, or a name of the hub.

    Time points that `fewstep tune-steps` found for these very weights replace the model's own.

    Args:
        path: which; ``hub:OWNER/NAME[@REVISION]`` is fetched (see `fewstep.exchange.hub.fetching`).
        checkpoint: of a run folder: "last", "best" or a step.
        ema: which map of a checkpoint, such as "ema-0.9999" or "f"; default the first average.
        device: where to load it.
        precision: of its network, see `StoredModel.in_precision`; default the type of its weights.

    Raises:
        FewstepError: nothing of the kind is there; the message lists what is.
    """
    home, file = model_file(path, checkpoint=checkpoint, ema=ema)
    f = load_any(file, device)
    if is_hub(path):
        f.info = with_hub(path, f.info)
    if precision is not None:
        f.in_precision(precision)
    _warn_of_start(f, file)
    if taus := read_taus(home, file):
        found = {n: tuple(points) for n, points in taus.items()}
        f.trained = replace(f.trained, taus={**f.trained.taus, **found})
    return f


def load_any(file: Path, device: str | torch.device = "cpu") -> AnyModel:
    """The model of a file, of ours or of another project (see `fewstep.exchange`).

    Raises:
        FewstepError: it is neither, or damaged.
    """
    if not is_foreign(file):
        return load_model(file, device)
    imported = import_model(file)
    if imported.notes:
        notes = "; ".join(imported.notes)
        warnings.warn(f"{file}: {notes}.", FewstepWarning, stacklevel=3)
    return imported.f.to(checked_device(device))


def _warn_of_start(f: AnyModel, file: Path) -> None:
    """Say how much of a plain average, as earlier versions stored them, is initial weights."""
    decay = _PLAIN_AVERAGE.match(file.stem)
    if "average" in f.info or decay is None:
        return
    share = float(decay[1]) ** (math.inf if f.trained.step is None else f.trained.step)
    if share >= 0.01:
        warnings.warn(
            f"{file} is an average of an earlier fewstep that began with the initial weights: "
            f"{share:.1%} of it are theirs. --ema f gives the raw weights; a run that goes on "
            "forgets them.",
            FewstepWarning,
            stacklevel=3,
        )


@refusals()
def model_file(
    path: str | Path, *, checkpoint: str = "last", ema: str | None = None
) -> tuple[Path, Path]:
    """The folder that keeps what belongs to a model, and the model's file; see `open_model`."""
    if is_hub(path):
        _, file = model_file(local(path), checkpoint=checkpoint, ema=ema)
        return kept(path), file
    path = Path(path)
    if not path.exists():
        raise no_such_model(path)
    if path.is_file():
        _say_alone(path, checkpoint, ema)
        return path.parent, path
    directory = RunDirectory(path)
    if directory.started:
        directory.record()
        if checkpoint == "last" and ema is None and not directory.checkpoints.all():
            return path, directory.left()
        chosen = directory.checkpoint(checkpoint)
    elif (path / MANIFEST).is_file():
        chosen = Checkpoint.at(path).intact()
    elif (path / MODEL).is_file() and not directory.checkpoints.all():  # one that was imported
        _say_alone(path / MODEL, checkpoint, ema)
        return path, path / MODEL
    elif (exported := own_weights(path)) is not None:
        _say_alone(exported, checkpoint, ema)
        return path, exported
    elif is_foreign(path):
        _say_alone(path, checkpoint, ema)
        return path, path
    elif not directory.checkpoints.all() and holds_foreign(path):
        _say_alone(path, checkpoint, ema)
        return path, in_folder(path)
    else:
        raise _no_model(directory)
    manifest = chosen.manifest
    name = ema or manifest.default
    if name not in manifest.maps:
        there = ", ".join(manifest.maps)
        raise FewstepError(f"{chosen.path} has no map {name!r}; there is: {there}.")
    return path, chosen.file(name)


def is_model(path: Path) -> bool:
    """Whether a path is of a model rather than of images, as far as names and beginnings tell."""
    if is_hub(path) or path.suffix == ".safetensors":
        return True
    if path.is_file():
        return path.suffix.lower() != ".npz" and is_foreign(path)  # which is a zip, as weights are
    if any((path / name).is_file() for name in (RECORD, MANIFEST, MODEL)):
        return True
    if not path.is_dir() or any((path / name).is_file() for name in KINDS):
        return False
    return own_weights(path) is not None or is_foreign(path) or holds_foreign(path)


def no_such_model(path: Path) -> FewstepError:
    """The error for a path to nothing."""
    return FewstepError(f"{not_there('run or model', path)}{said_otherwise(path)}")


def _say_alone(path: Path, checkpoint: str, ema: str | None) -> None:
    """Say that a file is one model, of which nothing can be chosen."""
    asked = {"checkpoint": checkpoint} if checkpoint != "last" else {}
    asked |= {"ema": ema} if ema is not None else {}
    if asked:
        what = " and ".join(f"{name} {value!r}" for name, value in asked.items())
        warnings.warn(
            f"{path} is one model: {what} is for run folders, and is not looked at.",
            FewstepWarning,
            stacklevel=4,
        )


def _no_model(directory: RunDirectory) -> FewstepError:
    """The error for a folder that is no run; it says what of one is there."""
    newest = [c.path for c in directory.checkpoints.all()][-1:]
    models = [directory.path / MODEL] if (directory.path / MODEL).is_file() else newest
    there = f" It holds {models[0]}: give that." if models else ""
    return FewstepError(
        f"{directory.path} is neither a run folder, a checkpoint nor a model file.{there}"
    )


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
