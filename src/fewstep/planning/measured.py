"""The speed of this machine, on a small network, before anything is chosen."""

from __future__ import annotations

import math

import torch

from fewstep.data import Dataset
from fewstep.planning.looked_at import Source
from fewstep.planning.rule import NARROW, Speed, network_of, sides
from fewstep.planning.throughput import fastest_precision, seconds_per_step
from fewstep.recipes import RECIPES
from fewstep.stages.stages import cores
from fewstep.training.config import Precision

BATCH = 32
PART, MOST = 0.004, 2.0  # of a budget, and seconds, that a measurement takes


def small_speed(
    source: Source,
    device: torch.device,
    seconds: float,
    *,
    threads: int | None = None,
    precision: Precision | None = None,
) -> Speed:
    """Measured on noise of the smallest size that the images may be trained in.

    Args:
        source: the images.
        device: where.
        seconds: the budget.
        threads: of the CPU; default one or all cores, whichever is faster: on a busy machine
            threads wait for each other.
        precision: of the training; default what is faster here, see `fastest_precision`.
    """
    side, channels = list(sides(source))[-1], 3 if source.colour else 1
    pixels = torch.randint(0, 256, (4 * BATCH, channels, side, side), dtype=torch.uint8)
    arguments = {f"network__{k}": v for k, v in network_of(side, NARROW).items()}
    run = RECIPES["images"](batch=BATCH, precision=precision or "fp32", **arguments)
    data, best, fewest = Dataset.from_arrays(pixels), math.inf, 1
    counts = [threads] if threads else sorted({1, cores()} if device.type == "cpu" else {1})
    brief = min(MOST, PART * seconds)
    for n in counts:
        took = seconds_per_step(run, data, device=device, threads=n, seconds=brief, patience=best)
        if took < best:
            best, fewest = took, n
    if precision is None:
        precision, best = fastest_precision(run, data, device, threads=fewest, seconds=brief)
    return Speed(BATCH / best, side, fewest, precision)
