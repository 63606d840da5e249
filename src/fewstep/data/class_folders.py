"""Folders that are classes: a folder's name for each class's name, and the way back.

A class is kept in the folder of its name where every system and `load` take that name for a class.
Any other ("T-shirt/top", "../up", "test", "a train" beside "a test", "CON", "Cat" beside "cat")
gets a similar name, and `fewstep-classes.json` beside the folders says which class each of them is.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.data.ignored import is_ignored
from fewstep.data.splits import divide, read_name
from fewstep.files import read_json

NAMES = "fewstep-classes.json"
FORMAT = 1
LONGEST = 80  # characters of a folder's name; most file systems allow 255 bytes
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff<>:\"/\\|?*]")
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder's name for each class: different ones, also where case does not count."""
    safe = [name for name in classes if _is_safe(name)]
    splits = divide(safe)
    own = {name.casefold(): name for name in reversed(safe) if name not in splits}
    taken, folders = dict(own), []
    for name in classes:
        if own.get(name.casefold()) == name:
            folders.append(name)
            continue
        folder = next(other for other in _similar(name) if _is_free(other, taken))
        taken[folder.casefold()] = folder
        folders.append(folder)
    return folders


def _is_free(name: str, taken: Mapping[str, str]) -> bool:
    """Whether a folder of this name is another than those that are taken, and no split beside."""
    if name.casefold() in taken:
        return False
    return not read_name(name).split or name not in divide((*taken.values(), name))


def write_names(root: Path, classes: Sequence[str], folders: Sequence[str]) -> None:
    """Say in a folder which class each of its folders is, where the names alone do not."""
    if list(classes) != list(folders):
        content = {"format": FORMAT, "classes": dict(zip(folders, classes, strict=True))}
        (root / NAMES).write_text(json.dumps(content, indent=1))


def read_names(root: Path) -> dict[str, str] | None:
    """The class of each folder, where `write_names` has said so; None where it has not.

    Raises:
        FewstepError: the file is damaged.
    """
    path = root / NAMES
    if not path.is_file():
        return None
    remedy = "Delete it to take the folders' own names."
    return read_json(path, _parse, "a note on which class each folder is", remedy)


def _parse(stored: Any) -> dict[str, str]:
    names = dict(stored["classes"])
    if stored["format"] != FORMAT or not all(isinstance(name, str) for name in names.values()):
        raise ValueError("names of another form")
    return names


def _is_safe(name: str) -> bool:
    """Whether a folder of this name is the class of this name, everywhere: but for splits."""
    return bool(
        name
        and len(name) <= LONGEST
        and len(name.encode("utf-8", "surrogatepass")) <= 2 * LONGEST
        and not FORBIDDEN.search(name)
        and not DEVICES.fullmatch(name)
        and name.strip(" .") == name
        and not is_ignored(name)
    )


def _similar(name: str) -> itertools.chain[str]:
    """Safe names, the most similar first."""
    plain = FORBIDDEN.sub("_", name)[: LONGEST // 2].strip(" .")
    some = (plain, f"class-{plain}".strip(" .-"))
    numbers = (f"class-{i}" for i in itertools.count())
    return itertools.chain((other for other in some if _is_safe(other)), numbers)
