"""The reproduction: interrupted, taken up, complete, and never done twice."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.cli import run
from fewstep.data import load, to_float
from fewstep.errors import FewstepError
from fewstep.evaluation.scores import Scores
from fewstep.recipes import RECIPES
from fewstep.report.editing import LEVELS, Edited, best_blur, blurred, shortfalls
from fewstep.report.methods import MethodsReport, reproduce_methods
from fewstep.report.plan import SHORT
from fewstep.report.reproduce import reproduce_digits
from fewstep.report.scoring import _scores_of
from fewstep.stages.how import How
from fewstep.stages.stages import Stages

EDITED = (
    "interpolation",
    *(f"denoising-noise-{sigma:g}" for sigma in LEVELS),
    "inpainting-the-right-half",
    "super-resolution-factor-2",
)
SHORTEN = 0.004  # of the steps: 4 to 10 each


def interrupt_after_the_first_model(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command, and press Ctrl-C in its terminal once a training has finished."""
    command = [sys.executable, "-m", "fewstep", "reproduce", "digits", "--out", str(folder)]
    with subprocess.Popen(
        [*command, "--shorten", str(SHORTEN), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # as in a terminal, also where this suite itself runs with Ctrl-C ignored, in the background
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not any(stage.finished(folder) for stage in SHORT.stages):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def models(folder: Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/model.safetensors")
    }


def test_an_interrupted_reproduction_is_taken_up_and_never_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fewstep.evaluation.classifier.STEPS", 5)
    folder = tmp_path / "report"
    stopped = interrupt_after_the_first_model(folder)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    before = models(folder)
    assert 1 <= len(before) < len(SHORT.stages)

    assert run(["reproduce", "digits", "--out", str(folder), "--shorten", str(SHORTEN)]) == 0
    after = models(folder)
    assert set(after) == {stage.name for stage in SHORT.stages}
    assert before.items() <= after.items()
    printed = capsys.readouterr().out
    assert all(row.method in printed for row in SHORT.rows)
    assert str(folder / "report.html") in printed.replace("\n", "")

    check_page(folder)
    check_table(folder)
    check_edits(folder)

    def twice(*_: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr(Stages, "_start", twice)
    monkeypatch.setattr("fewstep.report.scoring.Scoreboard._timed", twice)
    again = reproduce_digits(folder, how=How(shorten=SHORTEN))
    assert models(folder) == after
    assert again.seconds > 0
    monkeypatch.setattr("fewstep.report.methods.SEEDS", 1)
    methods = reproduce_methods(folder, only=["cd"], how=How(shorten=SHORTEN))
    assert models(folder) == after
    check_methods(methods)
    check_recipes(folder, monkeypatch)


def check_recipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another version's recipe has trained is not taken for this one's."""
    cd = RECIPES["digits/cd"]()
    other = replace(cd, training=replace(cd.training, lr=0.5))
    known = dict(RECIPES.items()) | {"digits/cd": lambda: other}
    monkeypatch.setattr("fewstep.stages.stage.RECIPES", known)
    with pytest.raises(FewstepError, match=r"cd was trained with lr .*digits/cd says 0\.5 now"):
        reproduce_digits(folder, how=How(shorten=SHORTEN))


def check_methods(report: MethodsReport) -> None:
    """The same trainings and scores in the other table, with what they took of the processor."""
    html = report.page.read_text()
    assert html.count("data:image/png;base64,") == 3 + 2
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    edm, cd = report.findings.all
    assert [s.nfe for s in (*edm.sampled, *cd.sampled)] == [35, 1, 2, 4]
    with (report.page.parent / "table.csv").open(newline="") as file:
        known = {(r["method"], r["nfe"]): float(r["fd"]) for r in csv.DictReader(file)}
    assert cd.sampled[1].fd.values == (known["CD", "2"],)
    assert cd.seconds > 1


def check_page(folder: Path) -> None:
    """One file: every picture is inside, and nothing else is asked for."""
    html = (folder / "report.html").read_text()
    sources = re.findall(r"<img[^>]*src=\"([^\"]{0,30})", html)
    assert len(sources) == 3 + len(EDITED) + len(SHORT.rows)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "cores" in html
    assert re.search(r"took \d+ s", html)
    for picture in ("comparison", "curves", "quality", *EDITED):
        with Image.open(folder / f"{picture}.png") as image:
            image.load()
    assert len(list((folder / "grids").glob("*.png"))) == len(SHORT.rows)


def check_table(folder: Path) -> None:
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows[2:]] == [row.method for row in SHORT.rows]
    assert {row["method"] for row in rows[:2]} == {"real test split", "class-wise pixel Gaussian"}
    assert float(rows[1]["fd_over_gaussian"]) == pytest.approx(1)
    assert [row["nfe"] for row in rows[:4]] == ["", "", "35", "9"]
    assert all(float(row["seconds_per_image"]) > 0 for row in rows[2:])


def check_edits(folder: Path) -> None:
    with (folder / "editing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = {row["task"] for row in rows}
    assert len(tasks) == 5
    for task in tasks:
        assert [row["baseline"] for row in rows if row["task"] == task] == ["1", "1", "0", "0"]
    assert all(float(row["psnr_db"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("Walk(N=18, solver='heun', grid=None, budget=None, clip=False)", "walk(steps=18)"),
        (
            "Walk(N=18, solver='deis(order=1)', grid=None, budget=10, clip=False)",
            "walk(solver=deis(order=1), nfe=10)",
        ),
        ("Walk(N=18, solver='rk45', grid=None, budget=None, clip=False)", "walk(solver=rk45)"),
        ("Multistep(taus=())", "jumps"),
        ("Multistep(taus=(5.0, 0.8))", "jumps(times=(5.0, 0.8))"),
        ("NestedDDIM(N=4)", "nested_ddim(steps=4)"),
        ("Prior()", "prior"),
        ("jumps(gamma=0.5, times=(5.0, 0.8))", "jumps(gamma=0.5, times=(5.0, 0.8))"),
    ],
)
def test_rows_that_earlier_versions_scored_are_known(before: str, now: str) -> None:
    scores = Scores(n=2, fd=1.0).record()
    stored = {f"cd-heun-1 {before} model evaluator": {"scores": scores, "seconds": 1.0, "nfe": 1}}
    assert list(_scores_of(stored)) == [f"cd-heun-1 {now} model evaluator"]


@pytest.mark.parametrize(("psnr", "distance", "n"), [(9.0, 2.0, 0), (7.0, 2.0, 1), (7.0, 4.0, 2)])
def test_a_model_behind_a_baseline_is_said_to_be(psnr: float, distance: float, n: int) -> None:
    rows = [Edited("task", "copy", True, 8.0, 3.0), Edited("task", "ours", False, psnr, distance)]
    found = shortfalls(rows)
    assert len(found) == n
    assert all("copy" in line and "ours" in line for line in found)


def test_a_blur_for_more_noise_is_wider_and_keeps_constants() -> None:
    x = to_float(load("digits").images)
    assert best_blur(x, 0.1) < best_blur(x, 1.0)
    constant = torch.full((1, 1, 8, 8), 0.3)
    torch.testing.assert_close(blurred(constant, 0.8), constant)


def test_a_training_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "edm").mkdir()
    (tmp_path / "edm" / "run.json").write_text("{")
    with pytest.raises(FewstepError, match=r"run\.json"):
        reproduce_digits(tmp_path, how=How(shorten=SHORTEN, workers=1))


@pytest.mark.parametrize("shorten", [0.0, -1.0, float("nan"), 1000.0])
def test_shorten_must_be_a_sensible_factor(shorten: float) -> None:
    with pytest.raises(FewstepError, match="shorten"):
        How(shorten=shorten)


def test_workers_must_be_some() -> None:
    with pytest.raises(FewstepError, match="workers"):
        How(workers=0)


def test_a_logger_must_be_one() -> None:
    with pytest.raises(FewstepError, match="unknown logger 'no_such'"):
        How(log=("no_such",))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FewstepError, match=r"cannot write to .*file"):
        reproduce_digits(tmp_path / "file" / "report")
