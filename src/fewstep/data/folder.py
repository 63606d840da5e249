"""A folder of pictures, found recursively; the first level of subfolders names the classes.

A file counts when its name ends in one of `ENDINGS`; hidden files and folders, and those that
systems leave (`ignored`), do not; pictures of other kinds are left out and said. Files come in the
order of their sorted names, classes in the order of `labels.natural`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fewstep.data.build import Item, Request
from fewstep.data.captions import NAME, Line, lines_of
from fewstep.data.class_folders import read_names
from fewstep.data.labels import natural
from fewstep.data.listing import stamp
from fewstep.data.picture_splits import Part, part_of, top_of
from fewstep.data.splits import missing
from fewstep.errors import FewstepError, FewstepWarning

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw")
LISTS = (
    "metadata.csv",
    "metadata.jsonl",
    "labels.csv",
    "labels.txt",
    "labels.json",
    "dataset.json",
    "val_annotations.txt",
)
NOT_READ = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", *RAW)


@dataclass
class Pictures:
    """Paths below `origin` and labels of a folder's images (a `Source`)."""

    name: str
    origin: str
    classes: tuple[str, ...] | None
    files: list[tuple[str, int]]
    state: str
    root: Path = Path()
    """The folder that the user named."""

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def _written(self) -> tuple[str, list[Line]]:
        return lines_of(self.root, Path(self.origin), [name for name, _ in self.files])

    @property
    def columns(self) -> list[str]:
        """What is written of the pictures, by name."""
        every = (name for line in self._written[1] for name in line)
        return [name for name in dict.fromkeys(every) if name != NAME]

    def lines(self, names: Sequence[str]) -> list[Line]:
        """What is written of each picture."""
        return self._written[1]

    def __iter__(self) -> Iterator[Item]:
        for name, label in self.files:
            yield Item(name, Path(self.origin, name), label)


def find_pictures(root: Path, names: Sequence[str], request: Request) -> Pictures:
    """The images of a split, and a hash over all names, lengths and times of modification.

    Args:
        root: the folder.
        names: of all files in it that end in `ENDINGS` or `NOT_READ`, relative to it, sorted.
        request: what is wanted of them.

    Raises:
        FewstepError: no such split, no images, or images both beside and inside class folders
            while labels are wanted.
    """
    pictures = [name for name in names if name.lower().endswith(ENDINGS)]
    _say_not_read(root, [name for name in names if name.lower().endswith(NOT_READ)])
    if not pictures:
        raise FewstepError(f"{root} holds no images (names ending in {' '.join(ENDINGS)})")
    called = read_names(root)
    if called is not None and request.split != "train":
        raise missing(str(root), request.split)
    part = Part(root, pictures) if called is not None else part_of(root, pictures, request.split)
    if request.labels and called is None and not request.described:
        _say_lists({root, part.folder})
    tops = [top_of(name) for name in part.names]
    classes: tuple[str, ...] | None = None
    index: dict[str, int] = {}
    if request.labels and any(tops):
        _check_mixture(part, tops)
        own = {top: (called or {}).get(top, top) for top in set(tops)}
        classes = _in_order(set(own.values()), part.training)
        places = {name: i for i, name in enumerate(classes)}
        index = {top: places[name] for top, name in own.items()}
    files = [(name, index.get(top, -1)) for name, top in zip(part.names, tops, strict=True)]
    state = _state(part, classes, called)
    return Pictures(root.name, str(part.folder), classes, files, state, root)


def _say_not_read(root: Path, others: list[str]) -> None:
    if others:
        warnings.warn(
            f"{root}: left out {len(others):,} pictures of a kind that is not read (such as "
            f"{others[0]}); convert them to PNG or JPEG",
            FewstepWarning,
            stacklevel=2,
        )


def _say_lists(folders: set[Path]) -> None:
    """Say which lists of labels are there, as other programs keep them, and are not read."""
    paths = (folder / name for folder in sorted(folders) for name in LISTS)
    if there := [path for path in paths if path.is_file()]:
        warnings.warn(
            f"{there[0]} is not read: the classes of a folder of images are its subfolders; pass "
            "labels=False (--no-labels) if these are none, and --encoder to learn from texts in it",
            FewstepWarning,
            stacklevel=2,
        )


def _in_order(own: set[str], training: frozenset[str]) -> tuple[str, ...]:
    """The classes, those of the training images first, so that they keep their numbers."""
    first = training or own
    return (*sorted(first, key=natural), *sorted(own - first, key=natural))


def _check_mixture(part: Part, tops: list[str]) -> None:
    loose = tops.count("")
    if loose:
        raise FewstepError(
            f"{part.folder} has {loose} images beside its class folders (such as "
            f"{part.names[tops.index('')]}) and {len(tops) - loose} inside; move them into a class "
            "folder, or pass labels=False (--no-labels) to use all without labels"
        )


def _state(part: Part, classes: tuple[str, ...] | None, called: dict[str, str] | None) -> str:
    told = repr(classes) if called is None else repr((classes, sorted(called.items())))
    digest = hashlib.sha256(told.encode("utf-8", "surrogateescape"))
    for name in part.names:
        path = os.path.join(part.folder, name)
        digest.update(stamp(path).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
