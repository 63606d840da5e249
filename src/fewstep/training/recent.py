"""What a run's last lines tell of the rest of it."""

from __future__ import annotations

from collections.abc import Sequence

RECENT = 20  # lines of the log that the time left is told from
RATE = "images_per_second"


def seconds_left(rows: Sequence[dict[str, float]], steps: int, batch: int) -> float | None:
    """Seconds until a run has made its steps, at the pace of its last lines; None where none tells.

    A line's pace is over all the time since the line before, so that previews and checkpoints are
    in it. The mean of several is that of the seconds per image.

    Args:
        rows: of the log, each with its ``step``.
        steps: of the run in all.
        batch: images per step.
    """
    paces = [row[RATE] for row in rows[-RECENT:] if row.get(RATE, 0) > 0]
    if not paces:
        return None
    per_image = sum(1 / pace for pace in paces) / len(paces)
    return max(0.0, steps - rows[-1]["step"]) * batch * per_image
