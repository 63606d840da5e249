"""The one exception for a user's mistake, and the nearest valid name for a wrong one.

The command line prints a `FewstepError` as one line and exits with code 2;
every other exception is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class FewstepError(ValueError):
    """A user's mistake: the message names the file, key or value at fault and says what to do."""


class FewstepWarning(UserWarning):
    """What a user should know although it stops nothing; the command line prints one line."""


def unknown(kind: str, name: str, known: Iterable[str]) -> FewstepError:
    """The error for a name that is not in a closed list, with the nearest one that is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return FewstepError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


def not_there(kind: str, path: Path, known: Iterable[str] = ()) -> FewstepError:
    """The error for a path to nothing, with the nearest name: one that is known, or beside it."""
    parent = path.parent
    beside = [str(parent / entry.name) for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(str(path), [*known, *beside], n=1, cutoff=0.75)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return FewstepError(f"there is no {kind} {str(path)!r}.{hint}")
