"""Which files and folders are which split: the one rule by which held-out images stay held out.

The words, whatever their case:

    train   train, training
    val     val, valid, validation, dev
    test    test, testing, eval, evaluation, t10k

- A *file* is of the split that a word of its name says: `train-00000-of-00002.parquet`,
  `x_test.npy`, `mydataTest.npz`. Words end at anything but a letter and before a capital, so
  `latest.npz` and `contrast.npz` are of none.
- A *folder* is a split when its name is such a word and nothing else but numbers and words such as
  "set" or "images" (`Validation Set`, `train2017`, `test-images`), or when another folder differs
  from it in that word alone (`cifar_train` beside `cifar_test`). `testimonials` and
  `training-shoes` are none.
- A file whose name says nothing is of the split of its folder (`test/0000.parquet`).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fewstep.errors import FewstepError, FewstepWarning, unknown

SPLITS = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
BESIDE = (
    "set sets partial split data dataset image images img imgs picture pictures photo photos sample"
)
BESIDE_WORDS = frozenset((*BESIDE.split(), "samples", "file", "files", "folder", "part", "x"))
RUN = re.compile(r"[^\W\d_]+|\d+")
CAPITAL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+")
COMPOUND = re.compile(f"({'|'.join(WORDS)})(set|sets|data|images|imgs|split)?")
SHARD = re.compile(r"\d+-of-\d+")
T10K = re.compile(r"(?<![^\W_])t10k(?![^\W_])", re.IGNORECASE)
"""MNIST's word for its test images."""


class Name(NamedTuple):
    """What a name says: its split ("" for none), and its other words."""

    split: str
    rest: tuple[str, ...]


@lru_cache(1 << 16)
def read_name(name: str) -> Name:
    """The split that a name's words say, and the rest; two splits in one name are none."""
    name = T10K.sub("test", SHARD.sub("", name))
    words = [word.lower() for run in RUN.findall(name) for word in CAPITAL.findall(run)]
    found = [COMPOUND.fullmatch(word) for word in words]
    said = {WORDS[match[1]] for match in found if match}
    if len(said) != 1:
        return Name("", tuple(words))
    rest = [word for word, match in zip(words, found, strict=True) if not match]
    return Name(said.pop(), tuple(rest))


def names_split(name: str) -> str:
    """The split that a folder of this name is, whatever is beside it; "" for none."""
    split, rest = read_name(name)
    return split if all(word in BESIDE_WORDS or word.isdigit() for word in rest) else ""


def divide(folders: Iterable[str]) -> dict[str, str]:
    """Of folders beside each other those that are splits, and which."""
    read = {folder: read_name(folder) for folder in folders}
    pairs: dict[tuple[str, ...], set[str]] = {}
    for split, rest in read.values():
        pairs.setdefault(rest, set()).add(split)
    return {
        folder: split
        for folder, (split, rest) in read.items()
        if split and (names_split(folder) or len(pairs[rest] - {""}) > 1)
    }


def candidates(split: str) -> tuple[str, ...]:
    """The splits that are looked for, the best first: "test" and "val" stand in for each other."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return SPLITS[split]


def choose(split: str, present: Iterable[str], origin: str) -> str:
    """The split to take of those that are there.

    Raises:
        FewstepError: there is none that will do.
    """
    present = set(present)
    for wanted in candidates(split):
        if wanted in present:
            return wanted
    raise missing(origin, split, sorted(present))


class NoSplit(FewstepError):
    """A data set that can be read has no such split."""


def missing(source: str, split: str, present: Sequence[str] = ()) -> NoSplit:
    """The error for a split that is not there."""
    names = " or ".join(word for word, means in WORDS.items() if means in candidates(split))
    has = f"it has {', '.join(present)}" if present else "it is not divided into splits"
    return NoSplit(f"{source} has no split {split!r} (called {names}): {has}")


def split_files(paths: Sequence[Path], split: str, origin: str) -> list[Path]:
    """Of files those of one split; where no name says a split all are of "train".

    Raises:
        FewstepError: none is of this split.
    """
    splits = files_splits(paths)
    if not any(splits):
        if split != "train":
            raise missing(origin, split)
        return list(paths)
    wanted = choose(split, filter(None, splits), origin)
    if unnamed := [path.name for path, said in zip(paths, splits, strict=True) if not said]:
        warnings.warn(
            f"{origin}: left out what names no split beside files that do: {', '.join(unnamed)}",
            FewstepWarning,
            stacklevel=2,
        )
    return [path for path, said in zip(paths, splits, strict=True) if said == wanted]


def files_splits(paths: Sequence[Path]) -> list[str]:
    """The split of each of several files: of its name, else of the nearest folder below all."""
    if len(paths) < 2:
        return [read_name(path.stem).split for path in paths]
    top = os.path.commonpath([path.absolute().parent for path in paths])
    below = [path.absolute().parent.relative_to(top).parts for path in paths]
    folders = divide({part for parts in below for part in parts})
    return [
        read_name(path.stem).split or next((folders[p] for p in parts[::-1] if p in folders), "")
        for path, parts in zip(paths, below, strict=True)
    ]


def siblings(path: Path, split: str) -> list[Path]:
    """The files of another split beside `path`: `a/test.parquet` for `a/train.parquet`,
    `a/Test/0.npz` for `a/Train/0.npz`; several where it is cut into shards.

    With "train", or where `path` says that it is of the split, `path` itself.

    Raises:
        FewstepError: there is no such file.
    """
    own = read_name(path.stem)
    said = own.split or _folders_beside(path).get(path.absolute().parent.name, "")
    if split == "train" or said in candidates(split):
        return [path]
    for wanted in candidates(split) if said else ():
        others = _beside(path, own, wanted) if own.split else _in_folders_beside(path, wanted)
        if others:
            return others
    raise missing(str(path), split)


def _beside(path: Path, own: Name, wanted: str) -> list[Path]:
    return [
        other
        for other in sorted(path.parent.iterdir())
        if other.suffix == path.suffix and read_name(other.stem) == (wanted, own.rest)
    ]


def _in_folders_beside(path: Path, wanted: str) -> list[Path]:
    folder = path.absolute().parent
    rest = read_name(folder.name).rest
    others = [
        folder.with_name(name) / path.name
        for name, split in sorted(_folders_beside(path).items())
        if split == wanted and (read_name(name).rest == rest or names_split(folder.name))
    ]
    return [other for other in others if other.is_file()]


def _folders_beside(path: Path) -> dict[str, str]:
    """The folders beside a file's own that are splits, its own among them, and which."""
    folder = path.absolute().parent
    with os.scandir(folder.parent) as entries:
        return divide([entry.name for entry in entries if entry.is_dir()])
