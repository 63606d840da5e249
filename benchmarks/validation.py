"""How much the score that tells the best checkpoint is worth: real images against real ones.

    python benchmarks/validation.py DATA [--size 32] [--draws 40]

DATA is whatever `fewstep train --data` takes. The energy distance of two sets of real images is 0
on average, so that what it is here is its noise: of n images against the 1,024 that a training
holds out, drawn with classes in the data's proportions, as the samples of a validation are, and
drawn at random. "paired" is the spread of the difference between two models of the same noises:
the same n images, and these with a little noise on the pixels. Beside each spread stands the mean
of the standard errors that `fewstep.training.score.Score` gave. Writes
benchmarks/results/validation.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewstep import load
from fewstep.data import Dataset
from fewstep.runs.images import HELD_OUT, held_out
from fewstep.training.validation import energy_distance, evenly

RESULTS = Path(__file__).parent / "results" / "validation.json"
SIZES = (64, 256, 1024)
NOISE = 0.1  # of the worse of two models, on pixels in [-1, 1]


def draw(rest: Dataset, n: int, seed: int, *, stratified: bool) -> Tensor:
    """Other images than those held out: [n, *shape]."""
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
    if stratified and rest.labels is not None:
        order = evenly(rest.labels, order)
    return rest.batch(order[:n])[0]


def measured(data: Dataset, n: int, draws: int, *, stratified: bool) -> dict[str, float]:
    """Spread and error of the score, and of the difference of two models."""
    torch.manual_seed(0)
    real, _ = held_out(data)
    rest = data.subset(others(data))
    scores, gaps, errors = [], [], []
    for seed in range(draws):
        x = draw(rest, n, seed + 1, stratified=stratified)
        score = energy_distance(x, real)
        worse = energy_distance(x + NOISE * torch.randn_like(x), real)
        scores.append(score)
        gaps.append(float(worse - score))
        errors.append(worse.error_of_difference(score))
    return {
        "lowest": min(scores),
        "highest": max(scores),
        "spread": float(np.std(scores, ddof=1)),
        "error": float(np.mean([score.error for score in scores])),
        "gap": float(np.mean(gaps)),
        "paired spread": float(np.std(gaps, ddof=1)),
        "paired error": float(np.mean(errors)),
    }


def others(data: Dataset) -> Tensor:
    """The rows that `held_out` leaves."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    if data.labels is not None:
        order = evenly(data.labels, order)
    return order[HELD_OUT:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--size", type=int)
    parser.add_argument("--draws", type=int, default=40)
    given = parser.parse_args()
    data = load(given.data, size=given.size)
    found = {}
    for n in SIZES:
        for stratified in (False, True):
            name = f"{n} {'by class' if stratified else 'at random'}"
            found[name] = measured(data, n, given.draws, stratified=stratified)
            print(
                f"{name:16}", "  ".join(f"{k} {v:.4f}" for k, v in found[name].items()), flush=True
            )
    RESULTS.write_text(json.dumps({"data": repr(data), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
