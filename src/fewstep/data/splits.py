"""Which folder or file is meant by a split's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fewstep.errors import FewstepError, unknown

SPLITS = {
    "train": ("train",),
    "test": ("test", "val", "validation", "valid"),
    "val": ("val", "validation", "valid", "test"),
}
PART = re.compile(r"(?<![a-z])(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)


def candidates(split: str) -> tuple[str, ...]:
    """The names under which a split is looked for, the best first."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return SPLITS[split]


def missing(source: str, split: str, present: Sequence[str] = ()) -> FewstepError:
    """The error for a split that is not there."""
    names = " or ".join(candidates(split))
    has = f"it has {', '.join(present)}" if present else "it is not divided into splits"
    return FewstepError(f"{source} has no split {split!r} (called {names}): {has}")


def split_files(paths: Sequence[Path], split: str, origin: str) -> list[Path]:
    """Of files whose names name splits (`train-00000-of-00002.parquet`) those of one split.

    Files that name no split are all of "train".

    Raises:
        FewstepError: none is of this split.
    """
    names = [_named(path) for path in paths]
    if not any(names):
        if split != "train":
            raise missing(origin, split)
        return list(paths)
    for wanted in candidates(split):
        if wanted in names:
            return [path for path, name in zip(paths, names, strict=True) if name == wanted]
    raise missing(origin, split, sorted({name for name in names if name}))


def sibling(path: Path, split: str) -> Path:
    """The file of another split beside `path`: `a/test.parquet` for `a/train.parquet`.

    With "train", or where the name of `path` is already one of the split's, `path` itself.

    Raises:
        FewstepError: there is no such file.
    """
    wanted = candidates(split)
    if split == "train" or _named(path) in wanted:
        return path
    for name in wanted if _named(path) else ():
        other = path.with_name(PART.sub(name, path.name, count=1))
        if other.exists():
            return other
    raise missing(str(path), split)


def _named(path: Path) -> str:
    found = PART.search(path.name)
    return found[1].lower() if found else ""
