"""What can be picked by name, read from the sources instead of imported.

Every component is a class below ``@REGISTRY.register("name")``. Importing them all means importing
torch, which takes ten times as long as reading their files; so ``fewstep list`` reads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fewstep.needs
from fewstep.names import plugin_files
from fewstep.needs import Cost, Needs, TeacherUse

SOURCES = Path(__file__).parents[1]


class Entry(NamedTuple):
    """A registered class.

    Args:
        registry: the registry's variable.
        name: its name there.
        summary: its first line.
        paper: that it is from.
        needs: of an objective.
        cost: of an objective; None where it says nothing.
    """

    registry: str
    name: str
    summary: str
    paper: str | None
    needs: Needs
    cost: Cost | None


def entries() -> Iterator[Entry]:
    """Every registered class of the package and of the plugins that are loaded, file by file."""
    classes = list(_classes())
    by_name = {node.name: node for node in reversed(classes)}
    for node in classes:
        yield from _entries_of(node, by_name)


def _classes() -> Iterator[ast.ClassDef]:
    """The classes of the files that register some, or declare what some need."""
    for path in (*sorted(SOURCES.rglob("*.py")), *map(Path, plugin_files())):
        text = path.read_text(encoding="utf-8")
        if any(mark in text for mark in (".register(", "needs = Needs(", "cost = Cost(")):
            yield from (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))


def _entries_of(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[Entry]:
    needs, cost = (_declared(node, name, classes) for name in ("needs", "cost"))
    summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id=registry) | ast.Attribute(attr=registry), attr="register"
                ),
                args=[ast.Constant(value=str(name))],
            ):
                yield Entry(
                    registry,
                    name,
                    summary,
                    _paper(node),
                    Needs() if needs is None else Needs(**needs),
                    None if cost is None else Cost(**cost),
                )


def _paper(node: ast.ClassDef) -> str | None:
    """The class's ``paper = "..."``."""
    value = _assigned(node, "paper")
    return str(value.value) if isinstance(value, ast.Constant) else None


def _declared(
    node: ast.ClassDef, name: str, classes: Mapping[str, ast.ClassDef]
) -> dict[str, Any] | None:
    """The arguments of the class's ``name = Call(...)``, or of the first of its bases with one."""
    value = _assigned(node, name)
    if isinstance(value, ast.Call):
        return {str(k.arg): _literal(k.value) for k in value.keywords}
    bases = (classes.get(base.id) for base in node.bases if isinstance(base, ast.Name))
    found = (_declared(base, name, classes) for base in bases if base is not None)
    return next((arguments for arguments in found if arguments is not None), None)


def _literal(node: ast.expr) -> Any:
    """A constant, or one of those that `fewstep.needs` names."""
    match node:
        case ast.Attribute(value=ast.Name(id="TeacherUse"), attr=use):
            return TeacherUse[use]
        case ast.Name(id=name):
            return getattr(fewstep.needs, name)
    return ast.literal_eval(node)


def _assigned(node: ast.ClassDef, name: str) -> ast.expr | None:
    """What the class's body assigns to a name."""
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
    return None
