"""What can be picked by name, read from the sources instead of imported.

Every component is a class below ``@REGISTRY.register("name")``. Importing them all means importing
torch, which takes ten times as long as reading their files; so ``fewstep list`` reads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parents[1]


class Entry(NamedTuple):
    """A registered class: the registry's variable, its name there, its first line, its paper."""

    registry: str
    name: str
    summary: str
    paper: str | None


def entries() -> Iterator[Entry]:
    """Every registered class of the package, file by file."""
    for path in sorted(SOURCES.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ".register(" in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef):
                    yield from _entries_of(node)


def _entries_of(node: ast.ClassDef) -> Iterator[Entry]:
    summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=registry), attr="register"),
                args=[ast.Constant(value=str(name))],
            ):
                yield Entry(registry, name, summary, _paper(node))


def _paper(node: ast.ClassDef) -> str | None:
    """The class's ``paper = "..."``."""
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="paper")], value=ast.Constant(value=str(paper))):
                return paper
    return None
