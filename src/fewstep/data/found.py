"""What a source's name stands for: arrays that are read, or a plan of what is to be decoded."""

from __future__ import annotations

import difflib
import glob
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from fewstep.cache import expanded
from fewstep.data.archives import ENDINGS as ARRAYS
from fewstep.data.archives import labels_beside, read_arrays
from fewstep.data.arrays import scaled
from fewstep.data.build import Request, Source
from fewstep.data.dataset import Dataset
from fewstep.data.folder import ENDINGS, NOT_READ, find_pictures
from fewstep.data.idx import ENDINGS as IDX
from fewstep.data.idx import images_of, is_idx, name_of, of_split, read_idx
from fewstep.data.ignored import check_is_data
from fewstep.data.labels import used
from fewstep.data.listing import list_files, stamp
from fewstep.data.pairs import is_pairs, open_pairs
from fewstep.data.parquet import open_files, open_hub
from fewstep.data.readers import READERS
from fewstep.data.splits import missing, siblings, split_files
from fewstep.data.tables import ENDING as TABLES
from fewstep.data.tables import of_one_set
from fewstep.errors import FewstepError, FewstepWarning, listed, refusal
from fewstep.hub_name import HUB

KINDS = "a folder of images, .parquet, .npz, .npy or IDX files"


@dataclass
class Plan:
    """How to decode a source, and what tells whether that was done before."""

    name: str
    identity: str
    state: str
    open: Callable[[], Source]


def find(source: str | Path | Dataset, request: Request) -> Dataset | Plan:
    """The data set of arrays, or how to decode what a name stands for.

    Raises:
        FewstepError: nothing there, or nothing readable; the message says what.
    """
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


def of_arrays(
    path: Path,
    images: Any,
    labels: Any,
    classes: tuple[str, ...],
    *,
    say: Callable[[str], object] | None = None,
) -> Dataset:
    """The data set of what a file holds, without the classes that nobody has.

    Floats [N] and [N, d] are points, those with more dimensions images: see `scaled`.

    Args:
        path: the file.
        images, labels, classes: as stored.
        say: called with what was assumed of the images, a sentence; default a warning.

    Raises:
        FewstepError: arrays that are no images, points or labels; the message names the file.
    """
    say = say or (lambda what: _say(f"{path}: {what}"))
    floats = images.dtype.kind == "f"
    points = floats and images.ndim <= 2
    try:
        if floats and not points:
            images, assumed = scaled(images)
            if assumed:
                say(assumed)
        dataset = Dataset.from_arrays(images, labels, classes, path.stem, points)
    except FewstepError as error:
        raise FewstepError(f"{path}: {error}") from error
    if dataset.labels is None:
        return dataset
    numbers, names = used(dataset.labels, dataset.classes)
    return replace(dataset, labels=numbers, classes=names)
