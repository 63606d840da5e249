"""Trainings and pairs that are killed again and again end with the files of those that were not."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from ground import SMALL_RUN, Ground, Tally

TRAIN = ("train", "digits/ct", *SMALL_RUN)
KILLS = 6  # of one training at most


def campaign(ground: Ground, rng: random.Random, seconds: float) -> Tally:
    tally = Tally("kills")
    calm = ground.folder / "calm"
    for folder, command in commands(calm).items():
        tally.judge(f"{folder} without a kill", ground.run(*command))
    end, trial = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        place = ground.folder / f"killed-{trial}"
        for folder, command in commands(place).items():
            what = f"{folder} killed and taken up"
            _torment(ground, tally, rng, what, command)
            difference = compare(calm / folder, place / folder)
            tally.count(f"{folder} compared with one that was not killed", difference)
        shutil.rmtree(place, ignore_errors=True)
        trial += 1
    return tally


def commands(place: Path) -> dict[str, tuple[object, ...]]:
    """Commands by the folder that they make."""
    teacher, pairs = place / "edm", place / "pairs"
    return {
        "ct": (*TRAIN, "--out", place / "ct"),
        "edm": ("train", "digits/edm", *SMALL_RUN, "--out", teacher),
        "pairs": ("pairs", teacher, "-n", 24, "--steps", 2, "--device", "cpu", "-o", pairs),
    }


def _torment(
    ground: Ground, tally: Tally, rng: random.Random, what: str, command: tuple[object, ...]
) -> None:
    """Run a command until it ends by itself, killing it before."""
    for _ in range(KILLS):
        child = ground.start(*command, before=naps(rng.random()))
        outcome = child.wait(rng.uniform(0.05, 1.5))
        if outcome.code is None:
            tally.count("kills")
            continue
        refused = None if outcome.code == 0 else f"refused: {outcome.last_line}"
        tally.count(what, outcome.fault or refused)
        return
    tally.judge(what, ground.run(*command))


def naps(seed: float) -> Callable[[], None]:
    """Make a process slow where files become whole, so that kills come there too."""

    def install() -> None:
        rng = random.Random(seed)

        def slow(call: Callable) -> Callable:
            def napping(*arguments: object, **options: object) -> object:
                time.sleep(rng.uniform(0, 0.03))
                return call(*arguments, **options)

            return napping

        for name in ("replace", "rename", "fsync", "unlink", "rmdir"):
            setattr(os, name, slow(getattr(os, name)))

    return install


def compare(calm: Path, killed: Path, spared: Collection[str] = ()) -> str | None:
    """How the folders differ, but for ``spared`` files and logs, which tell of times; or None."""
    there = [sorted(_files(folder)) for folder in (calm, killed)]
    if there[0] != there[1]:
        return f"other files: {sorted(set(there[0]) ^ set(there[1]))[:6]}"
    for name in sorted(set(there[0]) - set(spared)):
        if _bytes(calm, name) != _bytes(killed, name):
            return f"{name} has other bytes"
    return None


def _bytes(folder: Path, name: str) -> bytes:
    """What a file holds, in JSON without the name of the folder that it lies in."""
    data = (folder / name).read_bytes()
    return data.replace(str(folder.parent).encode(), b"") if name.endswith(".json") else data


def _files(folder: Path) -> list[str]:
    found = (p for p in folder.rglob("*") if p.is_file())
    names = (str(p.relative_to(folder)) for p in found)
    return [n for n in names if not n.startswith(("metrics", "events", "run.json", "."))]
