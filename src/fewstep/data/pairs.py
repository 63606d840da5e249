"""Synthetic pairs (noise, sample, label) of a diffusion model, in a folder of shards.

FOLDER/pairs.json                the manifest: how the pairs were made
FOLDER/shard-00000.safetensors   `noise` and `sample` float32 [m, *shape], `label` int64 [m] for
                                 conditional models, `trajectory` [m, M, *shape] where asked for

A shard is written under another name and renamed when it is whole, and carries the key of its
manifest and a hash of its tensors. So a folder that was being written when its process was killed
holds nothing but whole shards, and they need not be made again. `fewstep.runs.pairs` makes such
a folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.data.dataset import Dataset
from fewstep.data.sharded import Sharded
from fewstep.digest import sha256_of_weights
from fewstep.errors import FewstepError
from fewstep.files import read_json, replacing, write_json, write_tensors

FORMAT = 1
MANIFEST = "pairs.json"
KEY = "fewstep_pairs"  # of the manifest's key in a shard's metadata
SHA256 = "sha256"  # of the hash of a shard's tensors, there too
COLUMNS: tuple[str, ...] = ("noise", "trajectory")
FREE = (
    "path",
    "classes",
    "data",
    "beside",
    "sampler",
    "lineage",
)  # entries that do not change a pair


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How the pairs of a folder are made: all that decides their bits.

    Args:
        teacher: SHA-256 of the diffusion model.
        solver: the spec of its sampler's solver; of the whole sampler where the solver and the
            steps do not say everything.
        steps: the sampler's steps.
        seed: decides the noise of every pair.
        n: number of pairs.
        shard: pairs in a shard; the last may have fewer.
        shape: of one sample.
        conditional: whether pairs have a label; pair ``i`` is of class ``i`` modulo their number.
        times: of the states of a trajectory, decreasing to the sample's; empty without.
        process: the parameterization's configuration.
        path: where the model was.
        classes: their names.
        data: the real images that the model was trained on, as a record; empty where not known.
        beside: where those are from the pairs' folder; None for data that are no files.
        sampler: the spec of the sampler; empty in pairs of earlier versions.
        lineage: where the model's weights were from, and under which licences.
    """

    teacher: str
    solver: str
    steps: int
    seed: int
    n: int
    shard: int
    shape: tuple[int, ...]
    conditional: bool
    times: tuple[float, ...] = ()
    process: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    classes: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    beside: str | None = None
    sampler: str = ""
    lineage: tuple[dict[str, Any], ...] = ()

    @property
    def shards(self) -> int:
        """Their number."""
        return -(-self.n // self.shard)

    def rows(self, i: int) -> range:
        """The pairs of shard ``i``."""
        return range(i * self.shard, min((i + 1) * self.shard, self.n))

    def tensors(self, i: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors of shard ``i``."""
        m = len(self.rows(i))
        found: dict[str, tuple[int, ...]] = dict.fromkeys(("noise", "sample"), (m, *self.shape))
        if self.conditional:
            found["label"] = (m,)
        if self.times:
            found["trajectory"] = (m, len(self.times), *self.shape)
        return found

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the pairs, as plain JSON values."""
        stored = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in stored.items() if name not in FREE}

    @cached_property
    def key(self) -> str:
        """Hash of the settings, by which a shard says that it belongs here."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def check_same(self, folder: Path, before: Manifest) -> None:
        """Raise `FewstepError` where the folder's pairs are made otherwise; each point is named."""
        changed = [
            f"{name} was {before.settings[name]!r}, now {value!r}"
            for name, value in self.settings.items()
            if before.settings[name] != value
        ]
        if changed:
            raise FewstepError(
                f"{folder} holds pairs that were made otherwise: {'; '.join(changed)}. "
                "Give another folder."
            )


def is_begun(folder: Path) -> bool:
    """Whether a folder holds pairs that were made: a manifest alone is of no consequence."""
    return is_pairs(folder) and any(folder.glob("shard-*.safetensors"))


def is_pairs(folder: Path) -> bool:
    """Whether a folder holds pairs, finished or not."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """How the pairs of a folder were made.

    Raises:
        FewstepError: the manifest is not one, or of another version.
    """
    remedy = "Delete it and make the pairs again with fewstep pairs."
    return read_json(folder / MANIFEST, _parse, "a manifest of pairs", remedy)


def _parse(stored: dict[str, Any]) -> Manifest:
    version = stored.pop("format")
    if version != FORMAT:
        raise FewstepError(f"it has format {version}; this fewstep reads format {FORMAT}.")
    lists = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
    manifest = Manifest(**(stored | lists))
    for name, fits in _FORMS.items():
        if not fits(getattr(manifest, name)):
            raise FewstepError(f"its {name} is {str(getattr(manifest, name))[:80]!r}.")
    if manifest.conditional and not manifest.classes:
        raise FewstepError("its pairs have labels, but it names no classes.")
    return manifest


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**63


def _all(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, tuple) and all(map(fits, values))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("n", "shard", "steps"), _is_count),
    **dict.fromkeys(("teacher", "solver", "path", "sampler"), _is(str)),
    **dict.fromkeys(("process", "data"), _is(dict)),
    "seed": lambda value: type(value) is int and value >= 0,
    "conditional": _is(bool),
    "shape": lambda value: bool(value) and _all(_is_count)(value),
    "times": _all(lambda time: type(time) in (int, float) and math.isfinite(time)),
    "classes": _all(_is(str)),
    "beside": lambda value: value is None or type(value) is str,
}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest; it appears whole or not at all.

    Raises:
        FewstepError: the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FewstepError(f"cannot write pairs to {folder}: {error}.") from error
    write_json(folder / MANIFEST, {"format": FORMAT, **asdict(manifest)})


def shard_path(folder: Path, i: int) -> Path:
    return folder / f"shard-{i:05d}.safetensors"


def write_shard(folder: Path, manifest: Manifest, i: int, tensors: dict[str, Tensor]) -> None:
    """Write a shard; it appears whole or not at all.

    Raises:
        FewstepError: the disk is full or not writable.
    """
    path = shard_path(folder, i)
    note = {KEY: manifest.key, SHA256: sha256_of_weights("", tensors)}
    try:
        with replacing(path) as partial:
            write_tensors(partial, tensors, note)
    except (SafetensorError, OSError) as error:
        raise FewstepError(f"cannot write the pairs {path}: {error}.") from error


def read_shard(folder: Path, manifest: Manifest, i: int) -> dict[str, Tensor]:
    """The tensors of a shard, mapped from its file and checked whole.

    Raises:
        FewstepError: the shard is missing, damaged, or of other pairs.
    """
    path = shard_path(folder, i)
    if not path.is_file():
        raise FewstepError(f"{path} is missing: make the rest of the pairs with fewstep pairs.")
    try:
        with safe_open(path, "pt") as file:
            note = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FewstepError(f"{path} is damaged ({error}): {_REMEDY}") from error
    if note.get(KEY) != manifest.key:
        raise FewstepError(f"{path} is not a shard of {folder / MANIFEST}: {_REMEDY}")
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != manifest.tensors(i):
        raise FewstepError(f"{path} holds {found}, not {manifest.tensors(i)}: {_REMEDY}")
    if damage := _damage(manifest, tensors, note.get(SHA256)):
        raise FewstepError(f"{path} is damaged ({damage}): {_REMEDY}")
    return tensors


def _damage(manifest: Manifest, tensors: dict[str, Tensor], sha256: str | None) -> str | None:
    """What is wrong with a shard's values; shards of earlier versions carry no hash."""
    if sha256 is not None and sha256_of_weights("", tensors) != sha256:
        return "its content has changed"
    for name, values in tensors.items():
        wanted = torch.int64 if name == "label" else torch.float32
        if values.dtype != wanted:
            return f"{name} is {values.dtype}, not {wanted}"
        if name != "label" and not all(bool(part.isfinite().all()) for part in values.split(64)):
            return f"{name} has NaN or infinities"
    label = tensors.get("label")
    if label is not None and not 0 <= int(label.min()) <= int(label.max()) < len(manifest.classes):
        return f"a label is none of the {len(manifest.classes)} classes"
    return None


_REMEDY = "delete it and make it again with fewstep pairs."


def open_pairs(folder: Path) -> Dataset:
    """The pairs of a finished folder as a data set of samples, mapped into memory.

    Its columns are `noise` and, where the pairs have them, `trajectory` and its `times` [M]; its
    origin is the manifest.

    Raises:
        FewstepError: the manifest or a shard is missing, damaged or does not fit.
    """
    manifest = read_manifest(folder)
    shards = [read_shard(folder, manifest, i) for i in range(manifest.shards)]
    columns: dict[str, Sharded] = {
        name: Sharded([shard[name] for shard in shards]) for name in COLUMNS if name in shards[0]
    }
    if manifest.times:
        columns["times"] = Sharded([torch.tensor(manifest.times).expand(manifest.n, -1)])
    labels = torch.cat([shard["label"] for shard in shards]) if manifest.conditional else None
    return Dataset(
        Sharded([shard["sample"] for shard in shards]),
        labels,
        manifest.classes,
        folder.absolute().name,
        str(folder.absolute()),
        columns=columns,
        origin=asdict(manifest),
    )
