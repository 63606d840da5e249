"""`load`: one door for every kind of data."""

from __future__ import annotations

import difflib
import glob
import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from fewstep.cache import cache_folder, expanded
from fewstep.data import cache as caching
from fewstep.data.archives import ENDINGS as ARRAYS
from fewstep.data.archives import labels_beside, read_arrays
from fewstep.data.arrays import CHANNELS
from fewstep.data.build import Request, Source, headers, survey
from fewstep.data.conform import conform
from fewstep.data.dataset import Dataset
from fewstep.data.described import described
from fewstep.data.folder import ENDINGS, NOT_READ, find_pictures
from fewstep.data.idx import ENDINGS as IDX
from fewstep.data.idx import images_of, is_idx, name_of, of_split, read_idx
from fewstep.data.ignored import check_is_data
from fewstep.data.labels import used
from fewstep.data.listing import list_files, stamp
from fewstep.data.pairs import is_pairs, open_pairs
from fewstep.data.parquet import open_files, open_hub
from fewstep.data.readers import READERS
from fewstep.data.splits import WORDS, missing, siblings, split_files
from fewstep.data.tables import ENDING as TABLES
from fewstep.data.tables import of_one_set
from fewstep.data.tiles import tiled
from fewstep.errors import FewstepError, FewstepWarning, listed, refusal, refusals, unknown
from fewstep.fit_name import FITS, FitName
from fewstep.hub_name import HUB
from fewstep.whole import whole

KINDS = "a folder of images, .parquet, .npz, .npy or IDX files"


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
    fit: FitName = "crop",
    encoder: str | None = None,
    text_column: str | None = None,
    embeddings: str | None = None,
) -> Dataset:
    """A data set of images (or points), from whatever `source` is.

    - `"digits"`: the 1,797 handwritten digits of scikit-learn, 1 x 8 x 8 (1,437 train, 360 test).
    - a folder: its images, found recursively. The first level of subfolders names the classes;
      images without subfolders have no labels. Files without an image's ending, hidden ones and
      those that systems leave (thumbnails, recycle bins) are ignored.
    - a `.parquet` file, a glob of them, or a folder with them, also as it came from the hub.
    - `"hub:owner/name[:config][@revision]"`: a data set of the Hugging Face hub.
    - a folder that `fewstep pairs` made: a diffusion model's samples, with their noise.
    - `train-images-idx3-ubyte[.gz]` with its labels beside it, or a folder with them: MNIST,
      EMNIST, KMNIST, Fashion-MNIST, QMNIST; `"fashion-mnist"` where it is installed.
    - `.npz` with `arr_0` or `images` and perhaps `arr_1` or `labels`; `.npy`.
    - `"name:where"` or `"name"`, of a reader that a plugin has added to `fewstep.data.READERS`.
    - a `Dataset`: itself, with `size`, `channels` and `labels` applied.

    `split` picks images by the names of files and folders: `fewstep.data.splits` has the one rule.
    Data that are not divided are all of "train". The classes are those that the split's images
    have, called as the labels are, in the order of `fewstep.data.labels.natural` (or that of their
    file); of a folder's other splits, first those of the training images.

    Images of folders, Parquet files and the hub are decoded once into a file in the cache folder
    and mapped into memory from then on. When one of the files changes they are decoded again; for a
    hub name without a revision nothing tells, so delete the cache file to fetch it anew.

    Args:
        split: "train", "test" or "val", or another word for one of them such as "validation";
            "test" and "val" stand in for each other.
        size: crop the centre to a square and resize to this; None if all share one size already.
        encoder: ``module:function`` that makes embeddings of the texts beside the images; the data
            set has them as its column "embedding".
        text_column: of the texts; several, separated by commas, are put together.
        embeddings: a file, ``.npy`` or ``.safetensors``, or columns of numbers, that give them.
        fit: what else to do with pictures of other shapes: see `fewstep.data.fits`.
        channels: 1 or 3; None for 3 if any file stores colour, else 1.
        labels: False to leave labels out.
        skip_bad: leave undecodable files out and count them in `Dataset.skipped`.
        cache: the cache folder; by default `FEWSTEP_CACHE` or `~/.cache/fewstep`.
        image_column, label_column: names of columns (Parquet, the hub) or arrays (`.npz`), where
            they cannot be guessed.

    Raises:
        FewstepError: nothing there, nothing readable, or anything ambiguous; the message says what.
    """
    request = Request(
        split,
        size,
        channels,
        labels,
        skip_bad,
        image_column,
        label_column,
        fit,
        encoder,
        text_column,
        embeddings,
    )
    return load_requested(source, request, cache)


@refusals()
def load_requested(
    source: str | Path | Dataset, request: Request, cache: Path | None = None
) -> Dataset:
    """`load` of what a request says."""
    request = request._replace(split=WORDS.get(request.split.lower(), request.split))
    _check(request)
    found = _open(source, request)
    folder = cache_folder() if cache is None else Path(cache)
    if isinstance(found, Dataset):
        return described(conform(found, request), request, lambda: None, folder)
    dataset = described(_cached(found, request, folder), request, found.open, folder)
    return dataset if request.labels else dataset.without_labels()


@refusals()
def sizes_of(source: str | Path, request: Request) -> list[tuple[int, int, bool]]:
    """Height, width and colour of every image of a source, as its headers say.

    Raises:
        FewstepError: nothing there or nothing readable; points, which have no size.
    """
    found = _open(source, request)
    if not isinstance(found, Dataset):
        return [size for size in headers(found.open()) if size is not None]
    if not found.is_images:
        raise FewstepError(f"{source} holds points, not images.")
    channels, height, width = found.shape
    return [(height, width, channels == 3)] * len(found)


@dataclass
class Plan:
    """How to decode a source, and what tells whether that was done before."""

    name: str
    identity: str
    state: str
    open: Callable[[], Source]


def _check(request: Request) -> None:
    if request.size is not None and whole(request.size, "size") < 1:
        raise FewstepError(f"size must be at least 1, got {request.size}")
    if request.fit not in FITS:
        raise unknown("fit", str(request.fit), FITS)
    if request.fit == "tile" and request.size is None:
        raise FewstepError("fit=tile cuts pictures into tiles: say of which size (--size)")
    if request.channels not in (None, *CHANNELS):
        raise FewstepError(f"channels must be 1 or 3, got {request.channels}")


def _open(source: str | Path | Dataset, request: Request) -> Dataset | Plan:
    if not isinstance(source, str | PathLike | Dataset):
        raise FewstepError(
            f"data are named by a text or a path, not by {type(source).__name__}: "
            "Dataset.from_arrays takes arrays"
        )
    if isinstance(source, Dataset):
        _without_columns(source.name, request)
        return source
    if source == "":
        raise FewstepError(f"no data named: give 'digits', {KINDS}, or hub:owner/name")
    if isinstance(source, str) and READERS.knows(source):
        _without_columns(source, request)
        return READERS.read(source, request.split)
    if isinstance(source, str) and source.startswith(HUB):
        identity = f"{source} {request.split} {_columns(request)}"
        return Plan(source.removeprefix(HUB), identity, "", lambda: open_hub(source, request))
    try:
        return _open_path(expanded(source), request)
    except FewstepError:
        raise
    except OSError as error:
        raise refusal(error) from error
    except (ValueError, RuntimeError) as error:  # no such path; a home that is not known
        raise FewstepError(f"cannot read the data {str(source)!r}: {error}") from error


def _open_path(path: Path, request: Request) -> Dataset | Plan:
    if not path.exists():
        pattern = str(path)
        found = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else []
        matches = sorted(map(Path, found))
        if not matches:
            raise _not_found(path)
        return _globbed(matches, pattern, request)
    if path.is_dir():
        return _folder(path, request)
    _check_file(path)
    ending = path.suffix.lower()
    if ending == TABLES:
        return _tables(siblings(path, request.split), request)
    if ending in ARRAYS:
        return _arrays(_only(siblings(path, request.split), path.parent), request)
    if is_idx(path.name):
        return _idx(_only(of_split(path, request.split), path.parent), request)
    raise FewstepError(f"{path} is not a kind of data that can be read: expected {KINDS}")


def _check_file(path: Path) -> None:
    """Raise `FewstepError` for what would be waited for instead of read."""
    if not path.is_file():
        raise FewstepError(f"{path} is no file but a pipe, a socket, a device or a folder")


def _columns(request: Request) -> str:
    return f"{request.image_column} {request.label_column} {request.labels}"


def _without_columns(what: str, request: Request) -> None:
    """Raise `FewstepError` where a column is named of data that have none."""
    if request.image_column or request.label_column:
        raise FewstepError(
            f"{what} has no columns: image_column and label_column (--image-column, "
            "--label-column) are for Parquet files, the hub and .npz"
        )


def _pairs(path: Path, request: Request) -> Dataset:
    if request.split != "train":
        raise missing(str(path), request.split, ("train",))
    return open_pairs(path)


def _not_found(path: Path) -> FewstepError:
    parent = path.parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [*names, *READERS], n=1)
    if not near:
        hint = "" if parent.is_dir() else f" There is no folder {parent} either."
    else:
        hint = f" Did you mean {near[0] if near[0] not in names else str(parent / near[0])!r}?"
    return FewstepError(
        f"no such data: {path}.{hint} Expected 'digits', {KINDS}, or hub:owner/name."
    )


def _folder(path: Path, request: Request) -> Dataset | Plan:
    if is_pairs(path):
        _without_columns(str(path), request)
        return _pairs(path, request)
    check_is_data(path)
    names = list_files(path, (TABLES, *ARRAYS, *IDX, *ENDINGS, *NOT_READ))
    tables = _ending(names, (TABLES,))
    idx = [name for name in names if is_idx(name)]
    pictures = _ending(names, (*ENDINGS, *NOT_READ))
    arrays = [path / name for name in _ending(names, ARRAYS) if "/" not in name]
    if tables:
        files = of_one_set(path, tables)
        if pictures:
            raise FewstepError(
                f"{path} holds Parquet files ({tables[0]}) and images ({pictures[0]}): pass the "
                f"path of either, such as {_glob_of(files[0])}"
            )
        return _tables(split_files(files, request.split, str(path)), request)
    if idx:
        return _idx_folder(path, idx, [*pictures, *arrays], request)
    if arrays and not pictures:
        return _arrays(_only(split_files(arrays, request.split, str(path)), path), request)
    _without_columns(f"the folder of images {path}", request)
    if arrays:
        _say(f"{path}: its images are read, its arrays ({_names(arrays)}) are not; they have paths")
    found = find_pictures(path.absolute(), pictures, request)
    identity = f"{found.origin} {request.split} {request.labels}"
    return Plan(found.name, identity, found.state, lambda: found)


def _idx_folder(
    path: Path, names: list[str], others: Sequence[str | Path], request: Request
) -> Dataset:
    images = images_of(path, names)
    if others:
        raise FewstepError(
            f"{path} holds IDX files ({names[0]}) and other data ({others[0]}): pass the path of "
            f"either, such as {images[0]}"
        )
    return _idx(_only(split_files(images, request.split, str(path)), path), request)


def _idx(path: Path, request: Request) -> Dataset:
    _check_file(path)
    _without_columns(str(path), request)
    data = of_arrays(path, *read_idx(path, request.labels))
    return replace(data, name=name_of(path), source=str(path))


def _ending(names: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.lower().endswith(endings)]


def _glob_of(table: Path) -> str:
    return repr(str(table.parent / f"*{table.suffix}"))


def _only(files: list[Path], folder: Path) -> Path:
    if len(files) > 1:
        raise FewstepError(f"{folder} holds several arrays ({_names(files)}): pass the path of one")
    return files[0]


def _names(files: Sequence[Path]) -> str:
    return listed(file.name for file in files)


def _say(what: str) -> None:
    warnings.warn(what, FewstepWarning, stacklevel=3)


def _globbed(files: list[Path], origin: str, request: Request) -> Plan:
    wrong = [file for file in files if file.suffix.lower() != TABLES]
    if wrong:
        raise FewstepError(f"{origin}: a glob may name .parquet files only, not {wrong[0].name}")
    return _tables(split_files(files, request.split, origin), request)


def _tables(files: list[Path], request: Request) -> Plan:
    for file in files:
        _check_file(file)
    name = Path(files[0]).parent.absolute().name
    state = hashlib.sha256("".join(map(_stamp, files)).encode("utf-8", "surrogateescape"))
    identity = "\n".join(str(file.absolute()) for file in files)
    return Plan(
        name,
        f"{identity} {_columns(request)}",
        state.hexdigest(),
        lambda: open_files(files, request, name),
    )


def _stamp(file: Path) -> str:
    return stamp(file.absolute())


def _arrays(path: Path, request: Request) -> Dataset:
    _check_file(path)
    names = request.image_column, request.label_column, request.labels
    if path.suffix.lower() == ".npy" and request.labels and (beside := labels_beside(path)):
        _say(f"{path} is read without labels; if {_names(beside)} holds them, save both as an .npz")
    return of_arrays(path, *read_arrays(path, *names))


def of_arrays(path: Path, images: Any, labels: Any, classes: tuple[str, ...]) -> Dataset:
    """The data set of what `read_arrays` found in a file, without the classes that nobody has.

    Raises:
        FewstepError: arrays that are no images, points or labels; the message names the file.
    """
    # Nothing but points can have so few dimensions: here the shape alone tells.
    points = images.dtype.kind == "f" and images.ndim <= 2
    try:
        dataset = Dataset.from_arrays(images, labels, classes, path.stem, points)
    except FewstepError as error:
        raise FewstepError(f"{path}: {error}") from error
    if dataset.labels is None:
        return dataset
    numbers, names = used(dataset.labels, dataset.classes)
    return replace(dataset, labels=numbers, classes=names)


def _how(request: Request) -> str:
    fit = "" if request.fit == "crop" else f" {request.fit}"
    return fit + " described" * request.described


def _cached(plan: Plan, request: Request, folder: Path) -> Dataset:
    key = hashlib.sha256(
        f"{plan.identity} {request.size} {request.channels}{_how(request)}".encode(
            "utf-8", "surrogateescape"
        )
    )
    stem = re.sub(r"[^\w.-]+", "-", plan.name)[:80] or "data"
    path = expanded(folder) / f"{stem}-{key.hexdigest()[:16]}.safetensors"
    found = caching.read(path, plan.state)
    if found is not None and (request.skip_bad or not found.skipped):
        return found
    source, request = tiled(plan.open(), request)
    shape = survey(source, request)
    try:
        caching.write(path, plan.state, source, request, shape)
    except OSError as error:
        caching.check_memory(source, shape, folder, error)
        warnings.warn(
            f"decoded images cannot be kept in {folder} ({error}); they are held in memory and "
            "decoded again next time. Set FEWSTEP_CACHE to a folder with room.",
            FewstepWarning,
            stacklevel=3,
        )
        return caching.in_memory(source, request, shape)
    return caching.read(path, plan.state) or caching.in_memory(source, request, shape)
