"""Files and folders that systems leave among a user's own, and folders of ours that are no data."""

from __future__ import annotations

from pathlib import Path

from fewstep.errors import FewstepError
from fewstep.files import RECORD

IGNORED = frozenset(
    {
        "@eadir",  # Synology: thumbnails
        "@tmp",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "@__thumb",
        "#recycle",
        "#snapshot",
        "$recycle.bin",  # Windows
        "recycler",
        "system volume information",
        "thumbs.db",
        "desktop.ini",
        "__macosx",  # macOS, in archives
        "lost+found",  # Linux
        "__pycache__",
    }
)


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden (`.git`, `.ipynb_checkpoints`) or a system's own."""
    return name.startswith(".") or name.casefold() in IGNORED


MADE = {
    RECORD: "a run",
    "plan.json": "a plan of fewstep fit or distil",
    "clock.json": "a reproduction",
    "theory.json": "a report of the theory",
}
"""What of ours a folder holds that is no data, by the file that says so."""


def check_is_data(folder: Path) -> None:
    """Raise `FewstepError` for a folder whose pictures are sample grids and curves of ours."""
    for name, what in MADE.items():
        if (folder / name).is_file():
            raise FewstepError(
                f"{folder} holds {what} ({name}), not images: give the data themselves. "
                "fewstep sample -o FOLDER writes images that can be read."
            )
