"""How much memory and disk there is, so that what cannot fit is refused and not killed."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from fewstep.errors import FewstepError

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")  # version 2
GLIBC = {-1: 2**31 - 1, -2: 2**26, -3: 2**25}
"""Options of ``mallopt``: from how many free bytes on some are given back, how many are taken from
the system at once, and from which size on a block is taken from the system by itself."""


def keep_freed_memory() -> None:
    """From now on this process keeps the memory that it frees, and uses it again.

    Otherwise glibc gives it back to the system after every step, and the next one has to get it
    again page by page, which takes a sixth of the time of a small network's step. Elsewhere than
    with glibc nothing is done. The most memory that is used stays as it is.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for option, value in GLIBC.items():
            libc.mallopt(option, value)


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    known = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except OSError:
        return _of_pages()  # not Linux
    except (ValueError, IndexError):
        return None


def _of_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _of_container() -> int | None:
    """What the limit of a container leaves; the cache of files counts as free."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(counts.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def check_fits(size: int, what: str) -> None:
    """Raise `FewstepError` where something of ``size`` bytes does not fit the free memory."""
    free = free_memory()
    if free is not None and size > free:
        raise FewstepError(
            f"{what} needs {size / GIB:,.1f} GiB of memory, of which {free / GIB:,.1f} GiB are free"
        )


def free_disk(folder: Path) -> int | None:
    """Bytes that the disk of a folder, which need not exist yet, has left; None if not known."""
    try:
        return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    except (OSError, StopIteration):
        return None
