"""A progress bar for work that is counted in images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def images_bar(title: str, total: int, *, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; call what it yields with the number of images that were done."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (show and sys.stderr.isatty()),
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda n: bar.advance(task, n)
