"""What the commands share: their help below the flags, and how they read whole numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

from cyclopts import App, Parameter, Token

from fewstep.registry import LARGEST

WIDTH = 80  # characters of a terminal that an example fits


def more(function: Callable[..., Any]) -> str:
    """What a docstring says between its summary and its parameters, each paragraph on one line."""
    text = (inspect.getdoc(function) or "").partition("\n\n")[2]
    lines = unfolded(text.partition("\nParameters\n---")[0]).split("\n")
    return "\n".join(continued(line) if line.startswith("  ") else line for line in lines)


def continued(example: str) -> str:
    """A command of more than 80 characters on two lines, as a shell reads it, cut before a flag."""
    if len(example) <= WIDTH:
        return example
    cut = example.rfind(" -", 0, WIDTH - 2)
    return example if cut < 0 else f"{example[:cut]} \\\n      {example[cut + 1 :]}"


def unfolded(text: str) -> str:
    """Each paragraph on one line, for the help to fold anew; what is indented stays as it is."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(p if "\n  " in p else p.replace("\n", " ") for p in paragraphs)


def unwrapped(docstring: str) -> str:
    """The docstring with each parameter's description on one line, for the help to wrap anew."""
    lines: list[str] = []
    head, section, parameters = inspect.cleandoc(docstring).partition("\nParameters\n---")
    for line in parameters.splitlines():
        if line.startswith(" ") and lines and lines[-1].startswith(" "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return head + section + "\n".join(lines)


def command(function: Callable[..., Any]) -> App:
    """The command of a function: its summary above the flags, the rest of its docstring below."""
    name = function.__name__.strip("_").replace("_", "-")
    function.__doc__ = unwrapped(function.__doc__ or "")
    summary = unfolded(inspect.cleandoc(function.__doc__).partition("\n\n")[0])
    app = App(name=name, help=summary, help_format="plaintext", help_epilogue=more(function))
    app.default(function)
    return app


def whole(type_: Any, tokens: Sequence[Token]) -> int:
    """A whole number, such as 100000 or 1e5; a fraction is refused instead of rounded."""
    text = tokens[0].value
    number = _exact(text)
    if number is None:
        raise ValueError(f"{text[:40]!r} is not a whole number.")
    if abs(number) >= LARGEST:
        raise ValueError(f"{text[:40]!r} is too large: whole numbers end at 2^63 - 1.")
    return number


def _exact(text: str) -> int | None:
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        if float(text).is_integer():
            return int(float(text))
    return None


Whole = Annotated[int, Parameter(converter=whole)]
