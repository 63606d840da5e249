"""What of a training's settings and images is worth a line before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fewstep.data import Dataset
from fewstep.objectives import Objective
from fewstep.training.config import Training
from fewstep.training.recording import Recorder


def remarks(
    config: Training,
    objective: Objective[Any],
    data: Dataset,
    device: torch.device,
    *,
    recorded: bool,
) -> Iterator[str]:
    """One line for each; ``recorded`` says whether steps are."""
    if recorded and config.cuda_graphs is None:
        yield (
            "note: steps are recorded as CUDA graphs and replayed, to the same bits; with "
            "--no-cuda-graphs they are launched kernel by kernel."
        )
    if config.cuda_graphs and not Recorder.possible_on(device):
        yield f"note: CUDA graphs are of NVIDIA GPUs; on {device.type} nothing is recorded."
    if config.warmup > config.steps // 4:
        yield (
            f"note: the learning rate rises over the first {config.warmup:,} steps, and this "
            f"training has {config.steps:,}: a warm-up of a twentieth, --warmup "
            f"{config.steps // 20}, learns more from them."
        )
    for remark in objective.remarks():
        yield f"note: {remark}"
    if config.flip:
        yield "note: half of the images are mirrored left to right; --no-flip where that is wrong."
    if config.batch > len(data):
        yield (
            f"note: a batch of {config.batch} is more than the {len(data)} images of "
            f"{data.name}; some appear in it more than once."
        )
    if data.skipped:
        yield (f"note: images of {data.name} that cannot be read and are left out: {data.skipped}.")
