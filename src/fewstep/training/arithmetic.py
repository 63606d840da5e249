"""How a training computes: the arithmetic, the algorithms, and the random streams of a step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch

from fewstep.memory import keep_freed_memory
from fewstep.training.config import Precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Where matrix products and convolutions run in bf16; nothing for the other precisions."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def set_up(precision: Precision, *, deterministic: bool) -> None:
    """Settings of this process for a training.

    Args:
        precision: TF32, which keeps 10 of float32's 23 bits, is on with "tf32" alone; left to
            itself, torch uses it in convolutions.
        deterministic: on a GPU only algorithms that give the same bits every time; otherwise cuDNN
            times what it has and takes the fastest.
    """
    keep_freed_memory()
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


@contextmanager
def repeatable(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """For a backward pass: on a GPU attention and indexing add up in the same order every time.

    Also a decorator for a compiled loss, both passes of which need the same setting. Not for all of
    a forward pass, because some of its operations, such as a draw of indices, have no deterministic
    form although they give the same every time.
    """
    if not deterministic or device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Otherwise every new tensor would first be filled, in case somebody reads it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def seed_streams(seed: int, device: torch.device) -> None:
    """`torch.manual_seed` for the streams that a step draws from: the CPU's and the device's.

    The original also seeds every other device there is.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def mix(*numbers: int) -> int:
    """A seed that differs for every tuple of four numbers; of fewer, zeros stand for the rest."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def stream(seed: int, k: int, part: int, turn: int = 0, repeat: int = 0) -> int:
    """The seed of a micro-batch's random streams; of the first turn as if there were no others.

    Args:
        seed: the training's.
        k: the step.
        part: the micro-batch.
        turn: its number, from 0.
        repeat: which of the turn's steps in this step, from 0.
    """
    return mix(seed, k, part, turn + 1, repeat) if turn or repeat else mix(seed, k, part)
