"""``fewstep completion``."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.completion import detect_shell
from cyclopts.completion.detect import ShellDetectionError

from fewstep.cache import expanded
from fewstep.cli.command import command
from fewstep.errors import FewstepError

Shell = Literal["bash", "zsh", "fish"]


def completion(
    *,
    install: Annotated[bool, Parameter(negative="")] = False,
    shell: Shell | None = None,
) -> None:
    """Let the shell complete commands, recipes and flags with the Tab key.

    Examples:
      fewstep completion --install               for your shell, from its next start
      fewstep completion --shell zsh > _fewstep  show the script alone

    Parameters
    ----------
    install
        Write the script where the shell looks for it, and load it at the shell's start; otherwise
        it is shown.
    shell
        Which shell; default the one that you are in.
    """
    from fewstep.cli import app

    chosen = shell or current_shell()
    if not install:
        print(app.generate_completion(shell=chosen))
        return
    expanded("~")  # where every shell looks
    path = app.install_completion(shell=chosen)
    print(f"{path}: start {chosen} anew, and Tab completes fewstep.")


def current_shell() -> Shell:
    """The shell that the command was called from.

    Raises:
        FewstepError: it is none of those that can be served.
    """
    try:
        found = detect_shell()
    except ShellDetectionError:
        found = "powershell"
    if found == "powershell":
        raise FewstepError("cannot tell which shell this is: say --shell bash, zsh or fish.")
    return found


app = command(completion)
