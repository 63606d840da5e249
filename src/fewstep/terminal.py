"""The terminal, on which names are what they are: brackets are no markup, `:word:` no picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn


def console(*, stderr: bool = False) -> Console:
    """Where tables, notes and bars are shown; what is to be bold is a `rich.text.Text`."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def column(text: str) -> TextColumn:
    """A text of a bar, such as ``{task.description}``."""
    from rich.progress import TextColumn

    return TextColumn(text, markup=False)


def say_page(screen: Console, seconds: float, page: Path) -> None:
    """Say where a report is, and how long it took."""
    from rich.text import Text

    screen.print(Text.assemble(f"{seconds:.0f} s in all. Open ", (str(page), "bold")))
