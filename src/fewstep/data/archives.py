"""`.npz` and `.npy` files as data.

What a file says of itself is checked before anything is read: an array must be as long as its shape
says, and fit the memory.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from fewstep.data.columns import NoColumn, NoColumns
from fewstep.errors import FewstepError, FewstepWarning, unknown
from fewstep.memory import check_fits

ENDINGS = (".npz", ".npy")
IMAGE_KEYS = ("arr_0", "images")
LABEL_KEYS = ("arr_1", "labels", "label", "targets", "target", "y")
LABEL_WORDS = frozenset(LABEL_KEYS[1:])
NAMES_KEY = "classes"


class Head(NamedTuple):
    """What an array's file says of it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Arrays(NamedTuple):
    """Images, their labels and the names of the classes, as stored."""

    images: Any
    labels: Any = None
    classes: tuple[str, ...] = ()


def read_arrays(
    path: Path, image_key: str | None = None, label_key: str | None = None, labels: bool = True
) -> Arrays:
    """The arrays of an `.npz` or `.npy`; the latter is mapped, not read.

    Args:
        path: the file.
        image_key, label_key: names of the arrays, where they cannot be guessed.
        labels: whether labels are wanted.

    Raises:
        NoColumn: an array that is named is not there.
        FewstepError: unreadable, damaged, pickled objects, too large for the memory, or no array
            under a known key.
    """
    with _reading(path):
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return _pick(path, archive, image_key, label_key, labels)
        if image_key or label_key:
            raise NoColumns(
                f"{path} is one array without a name: image_column and label_column "
                "(--image-column, --label-column) name those of an .npz",
                "image_column" if image_key else "label_column",
            )
        with path.open("rb") as file:
            head = _head(file)
            _check_length(head, path.stat().st_size - file.tell())
        # Copy-on-write, because torch warns about tensors over memory that it may not write.
        return Arrays(np.load(path, mmap_mode="c"))


def read_named(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Those of the arrays of an `.npz` that have one of these names.

    Raises:
        FewstepError: unreadable, damaged, pickled objects, or too large for the memory.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        there = set(archive.namelist())
        return {n: _read(path, archive, f"{n}.npy") for n in names if f"{n}.npy" in there}


def labels_beside(path: Path) -> list[Path]:
    """The arrays beside an `.npy` that are called as labels are: `y_train.npy`, `labels.npy`."""
    others = sorted(path.parent.glob("*.npy"))
    return [o for o in others if o != path and LABEL_WORDS.intersection(o.stem.lower().split("_"))]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FewstepError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise FewstepError(f"cannot read {path}: {error}") from error
    except Exception as error:  # a damaged header makes numpy's parser raise nearly anything
        raise FewstepError(f"{path} holds no plain array of numbers: {error}") from error


def _pick(
    path: Path,
    archive: zipfile.ZipFile,
    image_key: str | None,
    label_key: str | None,
    wanted: bool,
) -> Arrays:
    keys = {name.removesuffix(".npy"): name for name in archive.namelist()}
    images = image_key or _known(keys, IMAGE_KEYS)
    if images not in keys:
        raise _no_images(path, images, keys)
    found = _read(path, archive, keys[images])
    if not wanted:
        return Arrays(found)
    labels = label_key or _known(keys, LABEL_KEYS)
    if labels is None:
        _say_left(path, archive, keys, images, len(found) if found.ndim else 0)
        return Arrays(found)
    if labels not in keys:
        raise NoColumn(f"{path}: {unknown('array', labels, keys)}", "label_column")
    names: tuple[str, ...] = ()
    if NAMES_KEY in keys and label_key is None:
        names = tuple(map(str, _read(path, archive, keys[NAMES_KEY]).reshape(-1)))
    return Arrays(found, _read(path, archive, keys[labels]), names)


def _known(keys: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The key with one of these names, the best first, whatever its case."""
    return next((key for name in names for key in keys if key.lower() == name), None)


def _no_images(path: Path, images: str | None, keys: Mapping[str, str]) -> FewstepError:
    if images is not None:
        return NoColumn(f"{path}: {unknown('array', images, keys)}", "image_column")
    wrong = next(iter(keys), "")
    return FewstepError(
        f"{path}: {unknown('array', wrong, (*IMAGE_KEYS, *LABEL_KEYS))} To take another array, "
        f"name it with image_column (--image-column), of {', '.join(keys) or 'none'}"
    )


def _say_left(
    path: Path, archive: zipfile.ZipFile, keys: Mapping[str, str], images: str, n: int
) -> None:
    """Say which arrays could be labels but are not taken for them."""
    left = []
    for key, name in keys.items():
        with archive.open(name) as file:
            if key != images and _head(file).shape in ((n,), (n, 1)):
                left.append(key)
    if left:
        warnings.warn(
            f"{path}: no array is taken for labels; if one of {', '.join(left)} holds them, name "
            "it with label_column (--label-column)",
            FewstepWarning,
            stacklevel=2,
        )


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(name) as file:
        head = _head(file)
        if head.dtype.hasobject:
            raise FewstepError(
                f"{path}: {name.removesuffix('.npy')} holds pickled objects, which are not read; "
                "save text as array.astype(str)"
            )
        _check_length(head, archive.getinfo(name).file_size - file.tell())
        check_fits(head.nbytes, f"{path}, array {name.removesuffix('.npy')}")
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _head(file: IO[bytes]) -> Head:
    """The header of an array; the file is left at its values.

    Raises:
        ValueError: it is none.
    """
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"format {version}")
    shape, _, dtype = readers[version](file)
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {list(shape)}")
    return Head(shape, dtype)


def _check_length(head: Head, there: int) -> None:
    if not head.dtype.hasobject and head.nbytes != there:
        raise ValueError(
            f"shape {list(head.shape)} of {head.dtype} takes {head.nbytes:,} bytes, but there are "
            f"{there:,}"
        )
