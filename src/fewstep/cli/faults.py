"""What an exception means to a user: a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path

from cyclopts import (
    CycloptsError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from fewstep.errors import FewstepError, memory_refusal, refusal, unknown
from fewstep.names import plugin_files

USER_MISTAKE = 2
DEFECT = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT
PIPE_CLOSED = 141  # 128 + SIGPIPE
SCREEN = 1600  # characters
SWITCHES = ("true", "false", "yes", "no", "on", "off")


def answer(error: BaseException) -> int:
    """Say in a line what happened; the exit code. FEWSTEP_DEBUG=1 shows the traceback as well."""
    if os.environ.get("FEWSTEP_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):  # whoever read has read enough
        return PIPE_CLOSED
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted.")
        return INTERRUPTED
    if (mistake := _mistake(error) or _of_plugin(error)) is not None:
        _say(mistake)
        return USER_MISTAKE
    _say(_defect(error))
    return DEFECT


def _mistake(error: BaseException) -> str | None:
    """What the user, or the machine, has to change; None for a defect of ours."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app:
        return _no_command(error.unused_tokens[0], _names(error.app))
    if isinstance(error, UnusedCliTokensError):
        return _superfluous(error.unused_tokens or [])
    if isinstance(error, UnknownOptionError) and tuple(error.command_chain or ()) == ("train",):
        return _fixed(error)
    if isinstance(error, CycloptsError | FewstepError):
        return str(error)
    if isinstance(error, OSError):
        return str(refusal(error))
    refused = memory_refusal(error)
    return None if refused is None else str(refused)


def _of_plugin(error: BaseException) -> str | None:
    """What a plugin did wrong, where the error arose in one or in what it called."""
    own = plugin_files()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in own:
            where = f"the plugin {frame.filename} failed in line {frame.lineno}, in {frame.name}"
            return f"{where}: {_what(error)} ({_kept(error)})."
    return None


def _no_command(name: str, known: list[str]) -> str:
    """The line for a command that is not among those of its group, but perhaps beside the group."""
    from fewstep.cli import app

    if name in _names(app):
        return f"{name} is a command of its own: fewstep {name} --help."
    return str(unknown("command", name, known))


def _names(commands: Iterable[str]) -> list[str]:
    return [name for name in commands if not name.startswith("-")]


def _superfluous(words: list[str]) -> str:
    message = f"do not know what to do with {' '.join(map(repr, words))}."
    if words[0].lower() in SWITCHES:
        return f"{message} A switch takes no value: write --name, or --no-name to turn it off."
    return message


def _fixed(error: UnknownOptionError) -> str:
    """The line for a setting of a recipe that is given to a run folder, or to nothing."""
    named = Path(*(error.root_input_tokens or [])[1:2])
    if error.token.keyword is None:
        return (
            f"name a recipe or a run before {error.token.value}: fewstep train RUN goes on with a "
            "run, fewstep train RECIPE begins one, fewstep list names the recipes."
        )
    if not (named.exists() or str(named).startswith("-")):
        from fewstep.cli.train import no_recipe

        return str(no_recipe(named))
    return (
        f"a run folder does not take {error.token.keyword}: its settings are those that it was "
        "started with. When it goes on only --steps and --lr may change, and --data, --teacher and "
        "--autoencoder say where those are now. The flags of a recipe follow its name: fewstep "
        "train RECIPE --help."
    )


def _defect(error: BaseException) -> str:
    """The line for an exception that nobody foresaw, with the file that holds its traceback."""
    return f"this is a bug in fewstep, please report it: {_what(error)} ({_kept(error)})."


def _what(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]


def _kept(error: BaseException) -> str:
    """Where the traceback of an exception can be read."""
    lines = traceback.format_exception(error)
    try:
        handle, name = tempfile.mkstemp(prefix="fewstep-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n\n{''.join(lines)}")
    except OSError:
        return "FEWSTEP_DEBUG=1 shows the traceback"
    return f"the traceback is in {name}"


def _say(message: str) -> None:
    """One line, whatever the message holds; without the middle of what is longer than a screen."""
    line = " ".join(message.split())
    if len(line) > SCREEN:
        line = f"{line[: SCREEN - 400]} [...] {line[-300:]}"
    readable = line.encode("utf-8", "backslashreplace").decode()  # a path may hold any bytes
    print(f"fewstep: {readable}", file=sys.stderr)
