"""Files and folders that systems leave among a user's own."""

from __future__ import annotations

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
