"""The paper's statements on one page: measured, drawn, and as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.lock import locked
from fewstep.progress import progress
from fewstep.report import figures
from fewstep.report.page import data_url, fill, machine
from fewstep.runs.directory import check_free
from fewstep.theory import CHECKS, Bound, Check, Line, verify
from fewstep.theory.mixture import Mixture
from fewstep.theory.setting import P


@dataclass(frozen=True)
class TheoryReport:
    """Where the page is, and what was measured."""

    page: Path
    checks: tuple[Check, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify_theory(directory: Path, *, seed: int = 0) -> TheoryReport:
    """Measure every statement and write ``theory.html``, ``theory.json`` and the plots.

    Args:
        directory: where they go.
        seed: of what is drawn at random; everything else is quadrature.

    Raises:
        FewstepError: the folder is not writable, or another process writes into it; the page's
            libraries are missing.
    """
    check_free(directory, "theory.json")
    start = time.perf_counter()
    try:
        with locked(directory):
            checks = []
            with progress("statements", len(CHECKS)) as advance:
                for check in verify(seed):
                    checks.append(check)
                    advance(1)
            seconds = time.perf_counter() - start
            report = TheoryReport(directory / "theory.html", tuple(checks), seconds)
            _write(report, seed)
    except OSError as error:
        raise FewstepError(f"cannot write to {directory}: {error}.") from error
    return report


def _write(report: TheoryReport, seed: int) -> None:
    pictures = {"paths": figures.paths(Mixture(P))}
    pictures |= {check.key: figures.convergence(check) for check in report.checks}
    folder = report.page.parent
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    numbers = {
        "seed": seed,
        "seconds": round(report.seconds, 1),
        "passed": report.passed,
        "checks": [_numbers(check) for check in report.checks],
    }
    (folder / "theory.json").write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    fill(
        report.page,
        "theory.html",
        checks=report.checks,
        passed=report.passed,
        held=sum(check.passed for check in report.checks),
        pictures={name: data_url(png) for name, png in pictures.items()},
        machine=f"{machine()}. Measured in {report.seconds:.0f} s, seed {seed}.",
    )


def _numbers(check: Check) -> dict[str, Any]:
    """A check for other programs."""
    lines: list[Line] = list(check.lines)
    bounds: list[Bound] = list(check.bounds)
    return {
        "key": check.key,
        "title": check.title,
        "passed": check.passed,
        "lines": [asdict(x) | {"slope": x.slope, "passed": x.passed} for x in lines],
        "bounds": [asdict(b) | {"passed": b.passed} for b in bounds],
    }
