"""Parquet files in a folder: of one data set, of one split.

A folder as it is downloaded from the Hugging Face hub is read as it is:

    data/train-00000-of-00001.parquet
    default/train/0000.parquet                    the hub's own conversion
    cropped/train-00000-of-00001.parquet          a configuration; one among several must be named
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewstep.data.labels import natural
from fewstep.data.splits import BESIDE_WORDS, divide, read_name
from fewstep.errors import FewstepError

ENDING = ".parquet"


def of_one_set(root: Path, names: Sequence[str], kind: str = "Parquet files") -> list[Path]:
    """Of the tables in a folder those directly in it, else all, which must be of one set.

    Args:
        root: the folder.
        names: of the files, relative to it, sorted.
        kind: what the files are, for the message.

    Raises:
        FewstepError: files of several data sets are below it.
    """
    names = [name for name in names if "/" not in name] or names
    sets = _sets(names)
    if len(sets) > 1:
        raise FewstepError(
            f"{root} holds several data sets of {kind} ({', '.join(sets)}): pass the path "
            f"of one, such as {root / sets[0]}"
        )
    return [root / name for name in names]


def _sets(names: Sequence[str]) -> list[str]:
    """The folders of the data sets that files belong to: those that are not splits."""
    folders = [name.split("/")[:-1] for name in names]
    splits = divide({part for parts in folders for part in parts})
    return sorted({_set(parts, splits) for parts in folders}, key=natural)


def _set(parts: Sequence[str], splits: dict[str, str]) -> str:
    kept = [part if part not in splits else _kept(part) for part in parts]
    return "/".join(part for part in kept if part)


def _kept(part: str) -> str:
    """What a split's folder says besides its split: "cropped" of `cropped-train`."""
    return "-".join(word for word in read_name(part).rest if word not in BESIDE_WORDS)
