"""The one exception for a user's mistake, and the nearest valid name for a wrong one.

The command line prints a `FewstepError` as one line and exits with code 2, and so it does with
what the machine refuses: a file, or memory. Every other exception is a defect of ours.
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LISTED = 5  # names in a message


class FewstepError(ValueError):
    """A user's mistake: the message names the file, key or value at fault and says what to do."""


class NotFinite(FewstepError):
    """NaN or an infinity where an image or a score is asked for, most often of a broken model."""


class FewstepWarning(UserWarning):
    """What a user should know although it stops nothing; the command line prints one line."""


def listed(names: Iterable[Any]) -> str:
    """The names for a message, the first few of many."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - LISTED:,} more" if len(shown) > LISTED else ""
    return ", ".join(shown[:LISTED]) + more


def unknown(kind: str, name: str, known: Iterable[str]) -> FewstepError:
    """The error for a name that is not in a closed list, with the nearest one that is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return FewstepError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}.")


def not_there(kind: str, path: Path, known: Iterable[str] = ()) -> FewstepError:
    """The error for a path to nothing, with the nearest name: one that is known, or beside it."""
    parent = path.parent
    beside = [str(parent / entry.name) for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(str(path), [*known, *beside], n=1, cutoff=0.75)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return FewstepError(f"there is no {kind} {str(path)!r}.{hint}")


@contextmanager
def refusals(*, memory: bool = False) -> Iterator[None]:
    """Inside, what the system refuses is a `FewstepError` that names the file; also a decorator.

    A folder without permission, a name that is too long, a full disk: `Path.exists` and its kin
    raise `OSError` for these just as `open` does.

    Args:
        memory: also memory that does not suffice; what filled it is let go.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refusal(error) from error
    except (MemoryError, RuntimeError) as error:
        refused = memory_refusal(error) if memory else None
        if refused is None:
            raise
        traceback.clear_frames(error.__traceback__)  # whose variables hold what filled it
        raise refused from error


def refusal(error: OSError) -> FewstepError:
    """The `FewstepError` of what the system refused."""
    reason = error.strerror or str(error) or type(error).__name__
    files = [os.fspath(name) for name in (error.filename, error.filename2) if _is_path(name)]
    if not files:
        return FewstepError(f"the system refused: {reason}.")
    return FewstepError(f"cannot use {' and '.join(map(_shown, files))}: {reason}.")


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _shown(path: str | bytes) -> str:
    """A path in quotes, without the middle of a very long one."""
    text = os.fsdecode(path)
    return repr(text if len(text) < 200 else f"{text[:90]}...{text[-90:]}")


def out_of_memory(error: BaseException) -> str | None:
    """What did not fit into memory, where that is what an exception says; else None."""
    text = " ".join(str(error).split())
    said = text.lower()
    if isinstance(error, MemoryError):
        return f"the memory does not suffice ({text})" if text else "the memory does not suffice"
    if isinstance(error, RuntimeError) and any(sign in said for sign in _FULL):
        return f"the memory does not suffice ({text[:200]})"
    return None


def memory_refusal(error: BaseException) -> FewstepError | None:
    """The `FewstepError` of memory that does not suffice; None for another exception."""
    reason = out_of_memory(error)
    if reason is None:
        return None
    return FewstepError(f"{reason}; try a smaller batch, size or network.")


_FULL = ("out of memory", "can't allocate memory", "not enough memory", "size calculation overflow")
"""What torch says in a `RuntimeError` where a tensor does not fit."""
