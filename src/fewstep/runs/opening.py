"""The model that a path names: of a run, of a checkpoint, of a file, of the hub, or foreign."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from fewstep.distributed import checked_device
from fewstep.errors import FewstepError, FewstepWarning, not_there, refusals
from fewstep.exchange.diffusers.writing import own_weights
from fewstep.exchange.files.shards import in_folder
from fewstep.exchange.hub.fetching import kept, local
from fewstep.exchange.origin import with_hub
from fewstep.exchange.sources import holds_foreign, import_model, is_foreign
from fewstep.files import RECORD
from fewstep.hub_name import is_hub, said_otherwise
from fewstep.models import AnyModel, load_model
from fewstep.precision import Precision
from fewstep.runs.directory import KINDS, MODEL, RunDirectory
from fewstep.runs.stored_taus import read_taus
from fewstep.training.checkpoint import MANIFEST, Checkpoint

_PLAIN_AVERAGE = re.compile(r"ema-(0\.\d+)$")


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
