"""``fewstep list``."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, get_args

from cyclopts import Parameter
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fewstep.cli.catalogue import entries
from fewstep.cli.command import command
from fewstep.recipes import RECIPES
from fewstep.terminal import console

What = Literal[
    "recipes",
    "objectives",
    "networks",
    "parameterizations",
    "processes",
    "preconditionings",
    "forms",
    "predictions",
    "samplers",
    "solvers",
    "phi",
    "grids",
    "distances",
    "weightings",
    "times",
    "time_pairs",
    "loggers",
]
REGISTRIES = {
    "OBJECTIVES": "objectives",
    "NETWORKS": "networks",
    "PARAMETERIZATIONS": "parameterizations",
    "PROCESSES": "processes",
    "PRECONDITIONINGS": "preconditionings",
    "FORMS": "forms",
    "PREDICTIONS": "predictions",
    "SAMPLERS": "samplers",
    "SOLVERS": "solvers",
    "PHI": "phi",
    "TIME_GRIDS": "grids",
    "DISTANCES": "distances",
    "WEIGHTINGS": "weightings",
    "TRAINING_TIMES": "times",
    "TIME_PAIRS": "time_pairs",
    "LOGGERS": "loggers",
}
"""Which list a registry's classes go into."""
NARROW = 60  # columns below which a description goes below its name


class Row(NamedTuple):
    """A name, what it is, the paper that it is from, what it needs and what a step costs."""

    name: str
    summary: str
    paper: str = ""
    needs: str = ""
    cost: str = ""

    @property
    def rest(self) -> str:
        """What stands behind the summary."""
        return "; ".join(filter(None, (self.paper, self.needs, self.cost)))


def list_(*what: Annotated[What, Parameter(help="Which lists; default all.")]) -> None:
    """Show recipes, objectives, networks, samplers and the rest, one line each.

    Examples:
      fewstep list
      fewstep list recipes objectives
    """
    screen = console()
    lists = rows()
    for name in what or get_args(What):
        screen.print(Text(name, style="bold underline"))
        _show(screen, lists[name])
        screen.print()


def rows() -> dict[str, list[Row]]:
    """Every list, in the order of the sources."""
    lists: dict[str, list[Row]] = {name: [] for name in get_args(What)}
    lists["recipes"] = [Row(name, recipe.summary) for name, recipe in RECIPES.items()]
    for entry in entries():
        if kind := REGISTRIES.get(entry.registry):
            needs = f"needs {', '.join(words)}" if (words := entry.needs.words) else ""
            cost = "" if entry.cost is None else entry.cost.words
            summary = _sentence(entry.summary)
            lists[kind].append(Row(entry.name, summary, entry.paper or "", needs, cost))
    return lists


def _show(screen: Console, some: list[Row]) -> None:
    """A table on a terminal, folded to its width; elsewhere a line per row, for ``grep``."""
    if not screen.is_terminal:
        width = max(len(row.name) for row in some) + 2
        for row in some:
            print(f"{row.name:{width}}{row.summary} {row.rest}".rstrip())
    elif screen.width < NARROW:
        for row in some:
            screen.print(Text(row.name, style="bold"))
            screen.print(Padding(_description(row), (0, 0, 0, 2)))
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="bold", no_wrap=True)
        for row in some:
            table.add_row(row.name, _description(row))
        screen.print(table)


def _description(row: Row) -> Text:
    return Text.assemble(row.summary, (f" {row.rest}" if row.rest else "", "dim"))


def _sentence(summary: str) -> str:
    if not summary.startswith("`"):  # a sentence, not a formula
        summary = summary[:1].upper() + summary[1:]
    return summary.replace("`", "")


app = command(list_)
