"""The whole table: its plan, what it says, and that pairs are a stage like any other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewstep.cli import run
from fewstep.cli.evaluate import app as evaluate
from fewstep.errors import FewstepError
from fewstep.evaluation import Scores
from fewstep.recipes import RECIPES
from fewstep.report.full import FULL
from fewstep.report.plan import DIRECT, DISTILLED, SAMPLED, SHORT, Plan, Row
from fewstep.report.published import DATASETS, find, published
from fewstep.report.relations import RELATIONS, Relation
from fewstep.report.scoring import Result
from fewstep.report.table import Table
from fewstep.solvers import SOLVERS
from fewstep.stages.clock import Clock
from fewstep.stages.how import How
from fewstep.stages.stage import Pairs, Progress, Training
from fewstep.stages.stages import Running, Stages


@pytest.mark.parametrize("plan", [SHORT, FULL])
def test_a_plan_makes_what_it_needs(plan: Plan) -> None:
    names = [stage.name for stage in plan.stages]
    assert len(set(names)) == len(names)
    for stage in plan.stages:
        assert set(stage.requires) <= set(names)
        if isinstance(stage, Training):
            assert stage.recipe in RECIPES
    keys = [row.key for row in plan.rows]
    assert len(set(keys)) == len(keys)
    assert {row.stage for row in plan.rows} <= set(names)
    assert set(plan.shown) <= set(keys)
    assert set(plan.curves) <= set(names)
    groups = [row.group for row in plan.rows]
    assert groups == sorted(groups, key=(SAMPLED, DISTILLED, DIRECT).index)


def test_the_full_plan_has_the_short_one_in_it() -> None:
    assert set(SHORT.rows) <= set(FULL.rows)
    assert {s.name: s for s in SHORT.stages}.items() <= {s.name: s for s in FULL.stages}.items()


def test_every_sampler_and_every_trained_method_has_a_row() -> None:
    used = {(row.solver or "heun").partition("(")[0] for row in FULL.rows}
    # no samplers of a paper: docs/samplers.md scores the first two; the third is another's walk
    aliases = {"midpoint", "rk4", "in_noise_level"}
    assert used | aliases == set(SOLVERS)
    diffusions = {"diffusion+sampler", "diffusion+distillation"}
    expected = {
        (p.method, p.nfe)
        for p in published()
        if p.dataset == "cifar10"
        and (
            p.group in diffusions
            or p.method in ("Score SDE", "DDPM", "LSGM", "PFGM", "EDM", "1-Rectified Flow", "CT")
        )
    }
    assert {row.published for row in FULL.rows if row.published} == expected


def test_published_lines_are_those_of_the_paper() -> None:
    assert len(published()) == 70
    assert {p.dataset for p in published()} == set(DATASETS)
    assert (find("cifar10", "CD", 1).fid, find("cifar10", "CD", 2).fid) == (3.55, 2.93)
    assert find("imagenet64", "CT", 2).recall == 0.56
    assert find("cifar10", "DPM-Solver-2", 12).inception_score is None


def test_a_stage_is_a_command_line(tmp_path: Path) -> None:
    cd = FULL.stage("cd").command(tmp_path)
    assert cd[:2] == ["train", "digits/cd"]
    assert cd[cd.index("--teacher") + 1] == str(tmp_path / "edm")
    assert "--steps" not in cd
    short = FULL.stage("cd").command(tmp_path, 0.01)
    assert short[short.index("--steps") + 1] == "12"
    own = Training("own", recipe="digits/cd", steps=50)
    assert own.total() == 50
    assert own.command(tmp_path, 0.5)[:4] == ["train", "digits/cd", "--steps", "25"]
    pairs = FULL.stage("trajectories").command(tmp_path, 0.01)
    assert pairs == [
        *("pairs", str(tmp_path / "edm"), "-n", "200", "--trajectory", "4"),
        *("-o", str(tmp_path / "trajectories")),
    ]


def test_what_a_method_builds_on_comes_before_it_and_once() -> None:
    names = [stage.name for stage in FULL.all_required("rf3")]
    assert names == ["rf1", "pairs-rf1", "rf2", "pairs-rf2", "rf3"]
    assert [s.name for s in FULL.all_required("edm")] == ["edm"]


def test_pairs_are_a_stage_of_their_own_and_never_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (
        Training("edm", recipe="digits/edm"),
        Pairs("pairs", model="edm"),
        Training("kd", {"--teacher": "edm", "--data": "pairs"}, "digits/kd"),
    )
    clock = Clock(tmp_path)
    assert stages[1].progress(tmp_path) == Progress()
    Stages(stages, tmp_path, clock, How(shorten=0.001, workers=1)).run()
    assert all(stage.finished(tmp_path) for stage in stages)
    assert stages[1].progress(tmp_path) == Progress(20, "pairs")
    assert all(clock[stage.name] > 0 for stage in stages)
    assert clock["ect"] == 0

    def twice(*_: object) -> None:
        raise AssertionError("made twice")

    monkeypatch.setattr(Stages, "_start", twice)
    Stages(stages, tmp_path, clock, How(shorten=0.001, workers=1)).run()
    (tmp_path / "pairs" / "shard-00000.safetensors").unlink()
    assert not stages[1].finished(tmp_path)


def running(folder: Path, program: str) -> Running:
    """A stage's process, whose log has a line of an earlier one."""
    (log := folder / "edm.log").write_text("half of the images are mirrored\n")
    with log.open("ab") as file:
        begins = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=file, stderr=file
        )
    return Running(Training("edm", recipe="digits/edm"), process, log, begins, time.perf_counter())


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal 9 SIGKILL, most often for want of memory"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11 SIGSEGV: the same command goes on"),
        ("print('fewstep: no data'); raise SystemExit(2)", "edm failed: no data (log"),
        ("raise SystemExit(7)", "edm failed: exit code 7 (log"),
    ],
)
def test_what_ended_a_stage_is_said(program: str, said: str, tmp_path: Path) -> None:
    (stage := running(tmp_path, program)).wait()
    stages = Stages([stage.stage], tmp_path, Clock(tmp_path))
    with pytest.raises(FewstepError, match=re.escape(said)) as raised:
        stages._done(stage)
    assert "mirrored" not in str(raised.value)


def test_a_stage_is_asked_to_stop_by_closing_its_pipe(tmp_path: Path) -> None:
    stage = running(tmp_path, "import sys; sys.stdin.read(); raise SystemExit(5)")
    Stages([stage.stage], tmp_path, Clock(tmp_path))._stop([stage])
    assert stage.process.returncode == 5


def test_a_clock_adds_up_over_calls_and_interruptions(tmp_path: Path) -> None:
    Clock(tmp_path).add("edm", 2.0)
    clock = Clock(tmp_path)
    with pytest.raises(KeyboardInterrupt), clock.running("edm"):
        raise KeyboardInterrupt
    assert Clock(tmp_path)["edm"] > 2.0
    with clock.running("all"):
        time.sleep(0.02)
        clock.add("cd", 1.0)
        killed = Clock(tmp_path)  # what is left where the process is killed here
        assert killed["all"] >= 0.02
        assert killed["cd"] == 1
        time.sleep(0.01)
    assert 0.03 <= Clock(tmp_path)["all"] < 1
    clock.add("cd", 1.0, processor=0.5)
    clock.add("cd", 1.0, processor=0.25)
    assert Clock(tmp_path).processor("cd") == 0.75
    assert Clock(tmp_path).processor("edm") == 0
    (tmp_path / "clock.json").write_text("{")
    assert Clock(tmp_path)["edm"] == 0


@pytest.mark.parametrize(
    ("better", "verdict"),
    [(3.0, "holds"), (4.8, "holds by less than a seed's noise"), (5.5, "does not hold")],
)
def test_a_relation_says_what_was_found(better: float, verdict: str) -> None:
    relation = Relation("A is ahead of B", "a", "b", "Because of C.")
    fd = {"a": better, "b": 5.0}
    assert relation.verdict(fd) == verdict
    assert relation.sentence(fd).startswith(f"A is ahead of B, {better:.2f} against 5.00: ")
    assert ("Because of C." in relation.sentence(fd)) == (better > 5)


def fd_of(row: Row) -> float:
    """A distance that tells the rows apart."""
    return 1 + FULL.rows.index(row) / 10


def scores(fd: float) -> Scores:
    return Scores(n=100, fd=fd, inception_score=5.0, precision=0.9, recall=0.8)


def table(plan: Plan, directory: Path) -> Table:
    gaussian = Result("Baselines", "class-wise pixel Gaussian", None, scores(9.0))
    rows = [
        Result(r.group, r.method, r.nfe or r.steps, scores(fd_of(r)), 0.001, r.key)
        for r in plan.rows
    ]
    clock = Clock(directory)
    for stage in plan.stages:
        clock.add(stage.name, 10.0)
    return Table(plan, [gaussian, *rows], 9.0, Path("runs/reproduce-digits"), clock)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def test_the_table_has_every_row_with_its_figure_and_its_command(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "table.md"
    table(FULL, tmp_path).write(path)
    lines = path.read_text().splitlines()
    for widths in (re.findall(r"(?<= )\|", line) for line in lines if line.startswith("| DPM")):
        assert len(widths) in (9, 10)
    papers = [cells(line) for line in lines if line.count("|") == 10]
    assert len([c for c in papers if c[-1].startswith("`")]) == len(published())
    (two,) = [c for c in papers if c[:3] == ["CD", "Song et al., 2023", "2"] and c[4] == "9.75"]
    cd2 = next(row for row in FULL.rows if row.key == "cd-heun-2")
    assert two[3] == "2.93"
    assert two[7] == f"{fd_of(cd2):.2f}"
    assert two[8] == "`fewstep evaluate runs/reproduce-digits/cd --steps 2`"
    scored = [cells(line) for line in lines if line.count("|") == 11]
    (lsgm,) = [c for c in scored if c[0] == "LSGM"]
    assert lsgm[6] == "10 / 20"
    assert lsgm[8] == "2.1 (NFE 147)"
    assert sum(line.startswith("    fewstep train") for line in lines) == len(
        [s for s in FULL.stages if isinstance(s, Training)]
    )
    assert sum(line.startswith("    fewstep evaluate") for line in lines) == len(FULL.rows)


def test_the_commands_of_the_table_are_understood(tmp_path: Path) -> None:
    for row in FULL.rows:
        options = [part.strip('"') for part in row.options]
        _, bound, ignored = evaluate.parse_args(["runs/x", *options], print_error=False)[:3]
        assert not ignored, bound


def test_relations_are_of_rows_that_are_there(tmp_path: Path) -> None:
    keys = {row.key for row in FULL.rows}
    assert all({r.better, r.worse} <= keys for r in RELATIONS)
    assert len(table(FULL, tmp_path).relations()) == len(RELATIONS)
    assert len(table(SHORT, tmp_path).relations()) == 2


def test_a_table_without_the_full_plan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", "digits", "--table", "t.md"]) == 2
    assert "--full" in capsys.readouterr().err
    assert run(["reproduce", "digits", "--full", "--table", "t.csv"]) == 2
    assert ".md" in capsys.readouterr().err
