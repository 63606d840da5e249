"""``fewstep list``."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from fewstep.cli.command import command
from fewstep.distances import DISTANCES
from fewstep.networks import NETWORKS
from fewstep.objectives import OBJECTIVES
from fewstep.parameterization import PARAMETERIZATIONS, PREDICTIONS
from fewstep.recipes import RECIPES
from fewstep.registry import Registry
from fewstep.schedules import TIME_GRIDS
from fewstep.solvers import SAMPLERS, SOLVERS
from fewstep.training_times import TRAINING_TIMES
from fewstep.weightings import WEIGHTINGS

What = Literal[
    "recipes",
    "objectives",
    "networks",
    "parameterizations",
    "predictions",
    "samplers",
    "solvers",
    "grids",
    "distances",
    "weightings",
    "times",
]
REGISTRIES: dict[str, Registry] = {
    "objectives": OBJECTIVES,
    "networks": NETWORKS,
    "parameterizations": PARAMETERIZATIONS,
    "predictions": PREDICTIONS,
    "samplers": SAMPLERS,
    "solvers": SOLVERS,
    "grids": TIME_GRIDS,
    "distances": DISTANCES,
    "weightings": WEIGHTINGS,
    "times": TRAINING_TIMES,
}


def list_(*what: Annotated[What, Parameter(help="Which lists; default all.")]) -> None:
    """Show recipes, objectives, networks, solvers and the rest, one line each.

    Examples:
      fewstep list
      fewstep list recipes objectives
    """
    console = Console()
    for name in what or get_args(What):
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for row in rows(name):
            table.add_row(*row)
        console.print(f"[bold underline]{name}[/]")
        console.print(table)
        console.print()


def rows(what: str) -> list[tuple[str, str]]:
    """Name, and one line with the paper."""
    if what == "recipes":
        return [(name, recipe.summary) for name, recipe in RECIPES.items()]
    registry = REGISTRIES[what]
    return [(name, _line(registry, name)) for name in registry]


def _line(registry: Registry, name: str) -> str:
    summary = registry.summary(name)
    if not summary.startswith("`"):  # a sentence, not a formula
        summary = summary[:1].upper() + summary[1:]
    summary = summary.replace("`", "")
    paper = getattr(registry[name], "paper", None)
    return f"{summary} [dim]{paper}[/]" if paper else summary


app = command(list_)
