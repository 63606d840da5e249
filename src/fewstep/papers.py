"""The papers that components are from, as BibTeX.

A component says with ``citation`` what to cite, by keys of ``papers.bib`` or by a BibTeX entry of
its own, and with ``also_cites`` what an argument of it adds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from fewstep.errors import FewstepError, unknown

FILE = Path(__file__).with_name("papers.bib")
ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}$", re.MULTILINE | re.DOTALL)
OURS = "fewstep"
"""The key of this package."""

Citation = str | tuple[str, ...]
"""One key or entry, several, or "" for none."""


class Also(NamedTuple):
    """What an argument of a component adds to its papers.

    Args:
        argument: its name.
        citation: what to cite.
        when: whether a value of it does; by default one that is not zero, empty or None.
        unless: another argument that takes its place, where it is given.
    """

    argument: str
    citation: Citation
    when: Callable[[Any], bool] = bool
    unless: str = ""


class Cited:
    """What may be from a paper."""

    citation: ClassVar[Citation] = ""
    """What to cite for it."""
    also_cites: ClassVar[tuple[Also, ...]] = ()
    """What its arguments add."""


@cache
def papers() -> dict[str, str]:
    """Every entry of ``papers.bib`` by its key, in the order of the file."""
    return {found[1]: found[0] for found in ENTRY.finditer(FILE.read_text(encoding="utf-8"))}


def bibtex(citation: str) -> str:
    """The entry that a citation stands for: one of the file's, or itself.

    Raises:
        FewstepError: neither a key of the file nor an entry.
    """
    if citation in papers():
        return papers()[citation]
    if not citation.startswith("@"):
        raise unknown("paper", citation, papers())
    if ENTRY.fullmatch(citation.strip()) is None:
        raise FewstepError(
            f"{citation[:60]!r} is no BibTeX entry: @article{{key, on a line, then the fields, and "
            "} on a line of its own."
        )
    return citation.strip()


def several(citation: Citation) -> tuple[str, ...]:
    """The keys and entries of a citation."""
    if isinstance(citation, str):
        return (citation,) if citation else ()
    return tuple(citation)


def cited_by(component: object, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What to cite for a component with these arguments of it: each with why, "" for itself.

    Args:
        component: a class that may have ``citation`` and ``also_cites``.
        arguments: those that are known, by name.
    """
    for one in several(getattr(component, "citation", "")):
        yield one, ""
    for also in getattr(component, "also_cites", ()):
        if arguments.get(also.unless):
            continue
        if also.argument in arguments and also.when(value := arguments[also.argument]):
            for one in several(also.citation):
                yield one, f"{also.argument}={value}"
