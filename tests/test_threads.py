"""What a training does with the threads and the memory of its process."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fewstep.threads import compute_alone
from fewstep.training.checkpoint import Checkpoints
from fewstep.training.writer import Writer

FAULTS = """
import resource, sys, torch
from fewstep.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
for _ in range(6):
    blocks = [torch.ones(500_000) for _ in range(20)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[1])
"""


def test_a_thread_that_computes_alone_leaves_the_others_theirs(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
        with ThreadPoolExecutor(1, initializer=compute_alone) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
        with Writer(Checkpoints(tmp_path)) as writer:
            assert writer._thread.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_memory_that_is_freed_is_used_again() -> None:
    """Pages that the system has to provide while 40 MB are taken and freed, four times over."""
    found = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("keep", "return")
    }
    assert found["keep"] < 0.1 * found["return"]
