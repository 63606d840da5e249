"""Parquet files and data sets of the Hugging Face hub, both through the library `datasets`.

Files are streamed row group by row group, so that nothing is copied into the user's Hugging Face
cache and the network is not touched; a hub data set is downloaded there as usual.
"""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.data.build import Item, Request
from fewstep.errors import FewstepError, unknown

IMAGE_COLUMNS = ("image", "img", "images", "jpg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls", "target")
ROWS = 256  # read at a time
HUB_ID = re.compile(r"hub:(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<revision>.+))?")


@dataclass
class Table:
    """Rows with encoded images (a `Source`)."""

    name: str
    origin: str
    classes: tuple[str, ...] | None
    rows: Any  # a datasets.Dataset or IterableDataset in Arrow format
    count: int
    image: str
    label: str | None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        number = 0
        for part in self.rows.iter(batch_size=ROWS):
            pictures = part.column(self.image).to_pylist()
            labels = part.column(self.label).to_pylist() if self.label else [-1] * len(pictures)
            for picture, label in zip(pictures, labels, strict=True):
                yield self._item(number, picture, label)
                number += 1

    def _item(self, number: int, picture: dict[str, Any] | None, label: int | None) -> Item:
        path = (picture or {}).get("path")
        content = (picture or {}).get("bytes")
        name = f"row {number}" + (f" {path}" if path else "")
        if content is None and path:
            return Item(name, Path(path), -1 if label is None else label)
        return Item(name, content or b"", -1 if label is None else label)


def import_datasets() -> Any:
    """The library `datasets`.

    Raises:
        FewstepError: not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise FewstepError(
            "Parquet files and hub data sets need: pip install 'fewstep[hub]'"
        ) from error
    return datasets


def open_files(files: Sequence[Path], request: Request, name: str) -> Table:
    """The rows of local Parquet files, in the given order.

    Raises:
        FewstepError: a file is no Parquet file, or has no such columns.
    """
    datasets = import_datasets()
    from pyarrow import ArrowException, parquet

    def length(file: Path) -> int:
        try:
            return int(parquet.read_metadata(file).num_rows)
        except (ArrowException, OSError) as error:
            raise FewstepError(f"{file} cannot be read as Parquet: {error}") from error

    count = sum(map(length, files))
    patterns = [glob.escape(str(file.absolute())) for file in files]
    with tempfile.TemporaryDirectory(prefix="fewstep-") as scratch:
        rows = datasets.load_dataset(
            "parquet", data_files=patterns, split="train", streaming=True, cache_dir=scratch
        )
    return _table(datasets, rows, count, request, name, str(files[0]))


def open_hub(source: str, request: Request) -> Table:
    """The rows of a data set of the hub: `hub:owner/name[:config][@revision]`.

    Raises:
        FewstepError: not such a name, not found, no connection, or no such columns.
    """
    match = HUB_ID.fullmatch(source)
    if not match:
        raise FewstepError(
            f"{source!r}: a hub data set is named hub:owner/name[:config][@revision]"
        )
    datasets = import_datasets()
    try:
        rows = datasets.load_dataset(
            match["id"], match["config"], split=request.split, revision=match["revision"]
        )
    except Exception as error:  # the library raises a dozen kinds for one missing connection
        raise FewstepError(
            f"cannot load {source} (split {request.split!r}) from the Hugging Face hub: "
            f"{type(error).__name__}: {_first_line(error)}. Check name, split and connection, or "
            "download its Parquet files and pass their path."
        ) from error
    return _table(datasets, rows, len(rows), request, match["id"].split("/")[-1], source)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")


def _table(datasets: Any, rows: Any, count: int, request: Request, name: str, origin: str) -> Table:
    features = rows.features
    image = _image_column(datasets, features, request.image_column, origin)
    label = _label_column(datasets, features, request, origin)
    classes: tuple[str, ...] | None = None
    if label is not None:
        classes = tuple(getattr(features[label], "names", ()))
    rows = rows.select_columns([image, label] if label else [image])
    rows = rows.cast_column(image, datasets.Image(decode=False)).with_format("arrow")
    return Table(name, origin, classes, rows, count, image, label)


def _image_column(datasets: Any, features: Any, wanted: str | None, origin: str) -> str:
    if wanted is not None:
        return _known(wanted, features, origin)
    images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    images = images or [c for c, kind in features.items() if _holds_bytes(kind)]
    for name in (*IMAGE_COLUMNS, *(images if len(images) == 1 else ())):
        if name in images:
            return name
    problem = f"several image columns ({', '.join(images)})" if images else "no image column"
    raise FewstepError(
        f"{origin} has {problem}; name one with image_column, of {', '.join(features)}"
    )


def _holds_bytes(kind: Any) -> bool:
    """A binary column, or a struct with one called `bytes`: images saved without their type."""
    if isinstance(kind, dict):
        kind = kind.get("bytes")
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def _label_column(datasets: Any, features: Any, request: Request, origin: str) -> str | None:
    if not request.labels:
        return None

    def fits(kind: Any) -> bool:
        return isinstance(kind, datasets.ClassLabel) or "int" in str(getattr(kind, "dtype", ""))

    if request.label_column is not None:
        column = _known(request.label_column, features, origin)
        if not fits(features[column]):
            raise FewstepError(f"{origin}: the column {column!r} holds no integers")
        return column
    named = [c for c, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    for name in (*LABEL_COLUMNS, *(named if len(named) == 1 else ())):
        if name in features and fits(features[name]):
            return name
    return None


def _known(column: str, features: Any, origin: str) -> str:
    if column not in features:
        raise FewstepError(f"{origin}: {unknown('column', column, features)}")
    return column
