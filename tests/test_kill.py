"""Real processes: killed at any moment, and several that train together."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fewstep.files import alive
from fewstep.training.metrics import read_metrics

PROGRAM = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from fewstep.training import checkpoint
from fewstep.recipes import RECIPES, component
from fewstep.runs.execute import train
import dataclasses
directory, die_in_save, microbatches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if die_in_save:
    write, calls = checkpoint.write_tensors, []
    def write_or_die(path, *rest):
        calls.append(path)
        digest = write(path, *rest)
        if len(calls) == die_in_save:
            os.kill(os.getpid(), signal.SIGKILL)
        return digest
    checkpoint.write_tensors = write_or_die
run = RECIPES["digits/ct"](steps=150, batch=32, log_every=10, sample_every=0, checkpoint_every=9,
    warmup=10, microbatches=microbatches or None, network__width=16, network__blocks=1,
    network__dropout=0.1, flip=True)
train(run, directory, recipe="digits/ct", quiet=True, device="cpu")
"""


def start(directory: Path, die_in_save: int = 0, processes: int = 1) -> subprocess.Popen[bytes]:
    program = directory.parent / "program.py"
    program.write_text(PROGRAM)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        launcher += ["--master-port", str(random.Random(str(directory)).randint(20000, 60000))]
    parts = "2" if processes > 1 or "two" in directory.name else "0"
    return subprocess.Popen(
        [*launcher, str(program), str(directory), str(die_in_save), parts],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(directory: Path, **how: int) -> dict[str, torch.Tensor]:
    process = start(directory, **how)
    error = process.communicate()[1].decode()
    assert process.returncode == 0, error
    newest = max((directory / "checkpoints").iterdir())
    return {
        f"{path.name}:{key}": value
        for path in newest.glob("*.safetensors")
        for key, value in load_file(path).items()
    }


def steps_saved(directory: Path) -> int:
    return len(list((directory / "checkpoints").glob("step-????????")))


def test_sigkill_at_random_moments_and_inside_a_save_changes_no_bit(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole")
    cut = tmp_path / "cut"
    process = start(cut)
    while not steps_saved(cut) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start(cut, die_in_save=8).wait() == -signal.SIGKILL
    resumed = finish(cut)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    same = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert same[0] == same[1]
    steps = [[line["step"] for line in read_metrics(tmp_path / run)] for run in ("whole", "cut")]
    assert steps[0] == steps[1]
    assert not list(cut.rglob("*.partial"))


def start_command(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewstep", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


LONG = ["--steps", 10**6, "--checkpoint-every", 20, "--sample-every", 0, "--device", "cpu"]
LONG += ["--network.width", 16, "--network.blocks", 1, "--quiet"]


def await_checkpoint(directory: Path, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 120
    while not steps_saved(directory) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)


def test_two_trainings_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    words = ["train", "digits/ct", *LONG, "--out", tmp_path / "run"]
    first = start_command(*words)
    await_checkpoint(tmp_path / "run", first)
    second = start_command(*words)
    error = second.communicate(timeout=120)[1]
    assert second.returncode == 2
    assert f"run is in use: the process {first.pid} on " in error
    assert error.count("\n") == 1
    assert first.poll() is None
    first.terminate()
    assert "everything is saved" in first.communicate(timeout=120)[1]
    assert first.returncode == 130


PARENT = """
import sys, time
from pathlib import Path
from fewstep.stages.clock import Clock
from fewstep.stages.stage import Training
from fewstep.stages.how import How
from fewstep.stages.stages import Stages
class Endless(Training):
    def _command(self, directory, shorten):
        return ["train", "digits/ct", *sys.argv[2:], "--out", directory / self.name]
folder = Path(sys.argv[1])
stages = Stages([Endless("ct", recipe="digits/ct")], folder, Clock(folder), How(workers=1))
stages.run()
"""


def test_trainings_of_a_reproduction_end_with_it_however_it_ends(tmp_path: Path) -> None:
    words = [word for word in LONG if word != "--quiet"]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), *map(str, words)])
    run = tmp_path / "ct"
    await_checkpoint(run, parent)
    child = json.loads((run / ".lock.json").read_text())["pid"]
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
    assert "everything is saved" in (tmp_path / "ct.log").read_text()


def test_sigterm_saves_and_two_processes_agree_with_one(tmp_path: Path) -> None:
    """One process with two micro-batches, and two with one each, one of them after a restart."""
    one = finish(tmp_path / "two-microbatches")
    cut = tmp_path / "ddp"
    process = start(cut, processes=2)
    while not steps_saved(cut) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    two = finish(cut, processes=2)
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4, msg=key)
