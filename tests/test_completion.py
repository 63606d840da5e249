"""Shell completion: installed by one command, and it completes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fewstep import cli
from fewstep.cli import completion

Call = Callable[..., tuple[int, str, str]]

STARTS = {"bash": ".bashrc", "zsh": ".zshrc", "fish": None}
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
_fewstep
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZSH_CUSTOM", "ZSH", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("shell", STARTS)
def test_one_command_installs_it(shell: str, home: Path, call: Call) -> None:
    code, out, err = call("completion", "--install", "--shell", shell)
    assert (code, err) == (0, "")
    script = Path(out.partition(":")[0])
    assert home in script.parents
    text = script.read_text()
    assert all(word in text for word in ("tune-steps", "digits/cd", "objective.distance"))
    start = STARTS[shell]
    assert start is None or str(script.parent) in (home / start).read_text()
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n", str(script)], check=True)
        if shell == "bash":
            check_bash(script)


def check_bash(script: Path) -> None:
    """Commands, recipes, flags and values are completed."""

    def completed(*words: str) -> set[str]:
        ask = ["bash", "-c", ASK, "bash", str(script), "fewstep", *words]
        return set(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split())

    assert completed("tu") == {"tune-steps"}
    assert completed("train", "images", "--method", "ed") == {"edm"}
    assert completed("train", "digits/cd", "--objective.d") == {"--objective.distance"}
    assert completed("train", "digits/cd", "--optimizer", "ada") == {"adam", "adamw"}
    assert completed("edit", "superr") == {"superresolve"}
    assert completed("list", "sol") == {"solvers"}


def test_a_shell_that_cannot_be_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise completion.ShellDetectionError

    monkeypatch.setattr(completion, "detect_shell", unknown)
    for words in ("completion", "completion --install"):
        code, out, err = call(*words.split())
        assert (code, out) == (2, "")
        assert "say --shell bash, zsh or fish" in err


def test_a_home_that_cannot_be_written(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(cli.app), "generate_completion", lambda app, **how: "")
    (home / ".local").write_text("")
    code, _, err = call("completion", "--install", "--shell", "bash")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{home}/.local" in err
