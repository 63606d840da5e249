"""`load`: one door for every kind of data."""

from __future__ import annotations

import difflib
import glob
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.cache import cache_folder
from fewstep.data import cache as caching
from fewstep.data.arrays import CHANNELS, read_arrays
from fewstep.data.build import Item, Request, Source
from fewstep.data.dataset import Dataset
from fewstep.data.digits import read_digits
from fewstep.data.folder import find_pictures, stamp
from fewstep.data.ignored import is_ignored
from fewstep.data.labels import used
from fewstep.data.pairs import is_pairs, open_pairs
from fewstep.data.parquet import open_files, open_hub
from fewstep.data.splits import missing, sibling, split_files
from fewstep.errors import FewstepError

HUB = "hub:"
KINDS = "a folder of images, .parquet, .npz or .npy"


def load(
    source: str | Path | Dataset,
    *,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    labels: bool = True,
    skip_bad: bool = False,
    cache: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """A data set of images (or points), from whatever `source` is.

    - `"digits"`: the 1,797 handwritten digits of scikit-learn, 1 x 8 x 8 (1,437 train, 360 test).
    - a folder: its images, found recursively. The first level of subfolders names the classes;
      images without subfolders have no labels. Where it has `train/` and `test/` (or `val/`),
      `split` picks one. Files without an image's ending and hidden files are ignored.
    - a `.parquet` file, a folder or a glob of them. For another split than "train" the files
      whose names say so are taken (`test.parquet` beside `train.parquet`).
    - `"hub:owner/name[:config][@revision]"`: a data set of the Hugging Face hub.
    - a folder that `fewstep pairs` made: a diffusion model's samples, with their noise.
    - `.npz` with `arr_0` or `images` and perhaps `arr_1` or `labels`; `.npy`.
    - a `Dataset`: itself, with `size`, `channels` and `labels` applied.

    Images of folders, Parquet files and the hub are decoded once into a file in the cache folder
    and mapped into memory from then on. When one of the files changes they are decoded again; for a
    hub name without a revision nothing tells, so delete the cache file to fetch it anew.

    Args:
        split: "train", "test" or "val"; "test" and "val" stand in for each other.
        size: crop the centre to a square and resize to this; None if all share one size already.
        channels: 1 or 3; None for 3 if any file stores colour, else 1.
        labels: False to leave labels out.
        skip_bad: leave undecodable files out and count them in `Dataset.skipped`.
        cache: the cache folder; by default `FEWSTEP_CACHE` or `~/.cache/fewstep`.
        image_column, label_column: for Parquet and the hub, where they cannot be guessed.

    Raises:
        FewstepError: nothing there, nothing readable, or anything ambiguous; the message says what.
    """
    request = Request(split, size, channels, labels, skip_bad, image_column, label_column)
    _check(request)
    found = _open(source, request)
    if isinstance(found, Dataset):
        return _conform(found, request)
    dataset = _cached(found, request, cache_folder() if cache is None else Path(cache))
    return dataset if labels else dataset.without_labels()


@dataclass
class Plan:
    """How to decode a source, and what tells whether that was done before."""

    name: str
    identity: str
    state: str
    open: Callable[[], Source]


def _check(request: Request) -> None:
    if request.size is not None and request.size < 1:
        raise FewstepError(f"size must be at least 1, got {request.size}")
    if request.channels not in (None, *CHANNELS):
        raise FewstepError(f"channels must be 1 or 3, got {request.channels}")


def _open(source: str | Path | Dataset, request: Request) -> Dataset | Plan:
    if isinstance(source, Dataset):
        return source
    if source == "digits":
        return _digits(request.split)
    if isinstance(source, str) and source.startswith(HUB):
        return Plan(
            source.removeprefix(HUB),
            f"{source} {request.split}",
            "",
            lambda: open_hub(source, request),
        )
    path = Path(source).expanduser()
    if not path.exists():
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matches:
            raise _not_found(path)
        return _parquet(matches, str(path), request)
    if path.is_dir() and is_pairs(path):
        return _pairs(path, request)
    if path.is_dir():
        return _folder(path, request)
    if path.suffix == ".parquet":
        return _parquet([sibling(path, request.split)], str(path), request)
    if path.suffix in (".npz", ".npy"):
        return _arrays(sibling(path, request.split))
    raise FewstepError(f"{path} is not a kind of data that can be read: expected {KINDS}")


def _pairs(path: Path, request: Request) -> Dataset:
    if request.split != "train":
        raise missing(str(path), request.split, ("train",))
    return open_pairs(path)


def _not_found(path: Path) -> FewstepError:
    parent = path.parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [*names, "digits"], n=1)
    if not near:
        hint = "" if parent.is_dir() else f" There is no folder {parent} either."
    else:
        hint = f" Did you mean {near[0] if near[0] not in names else str(parent / near[0])!r}?"
    return FewstepError(
        f"no such data: {path}.{hint} Expected 'digits', {KINDS}, or hub:owner/name."
    )


def _folder(path: Path, request: Request) -> Plan:
    tables = sorted(f for f in path.glob("*.parquet") if f.is_file() and not is_ignored(f.name))
    if tables:
        return _parquet(split_files(tables, request.split, str(path)), str(path), request)
    pictures = find_pictures(path.absolute(), request)
    identity = f"{pictures.origin} {request.split} {request.labels}"
    return Plan(pictures.name, identity, pictures.state, lambda: pictures)


def _parquet(files: list[Path], origin: str, request: Request) -> Plan:
    wrong = [file for file in files if file.suffix != ".parquet"]
    if wrong:
        raise FewstepError(f"{origin}: a glob may name .parquet files only, not {wrong[0].name}")
    if len(files) > 1:
        files = split_files(files, request.split, origin)
    name = Path(files[0]).parent.absolute().name
    columns = f"{request.image_column} {request.label_column} {request.labels}"
    state = hashlib.sha256("".join(stamp(file.absolute()) for file in files).encode()).hexdigest()
    identity = "\n".join(str(file.absolute()) for file in files)
    return Plan(name, f"{identity} {columns}", state, lambda: open_files(files, request, name))


def _arrays(path: Path) -> Dataset:
    images, labels, classes = read_arrays(path)
    # Nothing but points can have so few dimensions: here the shape alone tells.
    points = images.dtype.kind == "f" and images.ndim <= 2
    try:
        dataset = Dataset.from_arrays(images, labels, classes, path.stem, points)
    except FewstepError as error:
        raise FewstepError(f"{path}: {error}") from error
    if dataset.labels is None:
        return dataset
    labels, names = used(dataset.labels, dataset.classes)
    return replace(dataset, labels=labels, classes=names)


def _digits(split: str) -> Dataset:
    if split not in ("train", "test"):
        raise missing("digits", split, ("train", "test"))
    whole = Dataset.from_arrays(*read_digits(), name="digits")
    train, test = whole.stratified_split(360 / 1797, seed=0)
    return train if split == "train" else test


@dataclass
class Rows:
    """The images of a data set in memory, to be resized or recoloured (a `Source`)."""

    dataset: Dataset

    def __post_init__(self) -> None:
        self.name, self.origin = self.dataset.name, self.dataset.source
        self.classes = None if self.dataset.labels is None else self.dataset.classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Item]:
        labels = self.dataset.labels
        for i in range(len(self)):
            row = i if self.dataset.rows is None else int(self.dataset.rows[i])
            label = -1 if labels is None else int(labels[i])
            yield Item(f"image {i}", self.dataset.stored[row].numpy(), label)


def _conform(dataset: Dataset, request: Request) -> Dataset:
    dataset = dataset if request.labels else dataset.without_labels()
    if not dataset.is_images:
        if request.size or request.channels:
            raise FewstepError(f"{dataset.name}: size and channels are for images, not points")
        return dataset
    channels, height, width = dataset.shape
    size = request.size
    fits = size in (None, height) and size in (None, width)
    if fits and request.channels in (None, channels):
        return dataset
    if dataset.stored.is_floating_point():
        raise FewstepError(
            f"{dataset.name}: float images of shape {dataset.shape} can be neither resized nor "
            "recoloured; convert them to uint8 first"
        )
    return caching.in_memory(Rows(dataset), request._replace(channels=request.channels or channels))


def _cached(plan: Plan, request: Request, folder: Path) -> Dataset:
    key = hashlib.sha256(f"{plan.identity} {request.size} {request.channels}".encode())
    stem = re.sub(r"[^\w.-]+", "-", plan.name) or "data"
    path = folder.expanduser() / f"{stem}-{key.hexdigest()[:16]}.safetensors"
    found = caching.read(path, plan.state)
    if found is not None and (request.skip_bad or not found.skipped):
        return found
    source = plan.open()
    try:
        caching.write(path, plan.state, source, request)
    except OSError as error:
        warnings.warn(
            f"decoded images cannot be kept in {folder} ({error}); they are held in memory and "
            "decoded again next time. Set FEWSTEP_CACHE to a folder with room.",
            stacklevel=3,
        )
        return caching.in_memory(source, request)
    return caching.read(path, plan.state) or caching.in_memory(source, request)
