"""One process at a time writes into a folder.

The lock is the system's own (``flock``), so that it ends with its process however that ends, and
works between machines where the file system does. ``.lock.json`` says who holds it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewstep.errors import FewstepError
from fewstep.files import alive, is_partial, read_json, sweep, sweep_old_names, write_json

LOCK = ".lock"
OWNER = ".lock.json"
FILES = (LOCK, OWNER)
PATIENCE = 3.0  # seconds: a process that was asked to stop is saving its state


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, and sweep what killed processes left in it.

    Who holds it already may hold it again.

    Args:
        folder: of a run, of pairs, of a reproduction, of a model file.

    Raises:
        FewstepError: another process holds it, and the message says which; it cannot be written.
    """
    from filelock import FileLock, Timeout  # here: sampling does without the package

    lock = FileLock(folder.absolute() / LOCK, is_singleton=True)
    if lock.is_locked:  # by this thread
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise FewstepError(_held(folder)) from None
    except OSError as error:
        raise FewstepError(f"cannot write to {folder}: {error}.") from error
    try:
        sweep(folder)
        sweep_old_names(folder)
        write_json(folder / OWNER, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def is_empty(folder: Path) -> bool:
    """Whether there is a folder with nothing in it but what a killed process has left behind."""
    return folder.is_dir() and all(p.name in FILES or is_partial(p) for p in folder.iterdir())


def in_use(folder: Path) -> bool:
    """Whether a process writes here, as far as its note tells; one of another machine may."""
    owner = _owner(folder)
    return owner is not None and (owner[1] != socket.gethostname() or alive(owner[0]))


def _owner(folder: Path) -> tuple[int, str] | None:
    """The process and the machine that hold a folder; None where nothing says so."""
    try:
        return read_json(folder / OWNER, lambda note: (int(note["pid"]), note["host"]), "a note")
    except FewstepError:
        return None


def _held(folder: Path) -> str:
    """Who holds a folder, as far as it is known."""
    owner = _owner(folder)
    who = "another process" if owner is None else f"the process {owner[0]} on {owner[1]}"
    return (
        f"{folder} is in use: {who} is writing into it. Wait until it has ended, or end it, and "
        "run this again."
    )
