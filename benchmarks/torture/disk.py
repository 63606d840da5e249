"""Disks that are full at any moment: one line, and what was there before is still good.

A limit on the size of files stands in for the full disk: writing beyond it fails in the same way,
for Python and for the libraries beneath, and no disk has to be filled.
"""

from __future__ import annotations

import random
import resource
import shutil
import time

from ground import Ground, Tally
from kills import commands, compare


def campaign(ground: Ground, rng: random.Random, seconds: float) -> Tally:
    tally = Tally("full disk")
    calm = ground.folder / "plenty"
    for command in commands(calm).values():
        ground.run(*command)
    end, trial = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        place = ground.folder / f"full-{trial}"
        for folder, command in commands(place).items():
            for _ in range(2):
                size = int(2 ** rng.uniform(8, 18))
                outcome = ground.run(*command, before=lambda size=size: _limit(size))
                tally.judge(f"{folder} on a full disk", outcome)
            tally.judge(f"{folder} with room again", ground.run(*command))
            difference = compare(calm / folder, place / folder)
            tally.count(f"{folder} compared with one that had room", difference)
        shutil.rmtree(place, ignore_errors=True)
        trial += 1
    return tally


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
