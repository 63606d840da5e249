"""What a derivative in forward mode adds to the pass that it comes with, in passes, on the CPU.

    python benchmarks/tangent_cost.py [--repeat 9]

`fewstep.needs.TANGENT` counts it as two evaluations for every network. Here `FlowMap.tangent`,
which gives the map and its derivative, is timed against the map alone, without gradients, in CPU
seconds of one thread; one after the other in turn, so that a busy machine disturbs both alike.
Prints the table and writes benchmarks/results/tangent_cost.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fewstep import FlowMap
from fewstep.needs import TANGENT
from fewstep.networks import NETWORKS
from fewstep.parameterization import RectifiedFlow

RESULTS = Path(__file__).parent / "results" / "tangent_cost.json"
SIZES = {  # of the networks of the recipes: shape, batch, network
    "mlp, digits": ((1, 8, 8), 128, "mlp(width=256, blocks=3, two_time=True)"),
    "mlp, plane": ((2,), 512, "mlp(width=128, blocks=3, two_time=True)"),
    "unet, 16x16": (
        (3, 16, 16),
        8,
        "unet(channels=32, multipliers=(1, 2), blocks=1, attention=(8,), dropout=0.0)",
    ),
    "unet, 32x32": (
        (3, 32, 32),
        8,
        "unet(channels=64, multipliers=(1, 2, 2), blocks=1, attention=(16,), dropout=0.0)",
    ),
    "adm, 16x16": (
        (3, 16, 16),
        8,
        "adm(channels=32, multipliers=(1, 2), blocks=1, attention=(8,), head_channels=16)",
    ),
    "dit, 16x16": ((3, 16, 16), 8, "dit(patch=2, width=128, blocks=4, heads=4)"),
}


def measured(shape: tuple[int, ...], batch: int, spec: str, repeat: int) -> dict[str, float]:
    """Median CPU seconds of the map and of its derivative, and what the latter adds."""
    f = FlowMap(NETWORKS.build(spec, shape=shape), RectifiedFlow(form="ddim")).eval()
    for weight in f.weights:
        if not weight.any():
            nn.init.normal_(weight, std=0.02)
    x, v = torch.randn(2, batch, *shape)
    t, s = torch.full((batch,), 0.7), torch.full((batch,), 0.2)
    steps: dict[str, Callable[[], object]] = {
        "map": lambda: f(x, t, s),
        "with derivative": lambda: f.tangent(x, t, s, v),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for turn in range(repeat + 1):
            for name, step in steps.items():
                started = time.process_time()
                step()
                times[name] += [time.process_time() - started] if turn else []  # the first warms up
    found = {name: statistics.median(each) for name, each in times.items()}
    return found | {"added": found["with derivative"] / found["map"] - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {name: measured(*size, repeat) for name, size in SIZES.items()}
    print(f"{'network':14} {'map, ms':>9} {'both, ms':>9} {'added':>6}   (counted as {TANGENT})")
    for name, row in found.items():
        ms = f"{1e3 * row['map']:9.2f} {1e3 * row['with derivative']:9.2f}"
        print(f"{name:14} {ms} {row['added']:6.2f}")
    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
    RESULTS.write_text(
        json.dumps(machine | {"counted": TANGENT, "networks": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
