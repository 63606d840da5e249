"""The pages of the reference: what can be picked by name, and the public names of Python.

`docs/conf.py` writes them before the site is built; they are not kept in the project.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fewstep
from fewstep.registry import REGISTRIES, Registry
from fewstep.runs import bibliography  # noqa: F401  which imports every component

WITH_MEMBERS = ("FlowMap", "AutoencoderModel", "Dataset", "Trainer", "Evaluator", "Likelihood")
"""Public classes whose methods are shown too."""
PAGES = {
    "Objectives": ("objective",),
    "Networks": ("network",),
    "Processes": ("parameterization", "process", "preconditioning", "form of the map"),
    "Predictions": ("prediction type",),
    "Samplers and solvers": ("sampler", "solver", "time grid", "guidance"),
    "Distances and weightings": ("distance", "weighting"),
    "Times": (
        "distribution of training times",
        "distribution of two times",
        "distribution of time indices",
    ),
}
"""Pages of components, and the kinds on each."""


def write(folder: Path) -> None:
    """Write every page, and a list of them."""
    folder.mkdir(exist_ok=True)
    pages = {"python": public()} | {slug(title): page(title) for title in PAGES}
    for name, text in pages.items():
        _write(folder / f"{name}.md", text)
    _write(folder / "index.md", index(list(pages)))


def _write(path: Path, text: str) -> None:
    """Leave a page alone that is the same, so that it is not read again."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def index(names: list[str]) -> str:
    """The list of pages."""
    listed = "\n".join(names)
    return f"""\
# Reference

This part is written from the docstrings of the code. The first page has the public names of
Python. The others have what is picked by name, in a flag or in a spec such as
`pseudo_huber(c=0.24)`.

```{{toctree}}
{listed}
```
"""


def public() -> str:
    """The public names, in the order of the package."""
    names = [name for name in fewstep.__all__ if not name.startswith("_") and name != "RECIPES"]
    return "# Python\n\n" + "\n".join(part for name in names for part in _public(name))


def _public(name: str) -> Iterator[str]:
    thing = getattr(fewstep, name)
    yield f"## {name}\n"
    kind = "class" if inspect.isclass(thing) else "function"
    members = ["   :members:"] if name in WITH_MEMBERS else []
    yield _directive(f".. auto{kind}:: {path_of(thing)}", members)


def page(title: str) -> str:
    """All components of the kinds of a page."""
    return f"# {title}\n\n" + "\n".join(part for kind in PAGES[title] for part in _kind(kind))


def _kind(kind: str) -> Iterator[str]:
    seen: set[type] = set()
    for registry in REGISTRIES:
        if registry.kind == kind:
            yield from _components(registry, seen)


def _components(registry: Registry[Any], seen: set[type]) -> Iterator[str]:
    for name in registry:
        cls = registry[name]
        if cls.__module__.startswith("fewstep.") and cls not in seen:
            seen.add(cls)
            yield f"## {registry.kind} `{name}`\n"
            yield _directive(f".. autoclass:: {path_of(cls)}", ["   :noindex:"])


def path_of(thing: Any) -> str:
    """The dotted path of a class or function where it is defined."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _directive(head: str, options: list[str]) -> str:
    return "\n".join(["```{eval-rst}", head, *options, "```", ""])


def as_restructured(
    app: object, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """A docstring as Sphinx reads it: indented formulas are literal, and a star is a star."""
    found: list[str] = []
    inside = False
    for before, line in zip(["", *lines], lines, strict=False):
        indented = line.startswith("    ")
        if found and line and not indented:
            inside = line.rstrip().removesuffix(":") in SECTIONS
        formula = indented and not inside
        if formula and not before.strip():
            found += ["::", ""]
        found.append(line if formula else with_stars(line))
    lines[:] = found


def with_stars(line: str) -> str:
    """A line whose stars outside of code are no emphasis."""
    parts = re.split(r"(``.*?``|`.*?`)", line)
    return "".join(part if part.startswith("`") else part.replace("*", r"\*") for part in parts)


SECTIONS = ("Args", "Raises", "Returns", "Yields", "Examples", "Parameters", "Variables")
