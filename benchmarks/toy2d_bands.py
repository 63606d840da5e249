"""The scores that `fewstep reproduce toy2d` is held to: mean and spread over seeds.

    python benchmarks/toy2d_bands.py [--out runs/toy2d-bands] [--seeds 3]

trains everything once per seed, which can be interrupted and taken up, and writes the bands into
the package. Run it when a change is meant to change what a method learns.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import fewstep.report
from fewstep.report.toy2d import BANDS, reproduce_toy2d, setting

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("runs/toy2d-bands"))
parser.add_argument("--seeds", type=int, default=3)


def main() -> None:
    given = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(given.seeds):
        for method in reproduce_toy2d(given.out / f"seed-{seed}", seed=seed).methods:
            for score in method.scores:
                found[method.name][str(score.steps)].append(score.distance)
    bands = {
        name: {steps: [round(mean(v), 5), round(stdev(v), 5)] for steps, v in by_steps.items()}
        for name, by_steps in found.items()
    }
    path = Path(fewstep.report.__file__).parent / BANDS
    path.write_text(json.dumps({"of": setting(), "bands": bands}, indent=1) + "\n")
    print(f"{path}: {len(bands)} objectives, {given.seeds} seeds")


if __name__ == "__main__":
    main()
