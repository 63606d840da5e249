"""The short form of the torture campaign, which docs/torture.md tells of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parent.parent / "benchmarks" / "torture"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the campaign forks and reads /proc")
@pytest.mark.parametrize("campaign", ["kills", "disk", "bits", "files", "commands", "requests"])
def test_the_short_campaign_finds_no_fault(campaign: str) -> None:
    done = subprocess.run(
        [sys.executable, TORTURE, "--short", "--only", campaign], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = int(done.stdout.split(" trials")[0].rsplit(" ", 1)[1])
    assert trials >= 4
