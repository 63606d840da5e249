"""The GPU's benchmark is rehearsed on the CPU, so that it works when there is a GPU."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def rehearsed(script: str, tmp_path: Path, *words: str) -> dict[str, Any]:
    """What a script found, as tiny as can be; nothing in it failed."""
    command = [sys.executable, str(BENCHMARKS / script), "--rehearse", *words]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((tmp_path / script).with_suffix(".json").read_text())
    assert {part["ended"] for part in found["ended"].values()} == {"exit code 0"}
    found["records"] = [record for part in found["parts"].values() for record in part]
    assert not [record for record in found["records"] if "failed" in record]
    return found


@pytest.mark.slow
def test_the_benchmark_is_rehearsed(tmp_path: Path) -> None:
    found = rehearsed("gpu.py", tmp_path, "--parts", "small", "speedrun", "fashion")
    said = {record["what"] for record in found["records"]}
    assert {"edm bf16", "cd bf16", "host", "as it is", "sample bf16, batch 256"} <= said
    assert {"edm bf16 compiled", "convolutions, channels last", "ECT", "CD"} <= said
    assert "reproduce fashion" in said
    assert "<html" in (tmp_path / "fashion-mnist.html").read_text(encoding="utf-8")
    assert "**edm bf16**" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_the_comparison_of_methods_is_rehearsed(tmp_path: Path) -> None:
    """Each from one teacher, scored in one step and in two; the table is there with the card."""
    found = rehearsed("gpu_methods.py", tmp_path)
    scored = {r["what"]: r for r in found["records"] if "fd 2 steps" in r}
    assert {*scored} == {"ect", "scd", "meanflow"}
    assert all(r["fd 1 step"] > 0 and 0 < r["steps"] <= r["of_steps"] for r in scored.values())
    how = [r for r in found["records"] if r["what"].endswith(": how")]
    assert {r["precision"] for r in how} == {"bf16"}
    assert {r["tangent"] for r in how} == {"none", "forward"}
    table = (tmp_path / "gpu_methods.md").read_text()
    assert "| meanflow |" in table
    assert f"# {found['machine']['card']}" in table


def test_a_race_shares_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones for every method, all of them within the whole."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    methods = importlib.import_module("gpu_parts.methods")
    teacher, each = methods.shares(550.0, 3, trains=True)
    around = methods.AROUND["teacher"] + 3 * methods.AROUND["method"]
    assert teacher + 3 * each + around == pytest.approx(550)
    assert min(teacher, each) > 60
    assert methods.shares(550.0, 3, trains=False)[1] > each
    assert methods.shares(20.0, 3, trains=True) == (methods.LEAST, methods.LEAST)
