"""The speed of this machine, before anything is chosen: of a small network, and of any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from fewstep.data import Dataset
from fewstep.planning.looked_at import Source
from fewstep.planning.rule import NARROW, UNET, Pace, Speed, network_of, sides
from fewstep.planning.throughput import fastest_precision, fastest_threads, seconds_per_step
from fewstep.recipes import RECIPES
from fewstep.runs.run import Run
from fewstep.training.config import Precision

BATCH = 32
PART, MOST = 0.004, 2.0  # of a budget, and seconds, that a measurement takes


def small_speed(
    source: Source, device: torch.device, seconds: float, threads: int | None = None
) -> Speed:
    """Measured on noise of the smallest size that the images may be trained in.

    Args:
        source: the images.
        device: where.
        seconds: the budget.
        threads: of the CPU; default one or all cores, whichever is faster.
    """
    side, channels = list(sides(source))[-1], 3 if source.colour else 1
    pixels = torch.randint(0, 256, (4 * BATCH, channels, side, side), dtype=torch.uint8)
    run = _run(UNET, network_of(side, NARROW))
    data, each = Dataset.from_arrays(pixels), brief(seconds)
    if threads is None:
        threads, took = fastest_threads(run, data, device, seconds=each)
    else:
        took = seconds_per_step(run, data, device=device, threads=threads, seconds=each)
    return Speed(BATCH / took, side, threads)


def pace_of(
    images: Dataset,
    device: torch.device,
    seconds: float,
    threads: int,
    precision: Precision | None = None,
) -> Pace:
    """Measures diffusion models of these images here.

    Args:
        images: to train on.
        device: where.
        seconds: the budget.
        threads: of the CPU.
        precision: the user's; default the faster one, see `fastest_precision`.
    """

    def pace(network: str, **arguments: Any) -> tuple[Precision, float]:
        run = _run(network, arguments, labels=images.labels is not None)
        if precision is None:
            found, took = fastest_precision(
                run, images, device, threads=threads, seconds=brief(seconds)
            )
            return found, BATCH / took
        own = replace(run, training=replace(run.training, precision=precision))
        took = seconds_per_step(own, images, device=device, threads=threads, seconds=brief(seconds))
        return precision, BATCH / took

    return pace


def _run(network: str, arguments: Mapping[str, Any], **more: Any) -> Run:
    own = {f"network__{name}": value for name, value in arguments.items()}
    return RECIPES["images"](network=network, batch=BATCH, **more, **own)


def brief(seconds: float) -> float:
    """Seconds that one measurement of a budget takes."""
    return min(MOST, PART * seconds)
