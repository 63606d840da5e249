"""Scores of several targets as one table: in the terminal, as CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewstep.errors import FewstepError, unknown
from fewstep.evaluation.resampling import Z95
from fewstep.evaluation.scores import Scores
from fewstep.files import check_writable, replacing
from fewstep.terminal import console


@dataclass(frozen=True)
class Line:
    """A target and its scores.

    Args:
        target: name.
        scores: of its images.
        nfe: network evaluations per image; None for images that no model of ours made.
        seed: of the samples; None likewise.
        sampler: the spec of what made them; None likewise.
    """

    target: str
    scores: Scores
    nfe: int | None = None
    seed: int | None = None
    sampler: str | None = None


@dataclass(frozen=True)
class Setting:
    """What scores depend on besides the images.

    Args:
        features: name of the feature network.
        weights: hash of its weights and resize.
        resize: how images are brought to its size.
        reference: name of the reference.
        n: number of reference images.
        replicates: draws of the bootstrap.
        versions: of the packages that computed the scores.
    """

    features: str
    weights: str
    resize: str | None
    reference: str
    n: int | None
    replicates: int
    versions: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        number = "" if self.n is None else f", {self.n} images"
        resize = f", resize {self.resize}" if self.resize else ""
        return (
            f"features {self.features} ({self.weights[:12]}{resize}); "
            f"reference {self.reference}{number}"
        )


@dataclass(frozen=True)
class Column:
    """A score as it is shown.

    Args:
        field: of `Scores`.
        title: above the column.
        decimals: shown.
        better: "↓" or "↑".
        percent: whether a share is shown in per cent.
    """

    field: str
    title: str
    decimals: int
    better: str
    percent: bool = False

    def value(self, s: Scores) -> float | None:
        """The score; None where there is none."""
        value = getattr(s, self.field)
        if value is None or math.isnan(value):
            return None
        return float(value) * (100 if self.percent else 1)

    def half_interval(self, s: Scores) -> float | None:
        """Half of the 95 % interval around the score."""
        error = s.kid_error if self.field == "kid" else s.errors.get(self.field)
        return None if error is None or math.isnan(error) else Z95 * error

    def text(self, s: Scores, interval: bool) -> str:
        """The score, and where it is known and asked for plus and minus half its interval."""
        value, half = self.value(s), self.half_interval(s)
        if value is None:
            return ""
        shown = f"{round(value, self.decimals) + 0.0:.{self.decimals}f}"  # never -0.000
        return f"{shown} ±{half:.{self.decimals}f}" if interval and half is not None else shown


COLUMNS = (
    Column("fd", "FD", 3, "↓"),
    Column("fd_infinity", "FD∞", 3, "↓"),
    Column("sfd", "sFD", 3, "↓"),
    Column("kid", "KID", 5, "↓"),
    Column("inception_score", "IS", 2, "↑"),
    Column("precision", "prec.", 3, "↑"),
    Column("recall", "recall", 3, "↑"),
    Column("density", "dens.", 3, "↑"),
    Column("coverage", "cover.", 3, "↑"),
    Column("class_accuracy", "class %", 1, "↑", percent=True),
)


Cells = tuple[str, list[str]]  # a column's title and a text for each target
WIDE = 10_000  # characters: no limit
INTERVAL = "; ± is half of a 95 % interval."
WITHOUT = "; no room for 95 % intervals, which -o scores.md writes."
NAME = 16  # characters of a line that a target's name has in any case


def shown_columns(lines: Sequence[Line]) -> list[Column]:
    """The columns that some line has a score for."""
    return [c for c in COLUMNS if any(c.value(line.scores) is not None for line in lines)]


def show(lines: Sequence[Line], setting: Setting) -> None:
    """Print the table, what it depends on, and the notes.

    On a terminal it is as wide as that: without intervals, and then folded into several tables that
    all begin with the target and its NFE, where it would not fit. A pipe has room for everything.
    """
    screen = console()
    if not screen.is_terminal and not os.environ.get("COLUMNS"):
        screen.width = WIDE
    tables, remark = _fitting(lines, shown_columns(lines), screen)
    for table in tables:
        screen.print(table)
    about = f"{setting}{_seeds(lines)}{remark}"
    screen.print(f"\n{about}", style="dim", soft_wrap=True)
    for note in _notes(lines):
        screen.print(f"note: {note}", soft_wrap=True)


def _fitting(
    lines: Sequence[Line], columns: Sequence[Column], screen: Console
) -> tuple[list[Table], str]:
    """One table where it fits, else one for as many columns as fit, and so on.

    Also says what became of the intervals, which are left out where not everything fits.
    """
    targets = [folded(line.target, max(NAME, screen.width // 3)) for line in lines]
    nfe = ("NFE", [str(line.nfe or "") for line in lines])
    wide, narrow = (_cells(lines, columns, interval) for interval in (True, False))
    unlimited = screen.options.update(max_width=WIDE)

    def fits(part: Sequence[Cells]) -> bool:
        table = _terminal(targets, [nfe, *part])
        return screen.measure(table, options=unlimited).maximum <= screen.width

    if fits(wide):
        return [_terminal(targets, [nfe, *wide])], INTERVAL if wide != narrow else ""
    parts: list[list[Cells]] = [[]]
    for column in narrow:
        if not parts[-1] or fits([*parts[-1], column]):
            parts[-1].append(column)
        else:
            parts.append([column])
    return [_terminal(targets, [nfe, *part]) for part in parts], WITHOUT if wide != narrow else ""


def _cells(lines: Sequence[Line], columns: Sequence[Column], interval: bool) -> list[Cells]:
    """The title and the texts of every column behind the target and its NFE."""
    return [
        ("n", [str(line.scores.n) for line in lines]),
        *((c.title, [c.text(line.scores, interval) for line in lines]) for c in columns),
    ]


def folded(text: str, width: int) -> str:
    """A path in lines of at most ``width`` characters, cut at slashes and spaces if possible."""
    lines = [""]
    for part in re.findall(r"[^/ ]*[/ ]|[^/ ]+", text):
        if len(lines[-1]) + len(part) > width and lines[-1]:
            lines.append("")
        pieces = [part[i : i + width] for i in range(0, len(part), width)]
        lines[-1] += pieces[0]
        lines += pieces[1:]
    return "\n".join(lines)


def _terminal(targets: Sequence[str], columns: Sequence[Cells]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("target", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for i, target in enumerate(targets):
        table.add_row(Text(target), *(texts[i] for _, texts in columns))
    return table


def _seeds(lines: Sequence[Line]) -> str:
    seeds = sorted({line.seed for line in lines if line.seed is not None})
    return f"; seed {', '.join(map(str, seeds))}" if seeds else ""


def _notes(lines: Sequence[Line]) -> list[str]:
    """Every note once, with all targets that it is about."""
    notes: dict[str, dict[str, None]] = {}
    for line in lines:
        for note in line.scores.notes:
            notes.setdefault(note, {})[line.target] = None
    return [f"{', '.join(targets)}: {note}" for note, targets in notes.items()]


def as_markdown(lines: Sequence[Line], setting: Setting) -> str:
    """A table with 95 % intervals, and what it depends on."""
    columns = shown_columns(lines)
    titles = ["target", "NFE", "n", *(f"{c.title} {c.better}" for c in columns)]
    rows = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for line in lines:
        cells = [column.text(line.scores, interval=True) for column in columns]
        rows.append([line.target, str(line.nfe or ""), str(line.scores.n), *cells])
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    notes = "".join(f"\n- {note}" for note in _notes(lines))
    return f"{text}\n\n{setting}{_seeds(lines)}{INTERVAL}\n{notes}\n"


def as_csv(lines: Sequence[Line], setting: Setting) -> str:
    """One row per target: scores, their errors, and what they depend on."""
    file = io.StringIO()
    records = [_record(line) for line in lines]
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(file, [*names, "features", "weights", "resize", "reference"])
    writer.writeheader()
    rest = {name: getattr(setting, name) for name in ("features", "weights", "resize", "reference")}
    writer.writerows(record | rest for record in records)
    return file.getvalue()


def _record(line: Line) -> dict[str, Any]:
    s = line.scores.record()
    errors = {f"{name}_error": value for name, value in s.pop("errors").items()}
    notes = " ".join(s.pop("notes"))
    made = {"nfe": line.nfe, "seed": line.seed, "sampler": line.sampler}
    return {"target": line.target, **made, **s, **errors, "notes": notes}


def as_json(lines: Sequence[Line], setting: Setting) -> str:
    """Everything: the setting, and of every target the scores, errors and 95 % intervals."""
    rows = []
    for line in lines:
        record = _record(line) | {"notes": list(line.scores.notes)}
        record["intervals"] = {
            column.field: [value - half, value + half]
            for column in COLUMNS
            if (value := column.value(line.scores)) is not None
            and (half := column.half_interval(line.scores)) is not None
        }
        rows.append(record)
    content = {"setting": asdict(setting), "scores": rows}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Line], Setting], str]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".md": as_markdown,
}


def check_format(path: Path) -> None:
    """Raise `FewstepError` unless a table can be written in the format of the path's ending."""
    if path.suffix.lower() not in FORMATS:
        raise unknown(f"kind of table in {str(path)!r}: ending", path.suffix, FORMATS)
    if path.is_dir():
        raise FewstepError(f"cannot write the table {path}: it is a folder.")
    check_writable(path)


def write(path: Path, lines: Sequence[Line], setting: Setting) -> None:
    """Write the table in the format of the path's ending; it appears whole or not at all.

    Raises:
        FewstepError: another ending, or a place that cannot be written.
    """
    check_format(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(FORMATS[path.suffix.lower()](lines, setting), encoding="utf-8")
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error}.") from error
