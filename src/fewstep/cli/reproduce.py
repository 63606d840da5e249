"""``fewstep reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from fewstep.cli.command import Whole, command
from fewstep.errors import FewstepError
from fewstep.report.full import FULL
from fewstep.report.plan import SHORT
from fewstep.report.reproduce import Report, reproduce_digits


def reproduce(
    what: Literal["digits"],
    /,
    *,
    full: Annotated[bool, Parameter(negative="")] = False,
    table: Path | None = None,
    out: Path = Path("runs/reproduce-digits"),
    workers: Whole | None = None,
    shorten: float = 1.0,
    device: str | None = None,
) -> None:
    """Train and compare every method, and write a report.

    Trains a diffusion model (EDM), distils it (CD), tunes it (ECT), trains CT and iCT from
    scratch, samples and scores all of them, and writes report.html, table.csv and pictures.
    With --full it does so with every method and sampler of the paper's table, and writes table.md
    beside the report. Interrupt it and run it again: it goes on where it was, and what the short
    one has made, the full one takes up.

    Examples:
      fewstep reproduce digits                    about five minutes on two cores
      fewstep reproduce digits --full             the whole table, within an hour
      fewstep reproduce digits --shorten 0.05     a quick look at the machinery

    Parameters
    ----------
    what
        The data set.
    full
        Every method, diffusion model and sampler of the paper's table.
    table
        Also write the table to this .md file; only with --full.
    out
        Folder for the runs and the report.
    workers
        Trainings at a time; default one per core.
    shorten
        Factor on every training's number of steps.
    device
        cpu, cuda or mps; default a GPU where there is one.
    """
    if table is not None and not full:
        raise FewstepError("--table is the paper's whole table: give --full as well.")
    if table is not None and table.suffix != ".md":
        raise FewstepError(f"--table writes Markdown, to a file that ends in .md, not {table}.")
    plan = FULL if full else SHORT
    report = reproduce_digits(out, plan, workers=workers, shorten=shorten, device=device)
    if table is not None:
        report.table.write(table)
    show(report)


def show(report: Report) -> None:
    """Print the table and where the page is."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for name in ("NFE", "FD", "FD/R", "IS", "prec.", "recall", "class %", "ms/im."):
        table.add_column(name, justify="right", no_wrap=True)
    heading = None
    for r in report.results:
        if r.group != heading:
            heading = r.group
            table.add_row(f"[bold]{heading}[/]")  # each stands above the rows of its group
        s = r.scores
        table.add_row(
            f"  {r.method}",
            str(r.nfe or ""),
            f"{s.fd:.3f}",
            f"{s.fd / report.R:.2f}",
            f"{s.inception_score:.2f}",
            f"{s.precision:.2f}",
            f"{s.recall:.2f}",
            "" if s.class_accuracy is None else f"{100 * s.class_accuracy:.1f}",
            "" if r.seconds is None else f"{1000 * r.seconds:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"\n{report.seconds:.0f} s in all. Open [bold]{report.page}[/]", highlight=False)


app = command(reproduce)
