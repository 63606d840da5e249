"""A folder of pictures, found recursively; the first level of subfolders names the classes.

A file counts when its name ends in one of `ENDINGS` and does not start with a dot; every other file
is ignored. A linked folder is followed unless it leads back into the data or was read already.
The order is that of the sorted names, so it is the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewstep.data.build import Item, Request
from fewstep.data.splits import candidates, missing
from fewstep.errors import FewstepError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass
class Pictures:
    """Paths below `origin` and labels of a folder's images (a `Source`)."""

    name: str
    origin: str
    classes: tuple[str, ...] | None
    files: list[tuple[str, int]]
    state: str

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Item]:
        for name, label in self.files:
            yield Item(name, Path(self.origin, name), label)


def find_pictures(root: Path, request: Request) -> Pictures:
    """The images of a split, and a hash over all names, lengths and times of modification.

    Raises:
        FewstepError: no such split, no images, an unreadable folder, or images both beside and
            inside class folders while labels are wanted.
    """
    part = split_folder(root, request.split)
    found = sorted(_walk(part))
    if not found:
        raise FewstepError(f"{part} holds no images (names ending in {' '.join(ENDINGS)})")
    tops = [_top(name) for name in found]
    classes: tuple[str, ...] | None = None
    if request.labels and any(tops):
        _check_mixture(part, found, tops)
        classes = tuple(sorted(set(tops) | _other_classes(root, part)))
    index = {name: i for i, name in enumerate(classes or ())}
    files = [(name, index.get(top, -1)) for name, top in zip(found, tops, strict=True)]
    return Pictures(root.name, str(part), classes, files, _state(part, found, classes))


def split_folder(root: Path, split: str) -> Path:
    """`root/train`, `root/test` or `root/val` where a folder is laid out like that, else `root`."""
    names = _split_names(root)
    for name in candidates(split):
        if name in names:
            return root / name
    if names or split != "train":
        raise missing(str(root), split, names)
    return root


def _split_names(root: Path) -> list[str]:
    """The split folders of `root`; a lone class called "test" does not make a split."""
    folders = {entry.name for entry in _entries(root) if entry.is_dir()}
    held_out = folders.intersection((*candidates("test"), *candidates("val")))
    if "train" in folders and (held_out or folders == {"train"}):
        return sorted({"train"} | held_out)
    return []


def _other_classes(root: Path, part: Path) -> set[str]:
    """Classes of the other splits: a number must mean the same class in each of them."""
    others = [] if part == root else [root / name for name in _split_names(root)]
    return {
        entry.name
        for other in others
        if other != part
        for entry in _entries(other)
        if entry.is_dir() and next(_walk(Path(entry.path)), None)
    }


def _check_mixture(part: Path, found: list[str], tops: list[str]) -> None:
    loose = tops.count("")
    if loose:
        raise FewstepError(
            f"{part} has {loose} images beside its class folders (such as "
            f"{found[tops.index('')]}) and {len(found) - loose} inside; move them into a class "
            "folder, or pass labels=False (--no-labels) to use all without labels"
        )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, without hidden names."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise FewstepError(f"cannot read the folder {folder}: {error.strerror}") from error


def _walk(root: Path) -> Iterator[str]:
    """Names of all images below `root`, relative to it, such as `cat/1.png`."""
    top = os.path.realpath(root)
    seen = {top}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        for entry in _entries(root / prefix):
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in seen or (entry.is_symlink() and _nested(real, top)):
                    continue
                seen.add(real)
                waiting.append(f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(ENDINGS):
                yield prefix + entry.name


def _nested(a: str, b: str) -> bool:
    """Whether one of two real paths lies inside the other."""
    return os.path.commonpath([a, b]) in (a, b)


def _top(name: str) -> str:
    """The class folder of a relative name; empty for a file that is in none."""
    first, slash, _ = name.partition("/")
    return first if slash else ""


def _state(part: Path, found: list[str], classes: tuple[str, ...] | None) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    for name in found:
        digest.update(stamp(os.path.join(part, name)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def stamp(path: str | Path) -> str:
    """Name, length and time of modification; a link to nothing has neither of the latter."""
    try:
        stat = os.stat(path)
    except OSError:
        return f"{path}\n"
    return f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
