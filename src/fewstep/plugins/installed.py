"""Plugins that are loaded unasked: those of the environment variable, and installed ones.

Where there are none, finding that out costs a few milliseconds and imports nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fewstep.errors import FewstepError, FewstepWarning

VARIABLE = "FEWSTEP_PLUGINS"
GROUP = "fewstep"  # of entry points


def named() -> list[str]:
    """The plugins that ``FEWSTEP_PLUGINS`` names, with a colon (on Windows ;) between two."""
    return [which for which in os.environ.get(VARIABLE, "").split(os.pathsep) if which]


def load_named() -> None:
    """Load the plugins of the environment variable.

    Raises:
        FewstepError: one of them cannot be loaded.
    """
    from fewstep.plugins.load import load_plugin

    try:
        for which in named():
            load_plugin(which)
    except FewstepError as error:
        raise FewstepError(f"{VARIABLE}: {error}") from error


def installed() -> list[str]:
    """The modules that installed packages name as entry points of the group ``fewstep``."""
    if not any(_mentions(folder) for folder in dict.fromkeys(sys.path)):
        return []
    from importlib.metadata import entry_points

    return sorted({point.module for point in entry_points(group=GROUP)})


def load_installed() -> None:
    """Load the installed plugins; one that fails is left out with a note, as it may not matter."""
    if not (modules := installed()):
        return
    from fewstep.plugins.load import load_plugin

    for module in modules:
        try:
            load_plugin(module)
        except FewstepError as error:  # noqa: PERF203 - the others are loaded all the same
            warnings.warn(f"left out: {error}", FewstepWarning, stacklevel=2)


def _mentions(folder: str) -> bool:
    """Whether the metadata of a package in a folder may have an entry point of the group."""
    return any(f"[{GROUP}]".encode() in text for text in _entry_points(Path(folder or ".")))


def _entry_points(folder: Path) -> Iterator[bytes]:
    for pattern in ("*.dist-info", "*.egg-info"):
        for metadata in folder.glob(pattern):
            with suppress(OSError):  # it has none
                yield (metadata / "entry_points.txt").read_bytes()
