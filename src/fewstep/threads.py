"""Threads of the CPU: which of them compute together."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def compute_alone() -> None:
    """From now on the calling thread computes by itself, without helpers of its own.

    Every thread that computes has its own helpers in OpenMP. Once there are more of all kinds than
    cores, the helpers of the training sleep after each operation, where else they wait awake:
    steps of small networks then take half as long again.
    """
    torch.get_num_threads()  # otherwise torch would choose when this thread first computes
    threadpool_limits(1, user_api="openmp")
