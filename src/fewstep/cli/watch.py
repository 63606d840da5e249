"""``fewstep watch [RUN ...]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.cli.launch import Place, launch
from fewstep.errors import FewstepError


def watch(
    *runs: Path,
    host: str = "127.0.0.1",
    port: Whole = 8001,
    token: Annotated[str | None, Parameter(env_var="FEWSTEP_TOKEN")] = None,
    open_to_all: Annotated[bool, Parameter(negative="")] = False,
    browser: Annotated[bool, Parameter(negative="")] = False,
    patience: float = 10.0,
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
    host
        Address to listen on. Others than this machine's own need a token.
    port
        Port to listen on; 0 takes a free one.
    token
        What clients must send as Authorization: Bearer TOKEN.
    open_to_all
        Listen on an address that others can reach, without a token.
    browser
        Open the page in the browser.
    patience
        Seconds that a client has to send its request; slower ones are disconnected.
    """
    try:
        from fewstep.serving.shelf import Shelf
        from fewstep.serving.watched import Runs
    except ImportError as error:
        raise FewstepError(f"{error.name} is missing: pip install 'fewstep[serve]'.") from error
    watched = Runs.open(runs)
    launch(
        Place(host, port, token, open_to_all, patience, browser),
        lambda: Shelf({}),
        said=lambda _: ", ".join(map(str, watched.named.values())),
        runs=watched,
    )


app = command(watch)
