"""The folder of a run: what it was started with, its checkpoints, its models.

RUN/run.json                    the settings, whole
RUN/metrics.jsonl, events.*     the log, as lines of JSON and for TensorBoard
RUN/samples/step-*.png          sample grids
RUN/checkpoints/step-*/         checkpoints; every map in them is a model file
RUN/taus.json                   time points that `fewstep tune-steps` found
RUN/model.safetensors           the finished model, one file that describes itself
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

import fewstep
from fewstep.errors import FewstepError, FewstepWarning, not_there, refusals
from fewstep.flow_map import FlowMap
from fewstep.precision import Precision
from fewstep.recipes.run import Run
from fewstep.recipes.stored_taus import read_taus
from fewstep.training.checkpoint import Checkpoint, Checkpoints

FORMAT = 1
MODEL = "model.safetensors"
_PLAIN_AVERAGE = re.compile(r"ema-(0\.\d+)$")


class RunDirectory:
    """A run's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def _record(self) -> Path:
        return self.path / "run.json"

    @property
    def started(self) -> bool:
        """Whether a run was started here."""
        return self._record.is_file()

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return (self.path / MODEL).is_file()

    def record(self) -> dict[str, Any]:
        """What the run was started with.

        Raises:
            FewstepError: no run there, an unreadable record, or one of another version.
        """
        if not self.started:
            raise FewstepError(f"{self.path} is not a run folder: it has no run.json.")
        try:
            record = json.loads(self._record.read_text())
            version = record["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FewstepError(self._unreadable(error)) from error
        if version != FORMAT:
            raise FewstepError(
                f"{self.path} was made by fewstep {record.get('fewstep')} in format {version}; "
                f"this fewstep {fewstep.__version__} reads format {FORMAT}."
            )
        return record

    def run(self) -> tuple[str, Run]:
        """The recipe's name and the run."""
        record = self.record()
        try:
            return record["recipe"], Run.from_json(record["run"])
        except (KeyError, TypeError, AttributeError) as error:
            raise FewstepError(self._unreadable(error)) from error

    def _unreadable(self, error: Exception) -> str:
        return f"{self._record} is not the record of a run ({type(error).__name__}: {error})."

    def start(self, recipe: str, run: Run) -> None:
        """Record a new run; nothing where one is recorded.

        Raises:
            FewstepError: the folder is not writable.
        """
        if self.started:
            return
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            partial = self._record.with_suffix(".partial")
            partial.write_text(
                json.dumps(
                    {
                        "format": FORMAT,
                        "fewstep": fewstep.__version__,
                        "torch": torch.__version__,
                        "recipe": recipe,
                        "run": run.to_json(),
                    },
                    indent=1,
                )
            )
            os.replace(partial, self._record)
        except OSError as error:
            raise FewstepError(f"cannot write the run folder {self.path}: {error}.") from error

    def check_same(self, recipe: str, run: Run) -> None:
        """Raise `FewstepError` where a run of other settings is here; each of them is named."""
        if not self.started:
            return
        name, before = self.run()
        if name != recipe:
            raise FewstepError(
                f"{self.path} holds a run of {name}, not {recipe}: give another --out."
            )
        then, now = (Run.from_json(r.to_json()).flat() for r in (before, run))
        changed = [
            f"{key} was {then.get(key)!r}, now {now.get(key)!r}"
            for key in sorted(then.keys() | now.keys())
            if then.get(key) != now.get(key)
        ]
        if changed:
            raise FewstepError(
                f"{self.path} was started with other settings: {'; '.join(changed)}. "
                "Give another --out to start anew, or leave them as they were to resume."
            )

    def checkpoint(self, which: str = "last") -> Checkpoint:
        """A checkpoint: "last" (the newest intact), "best", or a step."""
        checkpoints = Checkpoints(self.path / "checkpoints")
        found = {str(c.step): c for c in checkpoints.all()}
        chosen = {"last": checkpoints.latest, "best": checkpoints.best}.get(
            which, lambda: found.get(which)
        )()
        if chosen is None:
            there = ", ".join(["last", "best", *found]) if found else "no checkpoint yet"
            raise FewstepError(f"{self.path} has no checkpoint {which!r}; there is: {there}.")
        return chosen


@refusals()
def open_model(
    path: str | Path,
    *,
    checkpoint: str = "last",
    ema: str | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
) -> FlowMap:
    """The model of a run folder, a checkpoint folder, or a model file.

    Time points that `fewstep tune-steps` found for these very weights replace the model's own.

    Args:
        path: which.
        checkpoint: of a run folder: "last", "best" or a step.
        ema: which map of a checkpoint, such as "ema-0.9999" or "f"; default the first average.
        device: where to load it.
        precision: of its network; see `FlowMap.in_precision`.

    Raises:
        FewstepError: nothing of the kind is there; the message lists what is.
    """
    home, file = model_file(path, checkpoint=checkpoint, ema=ema)
    f = FlowMap.load(file, device).in_precision(precision)
    _warn_of_start(f, file)
    if taus := read_taus(home, file):
        f.info["taus"] = {**f.info.get("taus", {}), **taus}
    return f


def _warn_of_start(f: FlowMap, file: Path) -> None:
    """Say how much of a plain average, as earlier versions stored them, is initial weights."""
    decay = _PLAIN_AVERAGE.match(file.stem)
    if "average" in f.info or decay is None:
        return
    share = float(decay[1]) ** f.info.get("step", math.inf)
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
    path = Path(path)
    if not path.exists():
        raise not_there("run or model", path)
    if path.is_file():
        return path.parent, path
    home, directory = path, RunDirectory(path)
    if directory.started:
        directory.record()
        path = directory.checkpoint(checkpoint).path
    elif not (path / "checkpoint.json").is_file():
        raise FewstepError(f"{path} is neither a run folder, a checkpoint nor a model file.")
    maps = sorted(p.stem for p in path.glob("*.safetensors") if p.stem != "optimizer")
    name = ema or _default_map(path)
    if name not in maps:
        raise FewstepError(f"{path} has no map {name!r}; there is: {', '.join(maps)}.")
    return home, path / f"{name}.safetensors"


def _default_map(path: Path) -> str:
    """The map of a checkpoint that is sampled unless another is asked for."""
    try:
        return json.loads((path / "checkpoint.json").read_text())["default"]
    except (OSError, ValueError, KeyError) as error:
        raise FewstepError(f"cannot read {path / 'checkpoint.json'}: {error!r}.") from error
