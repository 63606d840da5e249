"""Command lines that nobody meant: each ends in its work or in a line that says what is wrong."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from ground import Ground, Tally
from kills import TRAIN

VALUES = (
    "", "-1", "0", "1", "2", "1.5", "1e400", "-1e400", "nan", "inf", "9" * 30, str(2**63), "1e-320",
    "true", "x", "é💥", "a" * 300, "a" * 5000, "../..", "/dev/null", "/root/none", "\udcff", " ",
    "{[", "ddim(eta={[]:1})", "karras(rho=1e-300)", "1+" * 3000 + "1", "not " * 2000 + "1",
    "heun", "dpm3", "l2", "all", "last", "best", "cpu", "bf16", "3", "digits", "0 0 4 4",
)  # fmt: skip
COMMANDS = (
    "sample", "evaluate", "pairs", "tune-steps", "likelihood", "edit inpaint", "edit colorize",
    "edit superresolve", "edit deblur", "edit vary", "denoise", "interpolate", "list", "verify",
    "train digits/edm", "train digits/cd", "train digits/ct", "train images", "completion",
    "train", "edit", "report", "",
)  # fmt: skip
PATIENCE = 20.0  # seconds after which a command that is at work is let go


def campaign(ground: Ground, rng: random.Random, seconds: float) -> Tally:
    tally = Tally("hostile command lines")
    run = ground.folder / "model"
    tally.judge("training", ground.run(*TRAIN, "--out", run))
    flags = {command: _flags(ground, command) for command in COMMANDS}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        command = rng.choice(COMMANDS)
        words = [*command.split(), *_words(flags[command], run, rng)]
        child = ground.start(*words)
        outcome = child.wait(PATIENCE)
        if outcome.code is None and outcome.said.strip():
            tally.count(f"{command} (at work, let go)")
        else:
            tally.judge(command, outcome)
    return tally


def _flags(ground: Ground, command: str) -> list[str]:
    """The flags that the help of a command names."""
    said = ground.run(*command.split(), "--help").said
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", said))) or ["--help"]


def _words(flags: list[str], run: Path, rng: random.Random) -> list[str]:
    words: list[str] = []
    if rng.random() < 0.7:
        words.append(str(rng.choice((run, run / "model.safetensors", run / "none", run.parent))))
    for _ in range(rng.randrange(5)):
        flag = rng.choice(flags) if rng.random() < 0.9 else f"--{rng.choice(VALUES[:12])}"
        if rng.random() < 0.2:
            words.append(flag)
        elif rng.random() < 0.5:
            words.append(f"{flag}={rng.choice(VALUES)}")
        else:
            words += [flag, rng.choice(VALUES)]
    if rng.random() < 0.2:
        words.append(rng.choice(VALUES))
    rng.shuffle(words)
    return words
