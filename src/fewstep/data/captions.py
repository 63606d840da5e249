"""What is written beside pictures: texts, or numbers, in `metadata.jsonl`, a table or a file.

    {"file_name": "cats/1.png", "text": "a cat on a roof"}

`metadata.jsonl` and `metadata.csv` are those of the hub's image folders: a line for each picture,
named as it lies below the file's own folder.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fewstep.data.archives import read_arrays
from fewstep.errors import FewstepError, FewstepWarning, listed, unknown

TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
FILES = ("metadata.jsonl", "metadata.csv")
NAME = "file_name"
ENDINGS = (".npy", ".safetensors")

Line = Mapping[str, Any]


def text_columns(columns: Sequence[str], wanted: str | None, origin: str) -> list[str]:
    """The columns of the texts: those that are wanted, else the one that is called like it.

    Args:
        columns: that there are.
        wanted: one, or several separated by commas.
        origin: where they are, for the message.

    Raises:
        FewstepError: there is none.
    """
    if wanted is not None:
        return named_columns(columns, wanted, origin)
    found = [name for known in TEXT_COLUMNS for name in columns if name.lower() == known]
    if not found:
        raise FewstepError(
            f"{origin} has no column called {listed(TEXT_COLUMNS)}; name that of the texts with "
            f"text_column (--text-column), of {listed(columns)}"
        )
    return found[:1]


def named_columns(columns: Sequence[str], wanted: str, origin: str) -> list[str]:
    """Columns whose names are separated by commas.

    Raises:
        FewstepError: one that is not there.
    """
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in columns:
            raise FewstepError(f"{origin}: {unknown('column', name, columns)}")
    return names


def lines_of(root: Path, folder: Path, pictures: Sequence[str]) -> tuple[str, list[Line]]:
    """The line of every picture of a folder, empty where it has none.

    Without a list of them, a picture's text is in the `.txt` of its name beside it.

    Args:
        root: that was named by the user.
        folder: it, or that of one split in it.
        pictures: their names below the latter.

    Returns:
        Where they are written, and one for each picture.

    Raises:
        FewstepError: nothing is written, or in a damaged file; a picture that is named twice, or
            none of the pictures is named.
    """
    for place in dict.fromkeys((folder, root)):
        before = "" if place == folder else f"{folder.relative_to(place).as_posix()}/"
        for file in (place / name for name in FILES):
            if file.is_file():
                names = [before + name for name in pictures]
                return str(file), _matched(file, names, _by_name(file, _read(file)))
    texts = [_beside(folder / name) for name in pictures]
    if not any(texts):
        raise FewstepError(
            f"{folder} has no {' and no '.join(FILES)}, which say what its pictures show: a line "
            f'for each, such as {{"{NAME}": "{pictures[0]}", "text": "..."}}'
        )
    _say_without(f"{folder}, in .txt files,", pictures, texts)
    return str(folder), [{"text": text} for text in texts]


def _beside(picture: Path) -> str:
    try:
        return picture.with_suffix(".txt").read_text("utf-8-sig").strip()
    except OSError:
        return ""
    except UnicodeDecodeError as error:
        raise FewstepError(f"cannot read {picture.with_suffix('.txt')}: {error}") from error


def _matched(file: Path, names: Sequence[str], known: dict[str, Line]) -> list[Line]:
    found = [known.pop(name, {}) for name in names]
    if not any(found):
        raise FewstepError(f"{file} has no line for any picture, such as {names[0]}")
    _say_without(str(file), names, found)
    if known and not any("/" in name for name in known):
        first = next(iter(known))
        _say(f"{file} names {len(known):,} pictures that are not there (such as {first})")
    return found


def _say_without(where: str, names: Sequence[str], found: Sequence[object]) -> None:
    without = [name for name, line in zip(names, found, strict=True) if not line]
    if without:
        _say(
            f"{where} has no line for {len(without):,} of {len(names):,} pictures (such as "
            f"{without[0]}): they are learned without a description"
        )


def _read(file: Path) -> list[tuple[int, Line]]:
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FewstepError(f"cannot read {file}: {error}") from error
    if file.suffix == ".csv":
        return list(_rows(file, text))
    # Other ends of lines than this one, which str.splitlines knows, may stand within a text.
    return [(i, _line(file, i, x)) for i, x in enumerate(text.split("\n"), 1) if x.strip()]


def _rows(file: Path, text: str) -> Iterator[tuple[int, Line]]:
    rows, before = csv.DictReader(StringIO(text, newline=""), strict=True), 0
    try:
        for row in rows:
            if None in row:
                raise FewstepError(
                    f"{file}, line {rows.line_num}: more values than columns; a text with commas "
                    "is put in double quotes"
                )
            before = rows.line_num
            yield before, row
    except csv.Error as error:
        raise FewstepError(
            f"{file}, line {before + 1}: {error}. Where a text begins with a double quote one ends "
            "it, and those within it are doubled"
        ) from error


def _line(file: Path, number: int, text: str) -> Line:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FewstepError(f"{file}, line {number}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise FewstepError(f'{file}, line {number}: not an object such as {{"{NAME}": "1.png"}}')
    return found


def _by_name(file: Path, lines: Sequence[tuple[int, Line]]) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for number, line in lines:
        name = line.get(NAME)
        if not isinstance(name, str) or not name:
            raise FewstepError(f"{file}, line {number}: it names no picture ({NAME})")
        name = name.replace("\\", "/").removeprefix("./")
        if name in found:
            raise FewstepError(f"{file}, line {number}: {name} has a line already")
        found[name] = line
    return found


def texts_in(origin: str, lines: Sequence[Line], columns: Sequence[str]) -> list[str]:
    """The text of each line, empty where it has none.

    Several columns are put together: ``colour: red, shape: round``.

    Raises:
        FewstepError: a column that holds no texts or numbers.
    """
    if len(columns) == 1:
        return [_text(origin, columns[0], line) for line in lines]
    return [_attributes(origin, line, columns) for line in lines]


def _attributes(origin: str, line: Line, columns: Sequence[str]) -> str:
    said = ((name, _text(origin, name, line)) for name in columns)
    return ", ".join(f"{name}: {text}" for name, text in said if text)


def _value(line: Line, column: str) -> Any:
    """What a line has in a column; None for what tables write where there is nothing."""
    value = line.get(column)
    nothing = not value.strip() if isinstance(value, str) else value != value  # as a NaN alone is
    return None if nothing else value


def _text(origin: str, column: str, line: Line) -> str:
    value = _value(line, column)
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        value = value[0]  # of several captions the first
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise FewstepError(
            f"{origin}: the column {column!r} holds {type(value).__name__}, no texts or numbers"
        )
    return str(value).strip()


def vectors_in(origin: str, lines: Sequence[Line], columns: Sequence[str]) -> np.ndarray:
    """Numbers of each line as an embedding [n, d] or [n, tokens, d], zero where it has none.

    A line has none where it lacks the column, or has null, an empty cell or a NaN in it.

    Args:
        origin: where they are written.
        lines: one for each picture.
        columns: of the numbers, which are put side by side.

    Raises:
        FewstepError: a column that is empty or holds something else than equally many numbers.
    """
    parts = [_numbers(origin, name, [_value(line, name) for line in lines]) for name in columns]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _numbers(origin: str, column: str, values: Sequence[Any]) -> np.ndarray:
    first = next((value for value in values if value is not None), None)
    if first is None:
        raise FewstepError(f"{origin}: the column {column!r} is empty")
    try:
        empty = np.zeros_like(np.asarray(first, np.float32))
        found = np.array([empty if v is None else np.asarray(v, np.float32) for v in values])
    except (TypeError, ValueError) as error:
        raise FewstepError(
            f"{origin}: the column {column!r} does not hold equally many numbers for each picture"
        ) from error
    return found[:, None] if found.ndim == 1 else found


def vectors_of_file(path: Path) -> np.ndarray:
    """The array of an `.npy`, or the only one of a `.safetensors`.

    Raises:
        FewstepError: unreadable, or several arrays.
    """
    if path.suffix == ".npy":
        return np.asarray(read_arrays(path).images)
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FewstepError(f"cannot read {path}: {error}") from error
    if len(found) != 1:
        raise FewstepError(f"{path} holds {len(found)} arrays ({listed(found)}), not one")
    array: np.ndarray = next(iter(found.values()))
    return array


def checked_vectors(origin: str, array: np.ndarray, n: int | None) -> torch.Tensor:
    """Embeddings as float32 [n, d] or [n, tokens, d].

    Raises:
        FewstepError: another shape or number, no floats, NaN or infinity.
    """
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or 0 in array.shape:
        raise FewstepError(
            f"{origin} holds {array.dtype} {list(array.shape)}, not embeddings: these are numbers "
            "[n, d] or [n, tokens, d]"
        )
    if n is not None and len(array) != n:
        raise FewstepError(f"{origin} holds {len(array):,} embeddings for {n:,} pictures")
    values = torch.from_numpy(array.astype(np.float32))
    if not bool(values.isfinite().all()):
        raise FewstepError(f"{origin} holds NaN or infinity")
    return values


def _say(what: str) -> None:
    warnings.warn(what, FewstepWarning, stacklevel=3)
