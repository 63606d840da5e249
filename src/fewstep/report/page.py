"""The page: one HTML file with its pictures inside, a CSV table, and the pictures as PNG."""

from __future__ import annotations

import base64
import csv
import platform
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from fewstep.errors import FewstepError
from fewstep.files import replacing
from fewstep.report.scoring import Result
from fewstep.report.story import Section
from fewstep.report.typeset import to_html
from fewstep.stages.how import cores

COLUMNS = (
    "group",
    "method",
    "nfe",
    "n",
    "fd",
    "fd_over_gaussian",
    "inception_score",
    "precision",
    "recall",
    "class_accuracy",
    "seconds_per_image",
)


def write_page(
    path: Path,
    pictures: Mapping[str, bytes],
    grids: Mapping[str, bytes],
    edited: Mapping[str, bytes],
    more: Sequence[Section] = (),
    **facts: Any,
) -> None:
    """Write the page of the reproduction, with the pictures as data in it."""
    shown = [
        {
            "title": section.title,
            "lines": section.lines,
            "pictures": [(name, data_url(png)) for name, png in section.pictures.items()],
        }
        for section in more
    ]
    fill(
        path,
        "page.html",
        pictures={name: data_url(png) for name, png in pictures.items()},
        grids=[(name, data_url(png)) for name, png in grids.items()],
        edited=[(name, data_url(png)) for name, png in edited.items()],
        more=shown,
        **facts,
    )


def fill(path: Path, template: str, **facts: Any) -> None:
    """Fill a template of this folder and write it; a reader never sees half a page."""
    try:
        from jinja2 import Environment, PackageLoader
        from markupsafe import Markup
    except ImportError as error:
        raise FewstepError(f"the report needs pip install 'fewstep[report]' ({error}).") from error
    environment = Environment(
        loader=PackageLoader("fewstep", "report"), autoescape=True, trim_blocks=True
    )
    environment.filters["typeset"] = lambda text: Markup(to_html(text))
    html = environment.get_template(template).render(**facts)
    with replacing(path) as partial:
        partial.write_text(html, encoding="utf-8")


def data_url(png: bytes) -> str:
    """The picture as text that an ``<img>`` can show."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def by_group(results: Iterable[Result]) -> list[tuple[str, list[Result]]]:
    """Results under their headings, in order."""
    return [(name, list(part)) for name, part in groupby(results, key=lambda r: r.group)]


def write_csv(path: Path, results: Sequence[Result], R: float) -> None:
    """The table for other programs. ``R`` is the class-wise Gaussian's Fréchet distance."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for r in results:
            s = r.scores
            writer.writerow(
                [
                    *(r.group, r.method, r.nfe, s.n, s.fd, s.fd / R, s.inception_score),
                    *(s.precision, s.recall, s.class_accuracy, r.seconds),
                ]
            )


def machine() -> str:
    """This machine, in words."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{_processor()}, {cores()} cores{gpu}, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: platform knows
    return platform.processor() or platform.machine()
