"""The GPU's benchmark is rehearsed on the CPU, so that it works when there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks/gpu.py"


def test_the_benchmark_is_rehearsed(tmp_path: Path) -> None:
    words = ["--rehearse", "--parts", "small", "speedrun", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["ended"] for part in found["ended"].values()} == {"exit code 0"}
    records = [record for part in found["parts"].values() for record in part]
    assert not [record for record in records if "failed" in record]
    said = {record["what"] for record in records}
    assert {"edm bf16", "cd bf16", "host", "as it is", "sample bf16, batch 256"} <= said
    assert {"edm bf16 compiled", "convolutions, channels last", "ECT", "CD"} <= said
    assert "**edm bf16**" in (tmp_path / "gpu.md").read_text()
