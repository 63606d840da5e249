"""How long a user waits before anything happens.

    python benchmarks/startup.py [--runs 7]

CPU seconds (user + system) of whole Python processes, the median of several runs in turn:
`import torch`, the same with every public name of fewstep, and `fewstep --help`, which does not
import torch. Writes benchmarks/results/startup.json.
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
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "startup.json"
EVERYTHING = "import torch, fewstep; [getattr(fewstep, name) for name in fewstep.__all__]"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import torch, fewstep": ["-c", "import torch, fewstep"],
    "import torch and every public name": ["-c", EVERYTHING],
    "fewstep --help": ["-m", "fewstep", "--help"],
}


def cpu_seconds(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    for arguments in COMMANDS.values():
        cpu_seconds(arguments)  # the first run compiles and fills the page cache
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            times[name].append(cpu_seconds(arguments))
    medians = {name: round(statistics.median(found), 3) for name, found in times.items()}
    result = {
        "cpu_seconds": medians,
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
