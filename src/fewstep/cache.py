"""Where fewstep keeps what it can make again: decoded data, classifiers, statistics."""

from __future__ import annotations

import os
from pathlib import Path

from fewstep.errors import FewstepError


def cache_folder() -> Path:
    """`FEWSTEP_CACHE`, else `fewstep` in `XDG_CACHE_HOME`, else `~/.cache/fewstep`.

    Raises:
        FewstepError: the user has no home folder, as in some containers, and no cache is set.
    """
    own, base = os.environ.get("FEWSTEP_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "fewstep"
    except RuntimeError as error:
        where = f"FEWSTEP_CACHE={own} names no folder" if own else "this user has no home folder"
        raise FewstepError(
            f"{where}: set FEWSTEP_CACHE to a folder, where decoded images, classifiers "
            "and statistics are kept."
        ) from error


def expanded(path: str | Path) -> Path:
    """A path with ``~`` and ``~user`` resolved.

    Raises:
        FewstepError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FewstepError(f"there is no home folder for {str(path)!r}: write it out.") from error
