"""Torture: kills, full disks, damaged files, hostile files, command lines and requests.

    python benchmarks/torture                      two minutes for each campaign
    python benchmarks/torture --minutes 10 --seed 7
    python benchmarks/torture --short              some seconds for each, as the tests do
    python benchmarks/torture --only kills bits

Prints a table and each fault with what repeats it, and writes benchmarks/results/torture.json (not
with --short). Exit code 1 where there is a fault. Needs Linux or macOS: commands are forks.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import bits
import clients
import commands
import disk
import files
import kills
from ground import Ground, Tally

CAMPAIGNS = {
    "kills": kills,
    "disk": disk,
    "bits": bits,
    "files": files,
    "commands": commands,
    "requests": clients,
}
SHORT = 2.0  # seconds for each campaign, which ends the trial that it is at
RESULTS = Path(__file__).parent.parent / "results" / "torture.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="for each campaign")
    parser.add_argument("--short", action="store_true", help="some seconds for each campaign")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = SHORT if options.short else 60 * options.minutes
    faults = 0
    for name in options.only:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fewstep-torture-") as folder:
            rng = random.Random(f"{options.seed} {name}")
            tally = CAMPAIGNS[name].campaign(Ground(Path(folder)), rng, seconds)
        report(tally, time.monotonic() - began)
        if not options.short:
            write(tally, options.seed)
        faults += len(tally.faults)
    return int(faults > 0)


def report(tally: Tally, seconds: float) -> None:
    """Print what a campaign found."""
    trials = sum(tally.tried.values())
    print(f"{tally.name}: {trials} trials, {len(tally.faults)} faults, {seconds:.0f} s", flush=True)
    for fault in tally.faults:
        print(f"  {fault}", flush=True)


def write(tally: Tally, seed: int) -> None:
    """Put a campaign into the table of results."""
    table = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    table[tally.name] = {"seed": seed, "tried": tally.tried, "faults": tally.faults}
    RESULTS.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
