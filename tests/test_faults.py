"""What the machine refuses, and what nobody foresaw: one line, an exit code, and no traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewstep.cli import listing
from fewstep.errors import FewstepError, refusal, refusals

Call = Callable[..., tuple[int, str, str]]


def in_shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which ``fewstep`` is the command."""
    start = f'set -o pipefail; fewstep() {{ "{sys.executable}" -m fewstep "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", start + line], capture_output=True, text=True, env={**os.environ, **env}
    )


# What nobody foresaw


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`fewstep list` with a defect in it."""

    def fail() -> None:
        raise KeyError("of\nours")

    monkeypatch.setattr(listing, "rows", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("defect")
def test_a_defect_is_called_one_and_its_traceback_is_kept(call: Call, tmp_path: Path) -> None:
    code, out, err = call("list")
    assert (code, out) == (70, "")
    assert err.count("\n") == 1
    assert err.startswith("fewstep: this is a bug in fewstep, please report it: KeyError: ")
    (file,) = tmp_path.iterdir()
    assert str(file) in err
    assert "Traceback" in file.read_text()
    assert "in fail" in file.read_text()


@pytest.mark.usefixtures("defect")
def test_a_defect_without_a_place_for_its_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    code, _, err = call("list")
    assert (code, err.count("\n")) == (70, 1)
    assert "FEWSTEP_DEBUG=1 shows the traceback" in err


def test_tracebacks_are_shown_to_those_who_ask(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_DEBUG", "1")
    code, _, err = call("train", "no/recipe")
    assert code == 2
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("fewstep: there is no recipe")


def test_ctrl_c_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "rows", interrupted)
    assert call("list") == (130, "", "fewstep: interrupted.\n")


# What the machine refuses


def test_a_refusal_names_its_file(tmp_path: Path) -> None:
    used = re.escape(f"cannot use '{tmp_path}': Is a directory")
    with pytest.raises(FewstepError, match=used), refusals():
        tmp_path.write_text("")
    long = r"cannot use 'a{60}.*\.\.\.a+': File name too long"
    with pytest.raises(FewstepError, match=long), refusals():
        Path("a" * 400).exists()
    assert str(refusal(OSError("no more"))) == "the system refused: no more."
    with pytest.raises(FewstepError, match="does not suffice; try"), refusals(memory=True):
        raise MemoryError
    with pytest.raises(RuntimeError, match="odd"), refusals(memory=True):
        raise RuntimeError("odd")
    with pytest.raises(MemoryError), refusals():
        raise MemoryError


def test_who_reads_no_further_is_not_told() -> None:
    done = in_shell("fewstep list | true")
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode in (0, 1, 141)  # 0 where the pipe was closed after the last word


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_is_full_is_said() -> None:
    done = in_shell("fewstep list > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "fewstep: the system refused: No space left on device.\n"


def test_no_output_at_all() -> None:
    for line in ("fewstep list >&-", "fewstep list >&- 2>&-", "fewstep train nothing 2>&-"):
        done = in_shell(line)
        assert done.returncode in (0, 2), line
        assert "Traceback" not in done.stderr


def test_memory_that_does_not_suffice(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 TB")

    monkeypatch.setattr(listing, "rows", full)
    code, _, err = call("list")
    assert (code, err.count("\n")) == (2, 1)
    assert re.search("memory does not suffice.*smaller batch", err)


def test_any_bytes_in_a_path_can_be_printed() -> None:
    script = "from fewstep import cli; cli.run = lambda _: print('a\\udcff.png'); cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (done.stdout, done.stderr) == ("a\\udcff.png\n", "")


@pytest.mark.parametrize("out", [".", "/", ""])
def test_a_place_that_is_a_folder_already(out: str, call: Call, tmp_path: Path) -> None:
    code, _, err = call("sample", tmp_path, "-o", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "folder" in err or "neither" in err


def test_a_name_that_is_too_long_or_of_any_bytes(call: Call) -> None:
    for name in ("a" * 300, "b/" * 3000, "\udcff"):
        for words in (
            ("train", name),
            ("train", "digits/ct", "--data", name, "--quiet"),
            ("train", "digits/cd", "--teacher", name, "--quiet"),
            ("sample", name),
            ("likelihood", name),
        ):
            code, _, err = call(*words)
            assert (code, err.count("\n")) == (2, 1), (words[:-1], err[-300:])


def test_a_folder_without_permission(call: Call, tmp_path: Path) -> None:
    """Root may read anything, so its rights are laid down for the while."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no users here")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    tries = (
        ("train", closed / "x"),
        ("train", "digits/ct", "--data", closed / "x", "--quiet"),
        ("sample", closed / "x"),
        ("tune-steps", closed / "x"),
        ("likelihood", closed / "x"),
    )
    for words in tries:
        assert call(*words)[0] == 2  # whatever is imported at the first call is imported now
    root = os.geteuid() == 0
    if root:
        os.chmod(tmp_path, 0o755)
        os.seteuid(65534)
    try:
        answers = [call(*words) for words in tries]
    finally:
        if root:
            os.seteuid(0)
        os.chmod(closed, 0o700)
    for words, (code, _, err) in zip(tries, answers, strict=True):
        assert (code, err.count("\n")) == (2, 1), (words, err)
