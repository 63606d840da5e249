"""What a run or a model file says of itself, from headers and records: no weights are loaded."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.exchange.origin import with_hub
from fewstep.exchange.sources import is_foreign
from fewstep.hub_name import is_hub
from fewstep.model_file import HEADER, Header, open_model_file
from fewstep.named_tensors import LATENTS
from fewstep.plugins.used import Used, among, options
from fewstep.runs.directory import RunDirectory
from fewstep.runs.opening import load_any, model_file, no_such_model
from fewstep.runs.record import Record
from fewstep.runs.stored_taus import read_taus
from fewstep.trained import Trained, json_of

APART = ("path", "file", "bytes", "finished", "steps", "commands", "note", "sources", "begun by")
"""What two of them always have of their own."""
FREE = (
    "recipe",
    "objective",
    "data",
    "teacher",
    "weak",
    "average",
    "encoder",
    "origin",
    "lineage",
)  # what a header says besides


@dataclass(frozen=True)
class Held:
    """What a model file holds.

    Args:
        file: its path.
        header: what it says of itself; time points that were found for it are the model's.
        numbers: of the network's weights.
        decoder: of the weights of a latent model's autoencoder.
        types: of the weights.
    """

    file: Path
    header: Header
    numbers: int
    decoder: int
    types: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Size of the file, or of all files of a folder."""
        files = self.file.rglob("*") if self.file.is_dir() else [self.file]
        return sum(file.stat().st_size for file in files if file.is_file())


@dataclass(frozen=True)
class Described:
    """A run, a checkpoint or a model file.

    Args:
        path: as it was given.
        record: of a run.
        held: the model; None of a run that has none yet.
        note: why there is no model.
    """

    path: Path
    record: Record | None
    held: Held | None
    note: str = ""

    @property
    def trained(self) -> Trained:
        """What the model can do; of a run without one nothing is known."""
        return Trained() if self.held is None else self.held.header.trained

    @property
    def said(self) -> dict[str, Any]:
        """All of it, as JSON values, in parts that are tables."""
        parts: dict[str, Any] = {"path": str(self.path)}
        if self.held is not None:
            parts |= _said_of(self.held)
        if (record := self.record) is not None:
            parts["recipe"] = record.recipe
            parts["settings"] = {"objective": str(record.run.objective)} | record.run.flat()
            parts["sources"] = {name: asdict(s) for name, s in record.sources.items()}
            parts["steps"] = record.run.training.steps
            parts["finished"] = (self.trained.step or 0) >= record.run.training.steps
            parts["begun by"] = {"fewstep": record.fewstep, "torch": record.torch}
        parts["commands"] = self.commands
        return parts | ({"note": self.note} if self.note else {})

    @property
    def plugins(self) -> tuple[Used, ...]:
        """The user's own code that the run, or of a file alone the model, was made with."""
        if self.record is not None:
            return self.record.plugins
        return () if self.held is None else self.held.header.plugins

    @property
    def needed(self) -> tuple[Used, ...]:
        """Those that the model file itself asks for."""
        return () if self.held is None else among(self.held.header.plugins, self.plugins)

    @property
    def commands(self) -> list[str]:
        """How to go on with it on the command line."""
        place = shlex.quote(str(self.path))
        end = f"-o samples.png{options(self.needed)}"
        ways = [f"fewstep sample {place} {how} {end}" for how in self._ways()]
        unfinished = self.record is not None and not (
            (self.trained.step or 0) >= self.record.run.training.steps
        )
        train = f"fewstep train {place}{options(self.plugins)}"
        return [train] * (unfinished and not is_hub(self.path)) + [
            " ".join(way.split()) for way in ways
        ]

    def _ways(self) -> list[str]:
        """Arguments of sample that suit the model."""
        trained = self.trained
        label = f"--label {shlex.quote(trained.classes[0])}" if trained.classes else ""
        if self.held is None:
            return []
        if not trained.known:
            return ["-n 64 --sampler walk", "-n 64 --sampler jumps"]
        guided = ["-n 64 --guidance 2"] * (trained.null_class and trained.denoises)
        if trained.steps is not None:
            return ["-n 64", *[f"-n 64 {label}"] * bool(label)]
        if trained.solves:
            return ["-n 64", f"-n 64 --solver dpm2 --steps 10 {label}", *guided]
        few = [f"-n 64 --steps {n}" for n in (1, 2)]
        return [*few, f"-n 64 --steps 4 {label}"] if label or trained.maps_to_any else few

    def flat(self) -> dict[str, Any]:
        """What two of them are compared by: each value under the names that lead to it."""
        said = {name: value for name, value in self.said.items() if name not in APART}
        settings = said.pop("settings", {})
        return _flat(said | ({"objective": settings["objective"]} if settings else {})) | settings


def described(path: Path, *, checkpoint: str = "last", ema: str | None = None) -> Described:
    """A run folder, a checkpoint folder or a model file, of ours or of another project.

    Raises:
        FewstepError: nothing of the kind is there; a damaged file or record.
    """
    home = RunDirectory.of(path)
    if not home.path.exists():
        raise no_such_model(path)
    record = home.record() if home.path.is_dir() and home.started else None
    if record is not None and not home.has_weights:
        return Described(path, record, None, "there is no checkpoint yet")
    folder, file = model_file(path, checkpoint=checkpoint, ema=ema)
    return Described(path, record, _held(path, folder, file))


def _held(path: Path, folder: Path, file: Path) -> Held:
    if is_foreign(file):
        f = load_any(file)
        header = Header.read(f.header()[HEADER])
        shapes = {name: tuple(x.shape) for name, x in f.tensors().items()}
        types = {name: x.dtype for name, x in f.tensors().items()}
    else:
        with open_model_file(file) as opened:
            header, shapes, types = opened.header, opened.shapes, opened.types
    found = {n: tuple(points) for n, points in read_taus(folder, file).items()}
    numbers = {name: math.prod(shape) for name, shape in shapes.items()}
    decoder = sum(n for name, n in numbers.items() if name.startswith(LATENTS))
    return Held(
        file,
        replace(header.with_taus(found), info=with_hub(path, header.info)),
        sum(numbers.values()) - decoder,
        decoder,
        tuple(sorted({str(t).removeprefix("torch.") for t in types.values()})),
    )


def _said_of(held: Held) -> dict[str, Any]:
    header = held.header
    parts: dict[str, Any] = {
        "file": str(held.file),
        "bytes": held.bytes,
        "parameters": held.numbers,
        "types": list(held.types),
        "kind": header.trained.kind,
        "trained": json_of(header.trained),
        "network": header.network,
        "process": header.parameterization,
    }
    if header.latents is not None:
        parts |= {"latents": header.latents, "decoder parameters": held.decoder}
    return parts | {name: header.info[name] for name in FREE if name in header.info}


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{above}{name}.") if inner else {f"{above}{name}": value}
    return flat


def differences(a: Described, b: Described) -> dict[str, tuple[Any, Any]]:
    """By name, what two of them say differently; None where one says nothing."""
    ours, theirs = a.flat(), b.flat()
    names = [*ours, *(name for name in theirs if name not in ours)]
    pairs = {name: (_plain(ours.get(name)), _plain(theirs.get(name))) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
