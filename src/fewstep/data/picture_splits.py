"""Which of a folder's images are of a split, by the rule of `fewstep.data.splits`.

Names are relative to the folder, such as `train/cat/1.png`. A folder is divided at its first level
(`train/cat/1.png`), below folders that are alone (`images/train/cat/1.png`), inside its classes
(`cat/train/1.png`), or by the images' own names where all of them say a split (`train_1.png`).

A folder that is alone is a class, unless its name says that it holds the classes
(`train/images/cat`, `cifar_train/cifar_train/cat`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fewstep.data.labels import natural
from fewstep.data.splits import BESIDE_WORDS, choose, divide, missing, read_name
from fewstep.errors import FewstepError, FewstepWarning, listed


class Part(NamedTuple):
    """The images of a split.

    Args:
        folder: that the names are relative to.
        names: of the images.
        training: class folders of the training images, where these are others.
    """

    folder: Path
    names: list[str]
    training: frozenset[str] = frozenset()


def part_of(root: Path, names: list[str], split: str) -> Part:
    """The images of a split, of all images in a folder.

    Raises:
        FewstepError: there is no such split, or it is not clear what is meant.
    """
    root, names, splits = _divided(root, names)
    if not splits:
        root, names = _classes_in(root, names)
        return Part(root, _inside_classes(root, names, split))
    chosen = splits[choose(split, splits, str(root))]
    training: set[str] = set()
    if "train" in splits:
        first = splits["train"]
        training = class_folders(_classes_in(root / first, _inside(names, first))[1])
    root, names = _classes_in(root / chosen, _inside(names, chosen))
    root, names = _unlabelled(root, names, training)
    return Part(root, names, frozenset(training))


def _divided(root: Path, names: list[str]) -> tuple[Path, list[str], dict[str, str]]:
    """The folder that is divided into splits, its images, and the folder of each split.

    It is `root` or one below it, down to which every folder is alone. Without splits `root` itself;
    where the splits have no classes the folder around them, which is a class unless its name says
    that it only holds them (`images/train/1.png`), and no splits.
    """
    above, here, inner = (root, names), root, names
    while not (splits := _split_folders(here, inner)):
        alone = class_folders(inner)
        if len(alone) != 1:
            return root, names, {}
        (folder,) = alone
        above, here, inner = (here, inner), here / folder, _inside(inner, folder)
    flat = not any(class_folders(_inside(inner, other)) for other in splits.values())
    if here != root and flat and not _holds_others(above[0], here.name):
        return *above, {}
    _say_loose(root, names, splits)
    return here, inner, splits


def _classes_in(root: Path, names: list[str]) -> tuple[Path, list[str]]:
    """The folder whose folders are the classes, and its images: below those that only hold it."""
    while len(alone := class_folders(names)) == 1:
        (folder,) = alone
        inner = _inside(names, folder)
        below = class_folders(inner)
        if not all("/" in name for name in inner) or divide(below):
            break
        if not _holds_others(root, folder):
            _say_alone(root / folder, below)
            break
        root, names = root / folder, inner
    return root, names


def _holds_others(root: Path, folder: str) -> bool:
    """Whether the name of a folder that is alone says that it holds classes, and is none itself."""
    split, rest = read_name(folder)
    named = bool(split) or any(word in BESIDE_WORDS for word in rest)
    plain = all(word in BESIDE_WORDS or word.isdigit() for word in rest)
    return (named and plain) or folder.casefold() == root.name.casefold()


def _say_alone(folder: Path, below: set[str]) -> None:
    if len(below) > 1:
        warnings.warn(
            f"all images are of the class {folder.name!r}, the only folder; if the folders in it "
            f"({listed(sorted(below, key=natural))}) are the classes, pass its path: {folder}",
            FewstepWarning,
            stacklevel=2,
        )


def _unlabelled(root: Path, names: list[str], training: set[str]) -> tuple[Path, list[str]]:
    """Held-out images in one folder that only holds them, while the training images have classes:
    no class, as in `val/images/1.png` beside `train/cat/1.png`."""
    alone = class_folders(names)
    if training and len(alone) == 1 and len(class_folders(_inside(names, *alone))) == 0:
        (folder,) = alone
        if folder not in training and _holds_others(root, folder):
            return root / folder, _inside(names, folder)
    return root, names


def class_folders(names: Iterable[str]) -> set[str]:
    """The folders of the first level that hold images."""
    return {top_of(name) for name in names} - {""}


def top_of(name: str) -> str:
    """The folder of the first level that an image is in; empty where it is in none."""
    first, slash, _ = name.partition("/")
    return first if slash else ""


def _inside(names: Iterable[str], folder: str) -> list[str]:
    prefix = f"{folder}/"
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def _split_folders(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The folder of each split, where the first level is divided into splits; else nothing.

    Raises:
        FewstepError: folders that are splits beside folders that are none, or two of one split.
    """
    here = class_folders(names)
    said = divide(here)
    others = sorted(here - said.keys(), key=natural)
    if not said or (others and _is_a_class(said, names)):
        return {}
    if others:
        raise FewstepError(
            f"{root} has folders that are splits ({listed(sorted(said))}) beside others "
            f"({listed(others)}): rename the first if they are classes, move the others into "
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
    _say_loose(root, names, folders)
    return folders


def _is_a_class(said: dict[str, str], names: Sequence[str]) -> bool:
    """Whether `train` is a class like `bus` beside it: it has no class folders of its own."""
    flat = not any(class_folders(_inside(names, folder)) for folder in said)
    return flat and set(said.values()) == {"train"}


def _say_loose(root: Path, names: Sequence[str], folders: dict[str, str]) -> None:
    if loose := [name for name in names if "/" not in name]:
        warnings.warn(
            f"{root}: left out {len(loose)} images (such as {loose[0]}) beside the splits "
            f"{listed(folders.values())}",
            FewstepWarning,
            stacklevel=2,
        )


def _inside_classes(root: Path, names: list[str], split: str) -> list[str]:
    """The images of a split where class folders, or the images' own names, are divided.

    Raises:
        FewstepError: no such split; images inside folders that are splits and outside.
    """
    if _say_splits(names):
        return _by_own_names(root, names, split)
    inner = [name.split("/")[1] if name.count("/") > 1 else "" for name in names]
    said = divide(set(inner))
    if not {"test", "val"}.intersection(said.values()):
        _check_deeper(root, names)
        if split != "train":
            raise missing(str(root), split)
        return names
    outside = [name for name, folder in zip(names, inner, strict=True) if folder not in said]
    if outside:
        raise FewstepError(
            f"{root} has images inside folders that are splits ({listed(sorted(said))}) and "
            f"{len(outside)} outside, such as {outside[0]}: move all into splits, or rename those "
            "folders if they are none"
        )
    wanted = choose(split, said.values(), str(root))
    return [name for name, folder in zip(names, inner, strict=True) if said[folder] == wanted]


def _check_deeper(root: Path, names: Sequence[str]) -> None:
    """Raise `FewstepError` for splits below the folders inside the classes."""
    deeper = {part for name in names for part in name.split("/")[2:-1]}
    said = divide(deeper)
    if "train" in said.values() and len(set(said.values())) > 1:
        raise FewstepError(
            f"{root} has folders that are splits ({listed(sorted(said))}) inside folders of its "
            "classes: pass the path of the folder that is divided, or move the splits up"
        )


def _said(name: str) -> str:
    return read_name(os.path.splitext(os.path.basename(name))[0]).split


def _say_splits(names: list[str]) -> bool:
    """Whether every image's own name says a split, and they are not all of one."""
    return all(map(_said, names)) and len(set(map(_said, names))) > 1


def _by_own_names(root: Path, names: list[str], split: str) -> list[str]:
    wanted = choose(split, set(map(_said, names)), str(root))
    kept = [name for name in names if _said(name) == wanted]
    warnings.warn(
        f"{root}: of {len(names):,} images the {len(kept):,} whose names say split {wanted!r} are "
        "taken; move them elsewhere or rename them if they are of none",
        FewstepWarning,
        stacklevel=2,
    )
    return kept
