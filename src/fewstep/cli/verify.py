"""``fewstep verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from fewstep.cli.command import Whole, command
from fewstep.report.theory import TheoryReport, verify_theory
from fewstep.terminal import console, say_page

STATEMENT_FAILS = 1


def verify(
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/theory"),
    seed: Whole = 0,
) -> int:
    """Check the paper's statements numerically, and write a page about them.

    On a mixture of Gaussians, whose score and consistency function are known: Lemma 1, the
    boundary condition, the order of every solver, Theorem 1 and 2, and the limits in continuous
    time. Writes theory.html, theory.json and the plots. The exit code is 1 if a statement fails.

    Examples:
      fewstep verify                  less than a minute on one core
      fewstep verify -o theory/

    Parameters
    ----------
    out
        Folder for the page.
    seed
        Of what is drawn at random.
    """
    report = verify_theory(out, seed=seed)
    show(report)
    return 0 if report.passed else STATEMENT_FAILS


def show(report: TheoryReport) -> None:
    """Print the slopes and where the page is."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("statement")
    for name in ("expected", "measured", ""):
        table.add_column(name, justify="right")
    for check in report.checks:
        table.add_row(Text(check.title, style="bold"), "", "", _mark(check.passed))
        for x in check.lines:
            table.add_row(
                f"  {x.name}", f"{x.expected:g}", f"{round(x.slope, 3) + 0:.3f}", _mark(x.passed)
            )
        for b in check.bounds:
            table.add_row(f"  {b.name}", f"≤ {b.limit:.0e}", f"{b.value:.1e}", _mark(b.passed))
    screen = console()
    screen.print(table)
    screen.print()
    say_page(screen, report.seconds, report.page)


def _mark(passed: bool) -> Text:
    return Text("✓", style="green") if passed else Text("✗ fails", style="red")


app = command(verify)
