"""A folder of pictures, found recursively; the first level of subfolders names the classes.

A file counts when its name ends in one of `ENDINGS`; hidden files and folders, and those that
systems leave (`ignored`), do not; pictures of other kinds are left out and said. A linked folder is
followed unless it leads back into the data or was read already. Files come in the order of their
sorted names, so it is the same on every machine; classes in the order of `labels.natural`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fewstep.data.build import Item, Request
from fewstep.data.class_folders import read_names
from fewstep.data.ignored import is_ignored
from fewstep.data.labels import natural
from fewstep.data.splits import choose, divide, missing, read_name
from fewstep.errors import FewstepError, FewstepWarning

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NOT_READ = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".jp2",
    ".psd",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
)


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
    names = read_names(root)
    name, (root, splits) = root.name, (root, {}) if names is not None else _divided(root)
    if splits:
        part = root / splits[choose(request.split, splits, str(root))]
        found = sorted(find_files(part))
    else:
        part = root
        found = _of_split(sorted(find_files(root)), request.split, root, whole=names is not None)
    _say_not_read(part)
    if not found:
        raise FewstepError(f"{part} holds no images (names ending in {' '.join(ENDINGS)})")
    tops = [_top(name) for name in found]
    classes: tuple[str, ...] | None = None
    index: dict[str, int] = {}
    if request.labels and any(tops):
        _check_mixture(part, found, tops)
        called = {top: (names or {}).get(top, top) for top in set(tops)}
        classes = _numbered(set(called.values()), root, splits, part)
        index = {top: classes.index(name) for top, name in called.items()}
    files = [(name, index.get(top, -1)) for name, top in zip(found, tops, strict=True)]
    return Pictures(name, str(part), classes, files, _state(part, found, classes))


def _say_not_read(part: Path) -> None:
    if others := sorted(find_files(part, NOT_READ)):
        warnings.warn(
            f"{part}: left out {len(others):,} pictures of a kind that is not read (such as "
            f"{others[0]}); convert them to PNG or JPEG",
            FewstepWarning,
            stacklevel=2,
        )


def _numbered(own: set[str], root: Path, splits: dict[str, str], part: Path) -> tuple[str, ...]:
    """The classes in order: those of the training split first, so that they keep their numbers."""
    train = splits.get("train")
    first = own if train is None or root / train == part else _class_folders(root / train)
    return (*sorted(first, key=natural), *sorted(own - first, key=natural))


def _class_folders(part: Path) -> set[str]:
    return {entry.name for entry in _entries(part) if entry.is_dir() and holds_images(entry.path)}


def holds_images(folder: str | Path) -> bool:
    """Whether there is an image in or below a folder."""
    return next(find_files(Path(folder)), None) is not None


def _divided(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder that is divided into splits, and `split_folders` of it; one in it may be alone.

    So `images/train/cat/1.png` is of class "cat". A folder alone that holds splits without class
    folders is itself a class.
    """
    splits = split_folders(root)
    alone = [] if splits else sorted(_class_folders(root))
    if len(alone) == 1:
        inner = root / alone[0]
        below = split_folders(inner)
        if below and any(_class_folders(inner / folder) for folder in below.values()):
            _say_loose([e.name for e in _entries(root) if _is_picture(e)], root, below)
            return inner, below
    return root, splits


def split_folders(root: Path) -> dict[str, str]:
    """The folder of each split, where a folder is divided into splits; else nothing.

    Raises:
        FewstepError: folders that are splits beside folders that are none, or two of one split.
    """
    entries = _entries(root)
    here = {entry.name for entry in entries if entry.is_dir() and holds_images(entry.path)}
    said = divide(here)
    others = sorted(here - said.keys(), key=natural)
    if not said or (others and set(said.values()) == {"train"} and _are_flat(root, said)):
        return {}
    if others:
        raise FewstepError(
            f"{root} has folders that are splits ({_listed(sorted(said))}) beside others "
            f"({_listed(others)}): rename the first if they are classes, move the others into "
            "them, or pass the path of one split"
        )
    folders: dict[str, str] = {}
    for folder, split in sorted(said.items()):
        if split in folders:
            raise FewstepError(
                f"{root}: {folders[split]} and {folder} are both split {split!r}; pass the path of "
                "one of them"
            )
        folders[split] = folder
    _say_loose([entry.name for entry in entries if _is_picture(entry)], root, folders)
    return folders


def _are_flat(root: Path, folders: dict[str, str]) -> bool:
    """Whether folders hold images but no class folders: then `train` beside `bus` is a class."""
    return not any(_class_folders(root / folder) for folder in folders)


def _say_loose(loose: list[str], root: Path, folders: dict[str, str]) -> None:
    if loose:
        warnings.warn(
            f"{root}: left out {len(loose)} images (such as {min(loose)}) beside the splits "
            f"{_listed(folders.values())}",
            FewstepWarning,
            stacklevel=2,
        )


def _of_split(found: list[str], split: str, root: Path, whole: bool) -> list[str]:
    """The images of a split where class folders are divided into splits: `cat/test/1.png`.

    Raises:
        FewstepError: no such split; images inside such a folder and outside.
    """
    if not whole and _names_say_splits(found):
        wanted = choose(split, {_said(name) for name in found}, str(root))
        kept = [name for name in found if _said(name) == wanted]
        warnings.warn(
            f"{root}: of {len(found):,} images the {len(kept):,} whose names say split {wanted!r} "
            "are taken; move them elsewhere or rename them if they are of none",
            FewstepWarning,
            stacklevel=2,
        )
        return kept
    inner = [name.split("/")[1] if name.count("/") > 1 else "" for name in found]
    said = {} if whole else divide(set(inner))
    if not {"test", "val"}.intersection(said.values()):
        if split != "train":
            raise missing(str(root), split)
        return found
    outside = [name for name, folder in zip(found, inner, strict=True) if folder not in said]
    if outside:
        raise FewstepError(
            f"{root} has images inside folders that are splits ({_listed(sorted(said))}) and "
            f"{len(outside)} outside, such as {outside[0]}: move all into splits, or rename those "
            "folders if they are none"
        )
    wanted = choose(split, said.values(), str(root))
    return [name for name, folder in zip(found, inner, strict=True) if said[folder] == wanted]


def _said(name: str) -> str:
    return read_name(os.path.splitext(os.path.basename(name))[0]).split


def _names_say_splits(found: list[str]) -> bool:
    """Whether every image's own name says a split, and they are not all of one."""
    return all(map(_said, found)) and len(set(map(_said, found))) > 1


def _check_mixture(part: Path, found: list[str], tops: list[str]) -> None:
    loose = tops.count("")
    if loose:
        raise FewstepError(
            f"{part} has {loose} images beside its class folders (such as "
            f"{found[tops.index('')]}) and {len(found) - loose} inside; move them into a class "
            "folder, or pass labels=False (--no-labels) to use all without labels"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, without what is to be ignored."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_ignored(entry.name)]
    except OSError as error:
        raise FewstepError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(ENDINGS) and not entry.is_dir()


def find_files(root: Path, endings: tuple[str, ...] = ENDINGS) -> Iterator[str]:
    """Names of all images, or of other files, below `root`, relative to it: `cat/1.png`.

    Raises:
        FewstepError: an unreadable folder.
    """
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
            elif entry.name.lower().endswith(endings):
                yield prefix + entry.name


def _nested(a: str, b: str) -> bool:
    """Whether one of two real paths lies inside the other."""
    return os.path.commonpath([a, b]) in (a, b)


def _top(name: str) -> str:
    """The class folder of a relative name; empty for a file that is in none."""
    first, slash, _ = name.partition("/")
    return first if slash else ""


def _state(part: Path, found: list[str], classes: tuple[str, ...] | None) -> str:
    digest = hashlib.sha256(repr(classes).encode("utf-8", "surrogateescape"))
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
