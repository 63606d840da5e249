"""How long a user waits before anything happens.

    python benchmarks/startup.py [--runs 5]

CPU seconds (user + system) of whole Python processes, the median of several runs in turn: the help
of every command, mistakes, and a training of one step of eight images. Beside each stands what it
costs beyond `import torch`, where it imports torch at all. The first step of any training also
imports torch's compiler, whether it is used or not, since `torch.optim` does: measured for itself.
Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from fewstep.cli import app

RESULTS = Path(__file__).parent / "results" / "startup.json"
EVERYTHING = "import torch, fewstep; [getattr(fewstep, name) for name in fewstep.__all__]"
OPTIMIZER = "import torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
TORCH = "import torch"
NAMES = [name for name in app if not name.startswith("-")]
TRAINING = "train digits/ct --steps 1 --batch 8 --samples 1 --sample-every 0 --quiet --device cpu"
COMMANDS = [
    "--help",
    "list",
    "list recipes",
    "train no/recipe",
    "train digits/cd --help",
    "train digits/cd --stpes 3",
    "train digits/cd --lr 0",
    "train digits/cd --teacher nowhere",
    "sample nowhere",
    "sampel",
    TRAINING,
    *(f"{name} --help" for name in NAMES if name != "list"),
]


def cpu_seconds(arguments: list[str]) -> float:
    """Of a process and its children, in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, cwd=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    programs = {
        TORCH: ["-c", TORCH],
        "import torch, and an optimiser of it": ["-c", OPTIMIZER],
        "import torch and every public name": ["-c", EVERYTHING],
        **{f"fewstep {words}": ["-m", "fewstep", *words.split()] for words in COMMANDS},
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(runs):
        for name, arguments in programs.items():
            if not times[name]:
                cpu_seconds(arguments)  # the first run compiles and fills the page cache
            times[name].append(cpu_seconds(arguments))
    medians = {name: round(statistics.median(found), 3) for name, found in times.items()}
    torch = medians[TORCH]
    beyond = {n: round(t - torch, 3) for n, t in medians.items() if t > torch}
    result = {
        "cpu_seconds": medians,
        "beyond_import_torch": beyond,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": version("torch"),
        },
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
