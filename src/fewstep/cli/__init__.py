"""The command line.

Commands are imported when they are called, so that ``fewstep --help`` does not wait for torch.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper

from cyclopts import App

from fewstep.cli.every import call, take_options
from fewstep.cli.faults import answer
from fewstep.errors import FewstepWarning
from fewstep.memory import keep_freed_memory
from fewstep.version import __version__

_with_place = warnings.formatwarning

app = App(
    name="fewstep",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `run` answers it
    help="Consistency models: train, distil, sample in one step or a few, score, report.",
    help_epilogue="""\
Examples:
  fewstep reproduce digits                   the whole story, with a report
  fewstep train digits/edm                   a diffusion model of the digits
  fewstep train digits/cd --teacher runs/digits-edm
  fewstep sample runs/digits-cd -n 64 --steps 2 --label 7 -o sevens.png
  fewstep evaluate runs/digits-cd --steps 1 2
  fewstep list                               recipes, objectives, solvers, ...""",
)
app.command(
    "fewstep.cli.train:app", name="train", help="Train a model by a recipe, or resume a run."
)
app.command("fewstep.cli.sample:app", name="sample", help="Make images with a trained model.")
app.command(
    "fewstep.cli.pairs:app", name="pairs", help="Make pairs of noise and sample to distil from."
)
app.command(
    "fewstep.cli.importing:app", name="import", help="Make a model of another project's weights."
)
app.command(
    "fewstep.cli.info:app",
    name="info",
    help="Show what a model is and how to sample it, or how two runs differ.",
)
app.command("fewstep.cli.cite:app", name="cite", help="Print the BibTeX of all that a run used.")
app.command("fewstep.cli.exporting:app", name="export", help="Write a model for another project.")
app.command(
    "fewstep.cli.evaluate:app", name="evaluate", help="Score models or images in one table."
)
app.command(
    "fewstep.cli.likelihood:app",
    name="likelihood",
    help="Bits per dimension of images under a diffusion model.",
)
app.command(
    "fewstep.cli.push:app", name="push", help="Put a model on the Hugging Face hub, with its card."
)
app.command("fewstep.cli.edit:app", name="edit", help="Inpaint, enlarge, colourise, ... pictures.")
app.command("fewstep.cli.denoise:app", name="denoise", help="Remove noise from pictures.")
app.command(
    "fewstep.cli.interpolate:app",
    name="interpolate",
    help="Pass from one image to another, as a strip or a film.",
)
app.command(
    "fewstep.cli.tune_steps:app", name="tune-steps", help="Find the time points of a few steps."
)
app.command(
    "fewstep.cli.serve:app", name="serve", help="Serve models on a web page and an HTTP API."
)
app.command(
    "fewstep.cli.watch:app", name="watch", help="Watch trainings on a web page while they run."
)
app.command(
    "fewstep.cli.fit:app",
    name="fit",
    help="Fit a generator to a folder of images, within a budget.",
)
app.command(
    "fewstep.cli.distil:app",
    name="distil",
    help="Distil a diffusion model into one of few steps, within a budget.",
)
app.command(
    "fewstep.cli.reproduce:app",
    name="reproduce",
    help="Train and compare every method, and write a report.",
)
app.command(
    "fewstep.cli.verify:app",
    name="verify",
    help="Check the paper's statements numerically, and write a page about them.",
)
app.command(
    "fewstep.cli.listing:app", name="list", help="Show recipes, objectives, networks, samplers, ..."
)
app.command(
    "fewstep.cli.completion:app",
    name="completion",
    help="Let the shell complete commands, recipes and flags.",
)

take_options(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0: done; 1: a statement fails, of `fewstep verify`; 2: a mistake of the user's, or what the
    machine refused; 70: a defect of ours; 130: interrupted; 141: the output's reader has gone.
    """
    warnings.formatwarning = _one_line
    keep_freed_memory()
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold any bytes
    code = run(arguments)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        result = call(app, sys.argv[1:] if arguments is None else arguments)
        _flush()
    except (Exception, KeyboardInterrupt) as error:
        return answer(error)
    return result if isinstance(result, int) else 0


def _flush() -> None:
    """Write what was printed now, while a closed pipe or a full disk can still be answered."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # what is left must not be tried again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Our own warnings without the place in the code, which says nothing to a user."""
    if issubclass(category, FewstepWarning):
        return f"note: {message}\n"
    return _with_place(message, category, filename, lineno, line)
