"""The page of the methods: one HTML file with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fewstep.report.methods_scores import Findings
from fewstep.report.methods_words import (
    CAPTIONS,
    behind,
    introduction,
    sentences,
    why_behind,
)
from fewstep.report.page import data_url, fill


def write_page(
    path: Path,
    findings: Findings,
    pictures: Mapping[str, bytes],
    grids: Mapping[str, bytes],
    seconds: float,
) -> None:
    """Write the page of what was measured.

    Args:
        path: of the HTML.
        findings: what was measured.
        pictures: PNG by name.
        grids: samples of the methods, PNG by what they are.
        seconds: that all of it took.
    """
    fill(
        path,
        "methods.html",
        introduction=introduction(findings),
        teacher=findings.teacher,
        groups=findings.groups,
        pictures={name: data_url(png) for name, png in pictures.items()},
        grids={name: data_url(png) for name, png in grids.items()},
        sentences=sentences(findings),
        behind=behind(findings),
        why_behind=why_behind(findings),
        captions=CAPTIONS,
        machine=f"{findings.machine}. Everything took {seconds:.0f} s.",
    )
