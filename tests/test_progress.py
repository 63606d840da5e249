"""What long work says of itself where nobody sees a bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress as Bars

from fewstep import progress as progress_module
from fewstep.progress import Lines, progress
from fewstep.stages.stage import Progress, Training
from fewstep.stages.stages import _Shown


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


def test_lines_come_early_and_then_twice_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch), list[str]()
    lines = Lines("work", 2000, start=1000, unit="steps", say=said.append)
    for second in range(100):
        clock.now = 100.0 + second
        lines.advance(1000 + second, lambda: "loss 1")
    counts = [int(line.split()[1].split("/")[0].replace(",", "")) for line in said]
    assert counts == [1002, 1010, 1030, 1060, 1090]
    assert said[1] == "work: 1,010/2,000 steps, loss 1, 0:16:30 left"


def test_a_log_has_lines_and_a_terminal_a_bar(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with progress("counting", 10) as advance:
        advance(1)
        assert capfd.readouterr() == ("", "")
        clock.now += 20
        advance(4)
    assert capfd.readouterr() == ("", "counting: 5/10, 0:00:20 left\n")
    monkeypatch.setattr(progress_module, "on_terminal", lambda: True)
    with progress("counting", 10) as advance:
        clock.now += 20
        advance(5)
    assert "━" in capfd.readouterr().err


def test_stages_of_an_earlier_call_were_not_made_in_no_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clock, made = Clock(monkeypatch), [500]

    class Half(Training):
        def progress(self, directory: Path) -> Progress:
            return Progress(made[0])

    stages = [Half(name, recipe="digits/cd", steps=1000) for name in "abcd"]
    with Bars() as bars:
        shown = _Shown(bars, stages, tmp_path, 1.0)
        shown.update(stages[:1], finished=3)
        clock.now, made[0] = clock.now + 20, 510
        shown.update(stages[:1], finished=3)
    line = "all: 87/100 %, 3 of 4 made; a 510 of 1,000, 0:16:20 left\n"
    assert capfd.readouterr().err == line


@pytest.mark.parametrize("quiet", [False, True])
def test_a_training_in_a_log_says_where_it_is(
    quiet: bool,
    tmp_path: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress_module, "PATIENCE", 0.0)
    words = ["digits/edm", "--steps", 3, "--network.width", 8, "--out", tmp_path / "run"]
    code, _, err = call("train", *words, *["--quiet"] * quiet)
    assert code == 0
    shown = [line for line in err.splitlines() if line.startswith("run: 1/3 steps, loss ")]
    assert len(shown) == (not quiet)
    assert all("images/s" in line and line.endswith(" left") for line in shown)
