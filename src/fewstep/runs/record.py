"""What a run was started with, as ``run.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from fewstep.errors import FewstepError
from fewstep.plugins.used import Used
from fewstep.records import record_of
from fewstep.runs.run import Run
from fewstep.runs.sources import Source
from fewstep.version import __version__

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that was changed when a run went on at a step."""

    step: int
    setting: str
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """What ``run.json`` holds.

    Args:
        recipe: the name that the run is filed under.
        run: the settings, as the user gave them.
        sources: where data and models were, by the setting that names them.
        changes: of settings, when the run went on.
        plugins: code of the user's own that gave parts of the run.
        format, fewstep, torch: versions that began the run.
    """

    format: int = FORMAT
    fewstep: str = __version__
    torch: str = torch.__version__
    recipe: str
    run: Run
    sources: dict[str, Source] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    plugins: tuple[Used, ...] = ()


def run_record(stored: Any) -> Record:
    """The record that JSON gave.

    Raises:
        FewstepError: one of another format, or of another shape.
    """
    if isinstance(stored, dict) and stored.get("format", FORMAT) != FORMAT:
        raise FewstepError(
            f"it was made by fewstep {stored.get('fewstep')} in format {stored['format']}; "
            f"this fewstep {__version__} reads format {FORMAT}."
        )
    return record_of(Record, stored, "the record")
