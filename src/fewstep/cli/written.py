"""``--write-config``: every setting of a recipe as a TOML or YAML file that ``--config`` reads."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import Parameter

from fewstep.errors import FewstepError
from fewstep.files import replacing

WIDTH = 96
TABLES = ("objective", "network", "p")
NAME = "name"  # in its table, which component it is


def write(
    path: Path | None, recipe: str, flags: Sequence[inspect.Parameter], plugins: Sequence[str]
) -> None:
    """Write the settings to a file, or without one show them as TOML.

    Args:
        path: a .toml, .yaml or .yml file.
        recipe: whose settings they are.
        flags: with their values as defaults.
        plugins: that the recipe needs.

    Raises:
        FewstepError: the file is there, cannot be written, or has another ending.
    """
    if path is None:
        print(text_of(recipe, flags, plugins), end="")
        return
    if path.suffix.lower() not in (".toml", ".yaml", ".yml"):
        raise FewstepError(f"{path}: a file of settings ends in .toml, .yaml or .yml.")
    if path.exists():
        raise FewstepError(f"{path} is there already: give another name, or remove it.")
    text = text_of(recipe, flags, plugins, path)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"{path}: train from it with fewstep train {recipe} --config {path}")


def text_of(
    recipe: str,
    flags: Sequence[inspect.Parameter],
    plugins: Sequence[str],
    path: Path = Path("settings.toml"),
) -> str:
    """The settings as the text of a file; what has no value stands behind a # of its own."""
    is_yaml = path.suffix.lower() != ".toml"
    equals = ": " if is_yaml else " = "
    lines = [f"# Every setting of {recipe}: fewstep train {recipe} --config {path}"]
    if plugins:
        lines += ["", f"plugin{equals}{json.dumps(list(plugins), ensure_ascii=False)}"]
    for table in ("", *TABLES):
        some = [flag for flag in flags if _table_of(flag) == table]
        if table and some:
            lines += ["", f"{table}:" if is_yaml else f"[{table}]"]
        for flag in some:
            indent = "  " if table and is_yaml else ""
            lines += [indent + line if line else "" for line in _lines(flag, equals)]
    return "\n".join(lines) + "\n"


def _table_of(flag: inspect.Parameter) -> str:
    table, dot, _ = flag.name.partition("__")
    return table if dot or table in TABLES else ""


def _lines(flag: inspect.Parameter, equals: str) -> Iterator[str]:
    """A setting, with what it means above it."""
    _, parameter = get_args(flag.annotation)
    assert isinstance(parameter, Parameter)
    key, value = flag.name.rpartition("__")[2], flag.default
    key = NAME if key in TABLES else key
    yield ""
    yield from textwrap.wrap(
        parameter.help or "", WIDTH, initial_indent="# ", subsequent_indent="# "
    )
    if value in (None, inspect.Parameter.empty):
        yield f"# {key}{equals}".rstrip()
    else:
        yield f"{key}{equals}{_literal(value)}"


def _literal(value: Any) -> str:
    """A value as TOML and YAML alike write it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
