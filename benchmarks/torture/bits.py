"""Files that the program reads back, damaged: it goes on from what is whole, or says so."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ground import Ground, Tally
from kills import TRAIN, compare


def campaign(ground: Ground, rng: random.Random, seconds: float) -> Tally:
    tally = Tally("damaged files")
    whole, half = ground.folder / "whole", ground.folder / "half"
    tally.judge("training", ground.run(*TRAIN, "--out", whole / "run"))
    _half_way(ground, half / "run")
    end, trial = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        state = rng.choice((half, whole))
        place = ground.folder / f"damaged-{trial}"
        shutil.copytree(state, place)
        files = sorted(p for p in place.rglob("*") if p.is_file() and p.stat().st_size)
        victim = rng.choice(files)
        how = damage(victim, rng)
        outcome = ground.run("train", place / "run", "--quiet", "--device", "cpu")
        what = f"resuming with a damaged {_kind(victim)}"
        tally.judge(what, outcome)
        if outcome.code == 0 and victim.name != "run.json":  # which holds the settings themselves
            # a run that had ended is not made again for the sake of an old checkpoint
            spared = {str(victim.relative_to(place / "run"))} if state is whole else set()
            difference = compare(whole / "run", place / "run", spared)
            tally.count("resumed to the same files", difference and f"{how} {victim}: {difference}")
        words = ("sample", place / "run", "-n", 2, "-o", place / "x.png")
        tally.judge(f"sampling with a damaged {_kind(victim)}", ground.run(*words))
        shutil.rmtree(place, ignore_errors=True)
        trial += 1
    return tally


def _half_way(ground: Ground, run: Path) -> None:
    """A training that was asked to stop, with two checkpoints or more."""
    child = ground.start(*TRAIN, "--out", run)
    deadline = time.monotonic() + ground.seconds
    while len(list(run.glob("checkpoints/step-*[0-9]"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.signal(signal.SIGTERM)
    child.wait()


def _kind(path: Path) -> str:
    return path.name if path.suffix != ".png" and "tfevents" not in path.name else path.suffix


def _flip(data: bytes, rng: random.Random) -> bytes:
    i = rng.randrange(len(data))
    return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    i = rng.randrange(len(data))
    return data[:i] + bytes(len(data) - i)


def _noise(data: bytes, rng: random.Random) -> bytes:
    i = rng.randrange(len(data))
    return data[:i] + rng.randbytes(min(64, len(data) - i)) + data[i + 64 :]


def _other(data: bytes, rng: random.Random) -> bytes:
    texts = (b"", b"[]", b"null", b"{}", b'"x"', b"5", b"[" * 100_000, b"9" * 6000, b"\xff\xfe")
    return rng.choice(texts)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit": _flip,
    "the end": _cut,
    "zeros": _zeros,
    "noise": _noise,
    "other text": _other,
}


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file in place; how."""
    how = rng.choice(list(DAMAGES))
    path.write_bytes(DAMAGES[how](path.read_bytes(), rng))
    return how
