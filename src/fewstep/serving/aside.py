"""Work that would hold up all other requests is done aside, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INLINE = 2**16  # bytes or pixels that are worked on on the spot


async def aside(size: int, work: Callable[[], T]) -> T:
    """Do work of a size in bytes or pixels, whichever it takes or gives more of."""
    return work() if size <= INLINE else await asyncio.to_thread(work)
