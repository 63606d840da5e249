"""``fewstep reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from fewstep.cli.command import Whole, command
from fewstep.errors import FewstepError, listed
from fewstep.files import check_writable
from fewstep.planning.budget import parse_budget
from fewstep.report.fashion import reproduce_fashion
from fewstep.report.full import FULL
from fewstep.report.methods import MethodsReport, reproduce_methods
from fewstep.report.methods_table import write_table
from fewstep.report.methods_words import sentences
from fewstep.report.plan import SHORT
from fewstep.report.reproduce import Report, reproduce_digits
from fewstep.report.toy2d import ToyReport, reproduce_toy2d
from fewstep.stages.how import How
from fewstep.terminal import console, say_page


def reproduce(
    what: Literal["digits", "fashion", "toy2d"],
    /,
    *,
    data: str | None = None,
    budget: str | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    methods: Annotated[bool, Parameter(negative="")] = False,
    table: Path | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    seed: Whole = 0,
    out: Path | None = None,
    workers: Whole | None = None,
    shorten: float = 1.0,
    device: str | None = None,
    log: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
) -> None:
    """Train and compare every method, and write a report.

    digits trains a diffusion model (EDM), distils it (CD), tunes it (ECT), trains CT and iCT from
    scratch, samples and scores all of them, and writes report.html, table.csv and pictures.
    With --full it does so with every method and sampler of the paper's table, and writes table.md
    beside the report. With --methods it trains CD and every method since the paper at one amount of
    computing, the best of them with three seeds, and writes methods.html, .csv and .json.

    fashion does the same on Fashion-MNIST, real pictures of 28x28 pixels, as far as a budget of
    time goes: a diffusion model, CD from it, and SoFlow from the data alone.

    toy2d trains every objective on points of the plane, where the exact map is known, and writes
    report.html with pictures of what each has learned, and scores.json.

    Interrupt it and run it again: it goes on where it was, and what the short one has made, the
    full one takes up.

    Examples:
      fewstep reproduce digits                 about three minutes on two cores
      fewstep reproduce digits --full          the whole table, within an hour
      fewstep reproduce digits --methods       all since the paper, within an hour
      fewstep reproduce fashion                an hour on two cores, 6 minutes on a GPU
      fewstep reproduce fashion --data fashion-mnist/ --budget 30m
      fewstep reproduce toy2d                  every objective, in eleven minutes
      fewstep reproduce toy2d --only cd ect    two of them, and the teacher
      fewstep reproduce digits --shorten 0.05  a quick look at the machinery

    Parameters
    ----------
    what
        The data set.
    data
        Folder of Fashion-MNIST's four IDX files; default where the Debian package
        dataset-fashion-mnist puts them. Other images of such a size, in classes, will do.
    budget
        How long fashion may take in all, such as 30m; default 1h, on a GPU 6m.
    full
        Every method, diffusion model and sampler of the paper's table; of the digits.
    methods
        Every method since the paper instead; of the digits.
    table
        Also write the table to this .md file; only with --full or --methods.
    only
        Objectives of toy2d, or methods of --methods, such as meanflow; default all.
    seed
        Of every training of toy2d.
    out
        Folder for the runs and the report; default runs/reproduce- and the data set.
    workers
        Trainings at a time; default one per core.
    shorten
        Factor on every training's number of steps.
    device
        cpu, cuda or mps; default a GPU where there is one.
    log
        Loggers of the trainings, such as wandb.
    """
    out = out or Path(f"runs/reproduce-{what}")
    how = How(workers=workers, shorten=shorten, device=device, log=log)
    own = {"--data": data is not None, "--budget": budget is not None}
    if what == "fashion":
        other = {
            "--full": full,
            "--methods": methods,
            "--table": table is not None,
            "--only": bool(only),
        }
        _refuse(what, other | {"--seed": seed != 0, "--shorten": shorten != 1})
        seconds = None if budget is None else parse_budget(budget)
        show(reproduce_fashion(out, data, seconds, how=how))
        return
    _refuse(what, own)
    if what == "toy2d":
        _refuse(what, {"--full": full, "--methods": methods, "--table": table is not None})
        show_toy2d(reproduce_toy2d(out, only=only, seed=seed, how=how))
        return
    _refuse(what, {"--seed": seed != 0})
    if only and not methods:
        raise FewstepError("--only chooses among the digits' methods: give --methods as well.")
    if full and methods:
        raise FewstepError("--full and --methods are two tables: give one of them.")
    if table is not None and not (full or methods):
        raise FewstepError("--table is a whole table: give --full or --methods as well.")
    if table is not None and table.suffix != ".md":
        raise FewstepError(f"--table writes Markdown, to a file that ends in .md, not {table}.")
    if table is not None:
        check_writable(table)
    if methods:
        found = reproduce_methods(out, only=only, how=how)
        if table is not None:
            write_table(table, found.findings, found.pictures)
        show_methods(found)
        return
    report = reproduce_digits(out, FULL if full else SHORT, how)
    if table is not None:
        report.table.write(table)
    show(report)


def _refuse(what: str, given: dict[str, bool]) -> None:
    """Raise `FewstepError` for options of another reproduction."""
    for flag in (flag for flag, yes in given.items() if yes):
        raise FewstepError(f"fewstep reproduce {what} has no {flag}.")


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
            table.add_row(Text(heading, style="bold"))  # each stands above the rows of its group
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
    screen = console()
    screen.print(table)
    screen.print()
    say_page(screen, report.seconds, report.page)


def show_methods(report: MethodsReport) -> None:
    """Print the distances, what they say, and where the page is."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for name in ("spent", "FD 1", "2", "4"):
        table.add_column(name, justify="right", no_wrap=True)
    findings = report.findings
    many = findings.teacher.best
    table.add_row(findings.teacher.name, "", "", "", f"{many.fd} in {many.nfe}")
    for heading, group in ((name, some) for name, some in findings.groups.items() if some):
        table.add_row(Text(f"from {heading}", style="bold"))
        for method in group:
            distances = [str(s.fd) if (s := method.at(k)) else "" for k in (1, 2, 4)]
            table.add_row(f"  {method.name}", f"{method.spent:,.0f}", *distances)
    screen = console()
    screen.print(table)
    screen.print("", *sentences(findings), sep="\n")
    say_page(screen, report.seconds, report.page)


def show_toy2d(report: ToyReport) -> None:
    """Print the scores, what has left its band, and where the page is."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("objective", overflow="fold")
    for name in ("SW 1", "2", "4", "modes 1", "error 1", "largest"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in report.methods:
        one = method.at(1)
        distances = [f"{s.distance:.3f}" if (s := method.at(k)) else "" for k in (1, 2, 4)]
        errors = ["", "", ""]
        if one is not None:
            rest = ["" if x is None else f"{x:.3f}" for x in (one.rms, one.sup)]
            errors = [str(one.modes), *rest]
        table.add_row(method.name, *distances, *errors)
    screen = console()
    screen.print(table)
    screen.print(f"\nThe density itself has {report.floor:.3f}.")
    for method in report.left:
        steps = listed([str(k) for k in method.left])
        print(f"note: {method.name} is outside the expected scores in {steps} steps.")
    if unknown := [method.name for method in report.methods if not method.known]:
        print(f"note: nothing is expected of {listed(unknown)} in this setting.")
    say_page(screen, report.seconds, report.page)


app = command(reproduce)
