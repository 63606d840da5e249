"""Threads of the CPU: which of them compute together."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def compute_alone() -> None:
    """From now on the calling thread computes by itself.

    Every thread that computes has a team of its own in OpenMP. Once the teams together have more
    threads than there are cores, those of the training sleep after each operation, where else they
    wait awake: steps of small networks then take half as long again.
    """
    torch.get_num_threads()  # otherwise torch would choose when this thread first computes
    threadpool_limits(1, user_api="openmp")
