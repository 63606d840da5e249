"""Parquet files, and data sets of the Hugging Face hub through the library `datasets`.

Local files are read batch by batch, so that nothing is copied and the network is not touched; a hub
data set is downloaded to the user's Hugging Face cache as usual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.data.build import Item, Request
from fewstep.data.captions import TEXT_COLUMNS
from fewstep.data.columns import Column, image_column, label_column, read_columns
from fewstep.data.labels import numbered, used
from fewstep.data.splits import choose_part
from fewstep.errors import FewstepError

ROWS = 256  # read at a time
HUB_ID = re.compile(r"hub:(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<revision>.+))?")
MISSING = "Parquet files and hub data sets need: pip install 'fewstep[hub]'"


@dataclass
class Table:
    """Rows with encoded images (a `Source`).

    Args:
        read: the values of any other column, [count].
        columns: their names.
    """

    name: str
    origin: str
    classes: tuple[str, ...] | None
    labels: list[int]
    count: int
    pictures: Callable[[], Iterator[list[Any]]]
    columns: tuple[str, ...] = ()
    read: Callable[[str], Iterator[list[Any]]] | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        number = 0
        for part in self.pictures():
            for picture in part:
                label = self.labels[number] if self.labels else -1
                yield _item(f"row {number}", self._only(number, picture), label)
                number += 1

    def lines(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Every row, with the values of some columns."""
        assert self.read is not None
        every = [[value for part in self.read(name) for value in part] for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*every, strict=True)]

    def _only(self, number: int, picture: Any) -> Any:
        """The image of a row that may hold a list."""
        if not isinstance(picture, list):
            return picture
        if len(picture) > 1:
            raise FewstepError(
                f"{self.origin}: row {number} holds {len(picture)} images; expected one in each"
            )
        return picture[0] if picture else None


def _item(name: str, picture: Any, label: int) -> Item:
    if isinstance(picture, bytes):
        picture = {"bytes": picture}
    path, content = (picture or {}).get("path"), (picture or {}).get("bytes")
    name += f" {path}" if path else ""
    return Item(name, Path(path) if content is None and path else content or b"", label)


def open_files(files: Sequence[Path], request: Request, name: str) -> Table:
    """The rows of local Parquet files, in the given order.

    Raises:
        FewstepError: a file is no Parquet file, or has no such columns; there are no rows.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise FewstepError(MISSING) from error
    origin, whole = str(files[0]), []
    for path in files:
        with _reading(path):
            file = parquet.ParquetFile(path)
            if file.metadata.num_rows:
                whole.append((path, file.metadata.num_rows, read_columns(file.schema_arrow)))
    if not whole:
        raise FewstepError(f"{origin} holds no images: it has no rows")
    image, label = _chosen(whole[0][2], request, origin)
    for path, _, columns in whole[1:]:
        _check_alike(path, columns, [image, label] if label else [image])

    def values(column: str) -> Iterator[list[Any]]:
        for path, *_ in whole:
            with _reading(path), parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS, columns=[column]):
                    yield batch.column(0).to_pylist()

    count = sum(rows for _, rows, _ in whole)
    table = _table(name, origin, count, image, label, values)
    return replace(table, columns=tuple(whole[0][2]), read=values)


def open_hub(source: str, request: Request) -> Table:
    """The rows of a data set of the hub: `hub:owner/name[:config][@revision]`.

    Raises:
        NoSplit: it has no such split.
        FewstepError: not such a name, not found, no connection, or no such columns.
    """
    match = HUB_ID.fullmatch(source)
    if not match:
        raise FewstepError(
            f"{source!r}: a hub data set is named hub:owner/name[:config][@revision]"
        )
    try:
        rows = _load_hub(source, match, request.split)
    except FewstepError:
        raise
    except Exception as error:  # the library raises a dozen kinds for one missing connection
        raise FewstepError(
            f"cannot load {source} (split {request.split!r}) from the Hugging Face hub: "
            f"{_in_words(error)}. Check name, split and connection, or "
            "download its Parquet files and pass their path."
        ) from error
    if not len(rows):
        raise FewstepError(f"{source} holds no images: it has no rows")
    image, label = _chosen(read_columns(rows.features.arrow_schema), request, source)

    def values(column: str) -> Iterator[list[Any]]:
        with _reading(source):
            for part in rows.select_columns([column]).with_format("arrow").iter(ROWS):
                yield part.column(0).to_pylist()

    table = _table(match["id"].split("/")[-1], source, len(rows), image, label, values)
    return replace(table, columns=tuple(rows.features), read=values)


def _load_hub(source: str, match: re.Match[str], split: str) -> Any:
    """The rows of a split, whatever the hub calls it; the library gets all splits at once."""
    try:
        import datasets
    except ImportError as error:
        raise FewstepError(MISSING) from error
    parts = datasets.load_dataset(match["id"], match["config"], revision=match["revision"])
    return parts[choose_part(split, list(parts), source)]


def _in_words(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {first}"


@contextmanager
def _reading(origin: Path | str) -> Iterator[None]:
    """Says which file is at fault where one cannot be read."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, FewstepError):
            raise
        raise FewstepError(f"{origin} cannot be read as Parquet: {_in_words(error)}") from error


def _chosen(
    columns: dict[str, Column], request: Request, origin: str
) -> tuple[Column, Column | None]:
    image = image_column(columns, request.image_column, origin)
    if not request.labels:
        return image, None
    if request.described:  # what is written of the images is no class of theirs
        asked = f"{request.text_column},{request.embeddings}".split(",")
        said = {*TEXT_COLUMNS, *(name.strip() for name in asked)} - {request.label_column}
        columns = {k: v for k, v in columns.items() if k not in said}
    return image, label_column(columns, request.label_column, image, origin)


def _check_alike(path: Path, columns: dict[str, Column], chosen: list[Column]) -> None:
    """Raise `FewstepError` where a file's columns mean something else than the first file's."""
    for column in chosen:
        here = columns.get(column.name)
        if here is None:
            raise FewstepError(f"{path} has no column {column.name!r}, unlike the files before it")
        if here.classes != column.classes:
            raise FewstepError(
                f"{path}: the classes of the column {column.name!r} are called otherwise than in "
                "the files before it"
            )


def _table(
    name: str,
    origin: str,
    count: int,
    image: Column,
    label: Column | None,
    values: Callable[[str], Iterator[list[Any]]],
) -> Table:
    pictures = lambda: values(image.name)  # noqa: E731
    if label is None:
        return Table(name, origin, None, [], count, pictures)
    every = [value for part in values(label.name) for value in part]
    try:
        numbers, classes = numbered(every, count, label.classes)
    except FewstepError as error:
        raise FewstepError(f"{origin}: column {label.name!r}: {error}") from error
    assert numbers is not None
    numbers, classes = used(numbers, classes)
    return Table(name, origin, classes, numbers.tolist(), count, pictures)
