"""Files that appear whole or not at all, and JSON that is read without trusting its shape.

Whatever the package writes goes to a partial file beside its place, ``.NAME.HOST.PID.N.partial``,
and takes the place once it is on the disk. It has the rights that the user's umask gives. A
process that is killed leaves its partial files behind; their names tell whose they were, and
`sweep` removes them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fewstep.errors import FewstepError, refusals

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

RECORD = "run.json"
"""The file that makes a folder a run's."""
SHAPELESS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
)
"""What reading a value of another shape than expected can raise."""

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:40]
_OWNER = re.compile(r"\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.\d+\.partial$")
_OLD = 24 * 3600  # seconds after which a partial file of any host is nobody's
_OLD_NAMES = (  # of partial files before their names told whose they were
    "run.partial",
    "model.safetensors.partial",
    "pairs.json.partial",
    "shard-*.partial",
    "taus.partial",
    "scores.partial",
    "report.partial",
)
_count = itertools.count()


def partial_of(path: Path) -> Path:
    """A name beside ``path`` that no other process or thread takes."""
    return path.with_name(f".{path.name[:40]}.{_HOST}.{os.getpid()}.{next(_count)}.partial")


@refusals()
def check_writable(path: Path) -> None:
    """Raise `FewstepError` where nothing can be put in a place, before any work is done.

    A partial file is made in the nearest folder that exists, and removed: rights alone do not tell
    of a disk that is mounted to be read only, or to the superuser.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FewstepError(f"cannot write {path}: it is a pipe or a device, and a file is written.")
    whole = path.absolute()
    above = next(parent for parent in (*whole.parents, whole) if parent.exists())
    if not above.is_dir():
        raise FewstepError(f"cannot write {path}: {above} is not a folder.")
    partial = partial_of(above / (whole.name or "x"))
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a partial file, to be written in the block; after it the file is in its place.

    Raises:
        OSError: the place is not writable, or full; what was there stays as it was.
    """
    partial = partial_of(path)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON.

    Raises:
        FewstepError: the place is not writable, or full.
    """
    try:
        with replacing(path) as partial:
            partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error}.") from error


def read_json(path: Path, parse: Callable[[Any], T], what: str, remedy: str = "") -> T:
    """Read a JSON file of any content.

    Args:
        path: the file.
        parse: makes the wanted value of what the file holds, and raises anything of `SHAPELESS`,
            a `FewstepError` among them, where the shape is another.
        what: it should be, for the message.
        remedy: what to do about it, as a sentence.

    Raises:
        FewstepError: the file cannot be read, or does not hold what it should.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except FewstepError as error:
        raise FewstepError(f"{path} is not {what}: {error} {remedy}".rstrip()) from error
    except SHAPELESS as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise FewstepError(f"{path} is not {what} ({reason}). {remedy}".rstrip()) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> str:
    """Write a safetensors file, with the rights of the umask; the SHA-256 of its content.

    Args:
        path: the file itself: see `replacing`.
        tensors: by name.
        metadata: text of the header.

    Raises:
        OSError: the place is not writable, or full.
        SafetensorError, RuntimeError: tensors that the format does not hold.
    """
    from safetensors.torch import save

    content = save(dict(tensors), metadata)
    with path.open("wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def sweep_old_names(folder: Path) -> None:
    """Remove what killed processes of earlier versions have left; the folder must be held."""
    with suppress(OSError):
        for pattern in _OLD_NAMES:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the partial files and folders that killed processes have left in a folder."""
    with suppress(OSError):
        for path in folder.glob(".*.partial"):
            if _is_nobodys(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_nobodys(partial: Path) -> bool:
    owner = _OWNER.search(partial.name)
    if owner is None:
        return False
    if owner["host"] == _HOST:
        return not alive(int(owner["pid"]))
    return time.time() - partial.stat().st_mtime > _OLD


def is_partial(path: Path) -> bool:
    """Whether a file is one that is being written, or that a killed process has left behind."""
    return _OWNER.search(path.name) is not None


def alive(pid: int) -> bool:
    """Whether a process of this machine is running; yes where the system does not tell."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
