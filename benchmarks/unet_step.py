"""Where a consistency-training step of the U-Net spends its time on the CPU, with one thread.

    python benchmarks/unet_step.py [--batch 16] [--steps 3]

The network is that of the `images` recipes (64 channels, multipliers 1, 2, 2, two blocks, attention
at 16x16, dropout 0.1) on random 32x32 images in float32. A step is the whole of it: target, loss,
gradients, optimiser, running average. Prints the profiler's table and the share of self CPU time
that is spent in convolutions and matrix products, and writes benchmarks/results/unet_step.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from fewstep import CT, EDM, FlowMap, UNet

RESULTS = Path(__file__).parent / "results" / "unet_step.json"
KERNELS = {
    "convolution": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "matrix product": ("aten::addmm", "aten::mm", "aten::bmm"),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
}


def training_step(batch: int) -> Callable[[], None]:
    F = UNet((3, 32, 32), channels=64, multipliers=(1, 2, 2), blocks=2, dropout=0.1)
    objective = CT(FlowMap(F, EDM()), K=1000, distance="pseudo_huber", weighting="inverse_t")
    objective.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RAdam(objective.f.parameters(), lr=2e-4)
    x = torch.randn(batch, 3, 32, 32).clamp(-1, 1)

    def step() -> None:
        objective(x, 500).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(500)

    return step


def seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def shares(step: Callable[[], None]) -> dict[str, float]:
    """The share of self CPU time of each group of kernels."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    events = profiler.key_averages()
    print(events.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))
    times = {event.key: event.self_cpu_time_total for event in events}
    total = sum(times.values())
    return {
        group: sum(times.get(name, 0.0) for name in names) / total
        for group, names in KERNELS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    step = training_step(options.batch)
    step()  # the first one allocates
    rate = options.batch / statistics.median(seconds(step) for _ in range(options.steps))
    share = shares(step)
    result = {
        "batch": options.batch,
        "images_per_s": round(rate, 2),
        "share": round(sum(share.values()), 3),
        "shares": {group: round(value, 3) for group, value in share.items()},
        "machine": {
            "device": "cpu",
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
