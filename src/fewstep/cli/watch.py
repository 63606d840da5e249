"""``fewstep watch [RUN ...]``."""

from __future__ import annotations

from pathlib import Path

from fewstep.cli.command import Whole, command
from fewstep.cli.launch import Place, launch
from fewstep.errors import FewstepError


def watch(
    *runs: Path,
    port: Whole = 8001,
    place: Place | None = None,
) -> None:
    """Watch trainings on a web page while they run.

    Loss, validation, learning rate, gradient and speed as curves, several runs over each other,
    samples as they sharpen, and the time left. It reads what the trainings write, and loads no
    model; fewstep serve shows finished runs beside their models. Ctrl-C ends it, and no training.

    Examples:
      fewstep watch runs/digits-cd
      fewstep watch runs/digits-ct runs/digits-ict --browser
      fewstep watch runs/reproduce-digits
      fewstep watch

    Parameters
    ----------
    runs
        Run folders, and folders that hold runs, whose stages appear as they begin; default runs.
    port
        Port to listen on; 0 takes a free one.
    """
    try:
        from fewstep.serving.shelf import Shelf
        from fewstep.serving.watched import Runs
    except ImportError as error:
        raise FewstepError(f"{error.name} is missing: pip install 'fewstep[serve]'.") from error
    watched = Runs.open(runs)
    launch(
        place,
        port,
        lambda: Shelf({}),
        said=lambda _: ", ".join(map(str, watched.named.values())),
        runs=watched,
    )


app = command(watch)
