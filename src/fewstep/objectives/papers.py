"""The papers that the objectives are from, as BibTeX."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from fewstep.errors import FewstepError, unknown

FILE = Path(__file__).with_name("papers.bib")
ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}$", re.MULTILINE | re.DOTALL)


@cache
def papers() -> dict[str, str]:
    """Every entry of ``papers.bib`` by its key, in the order of the file."""
    return {found[1]: found[0] for found in ENTRY.finditer(FILE.read_text(encoding="utf-8"))}


def bibtex(citation: str) -> str:
    """The entry that an objective's ``citation`` stands for: one of the file's, or itself.

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
