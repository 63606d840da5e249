"""Everything that only a GPU can tell, in one command within eight minutes: see benchmarks/gpu.md.

    python benchmarks/gpu.py --out results            # on a machine with a CUDA GPU
    python benchmarks/gpu.py --rehearse --out /tmp/x  # the same in seconds, tiny, on the CPU

Every part is a process of its own with its own time limit, and its results are on disk at once.
First come the tests, those that compile and the others side by side, and nothing beside them. Then
two lanes run side by side: in one the parts that only compute, one after another, in the other two
at a time of those that first compile for minutes. A lock lets one of them time the device at a
time, on cores that nobody else uses. The speedrun comes last, alone, and takes what time is left.
Writes gpu.json, gpu.md and log.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gpu_parts.runner import END, ROOT, Part, Runner, parser, stage_of
from gpu_parts.stage import Stage

TESTS = {"tests": "not compiled", "tests-compiled": "compiled"}  # and their keywords
FOR_TESTS = 150  # seconds
LIMITS = {  # seconds of each part, the lane that they share in order
    "kernels": 60,
    "choices": 50,
    "recorded": 45,
    "eager": 60,
    "adm": 60,
    "sampling": 60,
}
COMPILED = {  # batches of compiled steps
    "edm": 512,
    "ct": 512,
    "ect": 256,
    "cd": 128,
    "edm-any": 512,
    "ct-any": 512,
    "ct-whole": 512,
}
COMPILING = ["compiled-ct", "graphs", "compiled-edm", "compiled-ect"]
ALONE = "fashion"  # by name alone, and nothing beside it
# those that there is no time for in a whole run
BY_NAME = ["compiled-ct-any", "compiled-ct-whole", "compiled-edm-any", "compiled-cd"]
SLOTS = 2  # parts that compile side by side
SPEEDRUN = 145  # seconds that are kept for it


class Run(Runner):
    """The parts, in two lanes."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(Path(__file__), options)
        last = SPEEDRUN if "speedrun" in (options.parts or ["speedrun"]) else END
        self.lane = options.seconds - last  # seconds after which both lanes must have ended

    def lanes(self, lane: list[str], beside: list[str]) -> None:
        """One part of the lane at a time, and beside it two of those that compile."""
        waiting, compiling, working = list(lane), list(beside), list[Part]()
        current: Part | None = None
        while waiting or compiling or working or current:
            if current is None and waiting:
                name = waiting.pop(0)
                current = self.start(name, LIMITS[name])
            while compiling and len(working) < SLOTS:
                working.append(self.start(compiling.pop(0), self.lane - self.elapsed))
            if current is not None and self.finished(current):
                current = None
            working = [part for part in working if not self.finished(part)]
            if self.elapsed > self.lane:
                waiting, compiling = [], []
            time.sleep(0.1)


def run_part(name: str, options: argparse.Namespace) -> int:
    """Work on a part in this process."""
    quiet = () if name in ("speedrun", ALONE) else set_cores_aside()
    if name in TESTS:
        # twice, since the project's settings have a -q
        words = ["-vv", "--no-header", "--tb=short", "--show-capture=no", "-k", TESTS[name]]
        words += ["-m", "gpu", "--durations=12", "-p", "no:cacheprovider"]
        words += ["-o", "faulthandler_timeout=60"]
        tests = [ROOT / "tests/test_gpu.py", ROOT / "tests/test_objectives.py"]
        return _pytest([*words, *map(str, tests)], options.out / f"{name}.json")
    from gpu_parts import fashion, kernels, sampling, speedrun, training

    stage = stage_of(options, quiet)
    parts: dict[str, Callable[[Stage], None]] = {
        "eager": training.eager,
        "choices": training.choices,
        "adm": training.adm,
        "graphs": training.graphs,
        "kernels": kernels.kernels,
        "recorded": training.recorded,
        "sampling": sampling.sampling,
        "speedrun": speedrun.speedrun,
        ALONE: fashion.fashion,
    }
    if name in parts:
        parts[name](stage)
    elif name == "small":
        for part in ("kernels", "recorded", "eager", "choices", "adm", "graphs", "sampling"):
            parts[part](stage)
        training.compiled(stage, "edm", 4)
    else:
        method = name.removeprefix("compiled-")
        training.compiled(stage, method, COMPILED[method])
    return 0


def set_cores_aside() -> tuple[int, ...]:
    """Keep this process and those that it starts off a quarter of the cores; which they are."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 8:
        return ()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[len(cores) // 4 :])
    return tuple(cores[: len(cores) // 4])


def _pytest(words: list[str], result: Path) -> int:
    """Run tests; what they have said so far is kept, the name of the one that runs included."""
    started, text = time.time(), ""
    command = [sys.executable, "-u", "-m", "pytest", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for chunk in iter(partial(process.stdout.read1, 65_536), b""):
            print(chunk.decode(errors="replace"), end="", flush=True)
            text += chunk.decode(errors="replace")
            said = [line.rstrip()[:300] for line in text.splitlines() if " PASSED " not in line]
            record = {"what": "pytest -m gpu", "seconds": time.time() - started, "end": said[-60:]}
            result.write_text(json.dumps([record]))
    return process.returncode


def main() -> int:
    options = parser(__doc__.splitlines()[0], seconds=470).parse_args()
    if options.part:
        return run_part(options.part, options)
    run = Run(options)
    run.install()
    beside = [*COMPILING, *BY_NAME, "small"]
    chosen = options.parts or [*TESTS, *LIMITS, *COMPILING, "speedrun"]
    if options.rehearse and not options.parts:  # the same parts in fewer processes
        beside, chosen = ["small"], [*TESTS, "small", "speedrun"]
    run.beside([n for n in TESTS if n in chosen], FOR_TESTS)
    run.lanes([n for n in LIMITS if n in chosen], [n for n in beside if n in chosen])
    if ALONE in chosen:
        run.beside([ALONE], options.seconds)
    if "speedrun" in chosen:
        run.beside(["speedrun"], options.seconds)
    return run.end()


if __name__ == "__main__":
    sys.exit(main())
