"""Real processes that train several networks in turns: killed at any moment, alone and in twos."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from test_turns import files

PROGRAM = """
import os, signal, sys, torch
torch.set_num_threads(1)
from dataclasses import replace
from fewstep.distributed import processes
from fewstep.training import checkpoint
from fewstep.training.trainer import Trainer
from two_networks import CONFIG, matching, points
folder, fatal = sys.argv[1], int(sys.argv[2])
write, calls = checkpoint.write_tensors, []
def write_or_die(path, *rest):
    calls.append(path)
    if len(calls) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, *rest)
checkpoint.write_tensors = write_or_die
config = replace(CONFIG, steps=60, microbatches=2)
group = processes("cpu")
Trainer(matching(seed=group.rank), points(), config, folder, quiet=True, group=group).run()
"""


def start(folder: Path, world: int, fatal: int = 0) -> list[subprocess.Popen[bytes]]:
    """Processes that train in a folder; the first dies in its ``fatal``-th write of a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    common |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(fatal)],
            env=os.environ | common | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors


def newest(folder: Path) -> str:
    return max((path.name for path in (folder / "checkpoints").glob("step-????????")), default="")


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_sigkill_at_any_moment_changes_no_bit_of_any_network(world: int, tmp_path: Path) -> None:
    """Inside a save, and at a random moment after a later one."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(whole, world))
    dying = start(cut, world, fatal=13)
    assert dying[0].wait(120) == -signal.SIGKILL
    for process in dying:
        process.communicate(timeout=120)
    first = newest(cut)
    assert first
    running = start(cut, world)
    deadline = time.monotonic() + 120
    while newest(cut) <= first and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.1))
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert newest(cut) < newest(whole), "it was killed in the middle"
    finish(start(cut, world))
    a, b = files(whole), files(cut)
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


@pytest.mark.slow
def test_two_processes_train_as_one_with_two_micro_batches(tmp_path: Path) -> None:
    for world in (1, 2):
        finish(start(tmp_path / str(world), world))
    one, two = (files(tmp_path / str(world)) for world in (1, 2))
    assert one.keys() == two.keys()
    for key, value in one.items():
        if not ("critic" in key and ("running" in key or "tracked" in key)):  # of one process
            torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4, msg=key)
