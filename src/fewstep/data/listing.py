"""What is in a folder: names of files by their endings, without what is to be ignored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fewstep.data.ignored import is_ignored
from fewstep.errors import FewstepError


def list_files(root: Path, endings: tuple[str, ...]) -> list[str]:
    """Names of all files with one of the endings below a folder, relative to it: `cat/1.png`.

    Hidden files and folders, and those that systems leave, are left out. A linked folder is
    followed unless it leads back into the data or was read already.

    Returns:
        The names in their order as text, which is the same on every machine.

    Raises:
        FewstepError: an unreadable folder.
    """
    return sorted(_walk(root, endings))


def _walk(root: Path, endings: tuple[str, ...]) -> Iterator[str]:
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


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_ignored(entry.name)]
    except OSError as error:
        raise FewstepError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(found, key=lambda entry: entry.name)


def _nested(a: str, b: str) -> bool:
    """Whether one of two real paths lies inside the other."""
    return os.path.commonpath([a, b]) in (a, b)


def stamp(path: str | Path) -> str:
    """Name, length and time of modification; a link to nothing has neither of the latter."""
    try:
        stat = os.stat(path)
    except OSError:
        return f"{path}\n"
    return f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
