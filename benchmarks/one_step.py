"""What the one-step samples of few-step models have lost, beside the teacher that all began with.

    python benchmarks/one_step.py runs/digits-edm runs/digits-cd runs/digits-ctm ...

The first run is the diffusion model, the others are maps of the same data. Of each map, from the
same noises and classes: the root mean square of what is between its samples and the end of the
teacher's PF-ODE (40 steps of Heun's solver), and the variance of its samples as a part of the
variance of the data, summed over the pixels. A map that has not learned its jumps gives means of
images, which have too little of it. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import fewstep
from fewstep.sampling import Walk

STEPS = (1, 2)


def variance(x: Tensor) -> float:
    """Of images [N, ...], summed over the pixels."""
    return float(x.var(0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("maps", type=Path, nargs="+")
    parser.add_argument("-n", type=int, default=1437)
    parser.add_argument("--data", default="digits")
    options = parser.parse_args()
    real = fewstep.load(options.data)
    n = min(options.n, len(real))
    whole = variance(real.batch(torch.arange(n), torch.device("cpu"))[0])
    end = fewstep.sample(fewstep.open_model(options.teacher), n, Walk(40, "heun"), seed=0)
    print("| map | rms to the teacher's end | variance, 1 step | 2 steps |\n|---|---:|---:|---:|")
    print(f"| {options.teacher.name} | 0 | {variance(end) / whole:.3f} | |")
    for path in options.maps:
        f = fewstep.open_model(path)
        one, two = (fewstep.sample(f, n, steps=steps, seed=0) for steps in STEPS)
        error = float((one - end).square().mean().sqrt())
        parts = " | ".join(f"{variance(x) / whole:.3f}" for x in (one, two))
        print(f"| {path.name} | {error:.3f} | {parts} |", flush=True)


if __name__ == "__main__":
    main()
