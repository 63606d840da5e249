#!/usr/bin/env python3
"""Set up an environment in .venv, once, and run fewstep, its tests or its checks in it.

    python3 run.py reproduce digits        any command of fewstep
    python3 run.py test [pytest options]   the tests
    python3 run.py check                   lint, types, import rules, the documentation
    python3 run.py docs                    the documentation as a site, in docs/_build

Needs Python 3.10 or newer and nothing else. Where there is no NVIDIA GPU, torch's CPU build is
installed. A set-up that is complete is not done again until the pinned versions change.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("FEWSTEP_VENV", ROOT / ".venv"))
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
CONSTRAINTS = ROOT / "constraints.txt"
USE, DEVELOP = "digits,report,serve", "dev"


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 10):
        found = platform.python_version()
        sys.exit(f"fewstep needs Python 3.10 or newer; this is {found} ({sys.executable}).")
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    own = {"test": test, "check": check, "docs": docs}
    if command in ("-h", "--help"):
        sys.stdout.write(f"{(__doc__ or '').strip()}\n\n")
        if not PYTHON.exists():  # help alone sets nothing up
            return 0
    set_up(DEVELOP if command in own else USE)
    if command in own:
        return own[command](rest)
    return call(PYTHON, "-m", "fewstep", *arguments)


def test(options: list[str]) -> int:
    """The tests, one process per core (at most 8), each with one thread."""
    workers = str(min(os.cpu_count() or 1, 8))
    os.environ["OMP_NUM_THREADS"] = "1"
    return call(PYTHON, "-m", "pytest", "-n", workers, *options)


SITE = ROOT / "docs" / "_build"
BUILD = ("-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", str(ROOT / "docs"), str(SITE))
"""The site; a link or a picture that leads nowhere is a failure."""


def docs(options: list[str]) -> int:
    """The documentation as a site, which a browser opens without a server."""
    code = call(PYTHON, *BUILD, *options)
    print(f"{SITE / 'index.html'}" if code == 0 else "the site has faults")
    return code


def check(options: list[str]) -> int:
    """Lint, format, types, import rules, documentation: the exit code tells if any failed."""
    commands = (
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command as f; f()"],
        BUILD,
    )
    return max(call(PYTHON, *command) for command in commands)


def call(*command: str | Path) -> int:
    """Run a command from the folder that the user is in; its exit code."""
    try:
        return subprocess.run([str(part) for part in command], cwd=_folder(command)).returncode
    except KeyboardInterrupt:
        return 130  # the command got the signal too, and has said what it saved


def _folder(command: tuple[str | Path, ...]) -> Path | None:
    """The tests and checks run in the project; fewstep where the user is."""
    return None if "fewstep" in command else ROOT


def set_up(extras: str) -> None:
    """Make .venv hold fewstep with these extras, unless it does already."""
    stamp = VENV / f"fewstep-{extras.replace(',', '-')}.stamp"
    wanted = hashlib.sha256(
        b"".join(path.read_bytes() for path in (ROOT / "pyproject.toml", CONSTRAINTS))
        + sys.version.encode()
        + str(ROOT).encode()
    ).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"setting up {VENV} (once; a few minutes)", file=sys.stderr, flush=True)
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], "make a virtual environment")
    install_torch()
    pip("install", "-q", "-e", f"{ROOT}[{extras}]", "-c", str(CONSTRAINTS))
    stamp.write_text(wanted)


def install_torch() -> None:
    """The pinned torch: the CPU build where there is no NVIDIA GPU."""
    lines = CONSTRAINTS.read_text().splitlines()
    pinned = next(line.strip() for line in lines if line.startswith("torch=="))
    version = pinned.partition("==")[2]
    probe = "import sys, importlib.metadata as m; sys.exit(m.version('torch').split('+')[0] != %r)"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run([PYTHON, "-c", probe % version], **quiet).returncode == 0:
        return
    if has_gpu() or platform.system() != "Linux":
        pip("install", "-q", pinned)  # on macOS and Windows this is the CPU build
        return
    # An index or folder that pip knows may have the CPU build; otherwise uv knows where it is.
    local = [PYTHON, "-m", "pip", "install", "-q", f"{pinned}+cpu"]
    if subprocess.run(local, **quiet).returncode != 0:
        pip("install", "-q", "uv")
        uv = [PYTHON, "-m", "uv", "pip", "install", "--python", str(PYTHON), pinned]
        run(
            [*uv, "--torch-backend", "cpu"],
            f"install torch's CPU build; where its index cannot be reached, put {pinned} into "
            f"{VENV} yourself ({PYTHON} -m pip install ...) and run this again",
        )


def has_gpu() -> bool:
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").exists()


def pip(*arguments: str) -> None:
    run([PYTHON, "-m", "pip", *arguments], f"pip {' '.join(arguments)}")


def run(command: list[str | Path], what: str) -> None:
    """Run a step of the set-up, or stop and say which one failed."""
    try:
        subprocess.run(command, check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        hint = " (on Debian and Ubuntu: apt install python3-venv)" if "venv" in command else ""
        sys.exit(f"set-up failed ({error}): could not {what}{hint}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
