"""``fewstep cite RUN...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewstep.cli.command import command
from fewstep.errors import FewstepError
from fewstep.files import replacing
from fewstep.runs.bibliography import Bibliography


def cite(
    *runs: Path,
    also: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = (),
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Print the BibTeX of all that a run used: its method, network, solver, data set, teacher.

    Each entry is there once, below a comment that says why. What nobody knows a paper of, such as
    your own images, is named at the end.

    Examples:
      fewstep cite runs/digits-cd
      fewstep cite runs/digits-cd runs/digits-ect -o used.bib
      fewstep cite runs/digits-edm --also dpm3 fd inception

    Parameters
    ----------
    runs
        Run folders, folders of runs, model files or hub:NAMEs.
    also
        What else was used, by the names of fewstep list: a solver, a score, a feature network.
    out
        File to write instead of printing.
    """
    if not runs and not also:
        raise FewstepError("nothing to cite: give a run, a model, or a name with --also.")
    found = Bibliography()
    for run in runs:
        found.add(run)
    for name in also:
        found.add_name(name)
    if out is None:
        print(found.text(), end="")
        return
    with replacing(out) as partial:
        partial.write_text(found.text(), encoding="utf-8")


app = command(cite)
