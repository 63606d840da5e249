"""IDX files as data: MNIST and its kin, EMNIST, KMNIST, Fashion-MNIST, QMNIST.

    [0, 0, type, d]   d sizes, each an int32   the values           all big-endian

One file holds the images, uint8 [N, H, W], and one beside it the labels, uint8 [N]. Files are known
by their names, `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, and may be compressed (gzip,
xz, bzip2), which their content tells, not their names. `t10k` in a name means "test".

- QMNIST's labels are a table, int32 [N, 8]; its first column is the class.
- EMNIST stores rows as columns; pictures of files called `emnist` are turned upright.
- EMNIST's `emnist-letters-mapping.txt` beside them says which characters the labels are.
- Fashion-MNIST's labels are known by their digest, and so the names of its classes.

Source of the format: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from fewstep.data.archives import Arrays
from fewstep.data.labels import natural
from fewstep.data.splits import candidates, read_name, siblings, split_files
from fewstep.data.tables import of_one_set
from fewstep.errors import FewstepError, FewstepWarning, listed
from fewstep.memory import check_fits

NAME = re.compile(
    r"(?P<of>.*?)(?P<kind>images?|labels?)[-._]idx(?P<dims>\d)([-._](?P<type>[a-z]+\d*))?"
    r"(?P<packed>\.(gz|xz|bz2))?",
    re.IGNORECASE,
)
PACKINGS = ("", ".gz", ".xz", ".bz2")
ENDINGS = tuple(
    f"{kind}{packing}" for kind in ("ubyte", "int", "idx1", "idx2", "idx3") for packing in PACKINGS
)
"""How names of IDX files end; `is_idx` knows them."""
PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
"""How compressed files begin, and what reads them."""
TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""The third byte of a file."""
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NAMED = {
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9": FASHION,
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34": FASHION,
}
"""Names of the classes, by the SHA-256 of an uncompressed file of labels."""


def is_idx(name: str) -> bool:
    """Whether a file is IDX, as its name says."""
    return NAME.fullmatch(Path(name).name) is not None


def images_of(root: Path, names: Iterable[str]) -> list[Path]:
    """The files of images in a folder: those directly in it, else all, which must be of one set.

    Of a file that is there twice, compressed and not, the one that is not.

    Args:
        root: the folder.
        names: of its IDX files, relative to it.

    Raises:
        FewstepError: labels alone, or files of several sets.
    """
    every = [name for name in names if _is_of(name, "image")]
    if not every:
        raise FewstepError(f"{root} holds labels ({listed(names)}), but no file of images")
    found = _once(of_one_set(root, every, "IDX files"))
    sets = sorted({_words(path) for path in found}, key=natural)
    if len(sets) > 1:
        raise FewstepError(
            f"{root} holds several data sets of IDX files ({listed(sets)}): pass the path of the "
            f"images of one, such as {found[0]}"
        )
    return found


def of_split(path: Path, split: str) -> list[Path]:
    """The images of another split beside a file of images, as `siblings` finds other files."""
    own = read_name(path.stem)
    if split == "train" or not own.split or own.split in candidates(split):
        return siblings(path, split)
    alike = [other for other in _near(path, "image") if _words(other) == _words(path)]
    return split_files(alike, split, str(path))


def read_idx(path: Path, labels: bool = True) -> Arrays:
    """The images of a file, uint8 [N, H, W], and the labels of the file beside it.

    Args:
        path: the file of images.
        labels: whether labels are wanted.

    Raises:
        FewstepError: a file that is none of images, is damaged, or does not fit the memory; no
            labels, or not one for each image.
    """
    if not _is_of(path.name, "image"):
        raise FewstepError(f"{path} holds labels: pass the path of the images beside it")
    images, _ = _read(path)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise FewstepError(
            f"{path} holds {images.dtype.name} of shape {list(images.shape)}, not images: these "
            "are uint8 [N, H, W] (magic number 2051)"
        )
    if "emnist" in _words(path).split("-"):
        _say(f"{path.name}: EMNIST's files store rows as columns; its pictures are turned upright")
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return _with_labels(path, images) if labels else Arrays(images)


def name_of(path: Path) -> str:
    """What a data set is called: as its files say (`emnist-letters`), else as their folder."""
    return _words(path) or path.absolute().parent.name


def _with_labels(path: Path, images: np.ndarray) -> Arrays:
    beside = _labels_of(path)
    if beside is None:
        raise FewstepError(
            f"{path} has no labels beside it (expected {_expected_labels(path)}); pass "
            "labels=False (--no-labels) to read the images alone"
        )
    values, digest = _read(beside)
    if values.dtype.kind == "f" or values.ndim not in (1, 2):
        raise FewstepError(
            f"{beside} holds {values.dtype.name} of shape {list(values.shape)}, not labels: these "
            "are integers [N] (magic number 2049), or QMNIST's [N, 8]"
        )
    if len(values) != len(images):
        raise FewstepError(
            f"{path} holds {len(images):,} images, but {beside} {len(values):,} labels"
        )
    if values.ndim == 2:
        values = _first_column(beside, values)
    if names := _mapping(path):
        return Arrays(images, _renamed(values, names, beside))
    return Arrays(images, values.astype(np.int64), NAMED.get(digest, ()))


def _first_column(path: Path, values: np.ndarray) -> np.ndarray:
    if values.shape[1] == 0:
        raise FewstepError(f"{path} holds no labels: its rows are empty")
    if values.shape[1] > 1:
        _say(f"{path.name}: of its {values.shape[1]} columns the first is the class")
    return values[:, 0]


def _read(path: Path) -> tuple[np.ndarray, str]:
    """The values of a file, and the SHA-256 of its uncompressed content."""
    try:
        with _opened(path) as file:
            return _values(path, file)
    except FewstepError:
        raise
    except EOFError:
        raise FewstepError(
            f"{path} is cut off: its compressed data end too early; fetch it again"
        ) from None
    except (OSError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FewstepError(f"cannot read {path}: {reason}") from error


def _opened(path: Path) -> IO[bytes]:
    """A file uncompressed."""
    with path.open("rb") as file:
        start = file.read(6)
    for mark, opener in PACKED.items():
        if start.startswith(mark):
            return cast("IO[bytes]", opener(path))
    return path.open("rb")


def _values(path: Path, file: IO[bytes]) -> tuple[np.ndarray, str]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= 4:
        raise FewstepError(
            f"{path} is no IDX file: it begins with {head.hex(' ') or 'nothing'}, not with 00 00, "
            "a type and a number of dimensions (00 00 08 03 for images, 00 00 08 01 for labels)"
        )
    dims = head[3]
    sizes = file.read(4 * dims)
    if len(sizes) < 4 * dims:
        raise FewstepError(f"{path} is cut off: it ends within its header")
    shape, dtype = np.frombuffer(sizes, ">u4").tolist(), np.dtype(TYPES[head[2]])
    size = math.prod(shape) * dtype.itemsize
    check_fits(size, str(path))
    content = file.read(size + 1)
    if len(content) != size:
        there = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
        raise FewstepError(
            f"{path} is damaged: its header says {shape}, {size:,} bytes, but there are {there}"
        )
    digest = hashlib.sha256(head + sizes + content).hexdigest()
    return np.frombuffer(bytearray(content), dtype).reshape(shape), digest


def _parts(path: Path) -> Mapping[str, str]:
    match = NAME.fullmatch(path.name)
    return {key: (value or "").lower() for key, value in match.groupdict().items()} if match else {}


def _is_of(name: str, kind: str) -> bool:
    return _parts(Path(name)).get("kind", "").startswith(kind)


def _words(path: Path) -> str:
    """What the name of a file says besides its split and kind: "emnist-letters", or nothing."""
    return "-".join(read_name(_parts(path)["of"]).rest)


def _once(paths: Sequence[Path]) -> list[Path]:
    """Without the compressed twin of a file that is there uncompressed."""
    found: dict[tuple[Path, str], Path] = {}
    for path in sorted(paths, key=lambda path: (_parts(path)["packed"], path)):
        found.setdefault((path.parent, _parts(path)["of"]), path)
    return sorted(found.values())


def _labels_of(path: Path) -> Path | None:
    """The labels beside a file of images."""
    files = _near(path, "label")
    return next((file for file in files if _parts(file)["of"] == _parts(path)["of"]), None)


def _near(path: Path, kind: str) -> list[Path]:
    """The files of a kind in a file's folder, and in those beside it where each has a folder."""
    folder = path.absolute().parent
    folders = [folder] + ([*folder.parent.iterdir()] if is_idx(folder.name) else [])
    files = [file for place in folders if place.is_dir() for file in place.iterdir()]
    return _once([file for file in files if file.is_file() and _is_of(file.name, kind)])


def _expected_labels(path: Path) -> str:
    name = re.sub("image(s?)", r"label\1", path.name, flags=re.IGNORECASE)
    return re.sub("idx3", "idx1", name, flags=re.IGNORECASE)


def _mapping(path: Path) -> tuple[Path, dict[int, str]] | None:
    """EMNIST's characters of the labels: lines of a label and the codes of its characters."""
    file = path.with_name(f"{_words(path)}-mapping.txt")
    if not file.is_file():
        return None
    try:
        rows = [list(map(int, line.split())) for line in file.read_text().splitlines() if line]
        return file, {row[0]: chr(row[1]) for row in rows}
    except (OSError, ValueError, IndexError, OverflowError) as error:
        raise FewstepError(
            f"{file} is no mapping: its lines are a label and the codes of its characters"
        ) from error


def _renamed(values: np.ndarray, mapping: tuple[Path, dict[int, str]], beside: Path) -> np.ndarray:
    file, names = mapping
    if unnamed := sorted(set(values.tolist()) - set(names)):
        raise FewstepError(f"{beside} has the label {unnamed[0]}, which {file} does not name")
    return np.array([names[value] for value in values.tolist()])


def _say(what: str) -> None:
    warnings.warn(what, FewstepWarning, stacklevel=4)
