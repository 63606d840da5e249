"""ECT, sCM and MeanFlow from one EDM teacher, equal seconds each: see benchmarks/gpu.md.

    python benchmarks/gpu_methods.py --out results --carried packed    # on a machine with a GPU
    python benchmarks/gpu_methods.py --rehearse --out /tmp/x           # the same, tiny, on the CPU

Networks of some 5 million weights on CIFAR-10, scored in one step and in two by the Frechet
distance over a ResNet-56's features. The teacher is trained first, then each method in a process of
its own with a time limit of its own, one after another. Writes gpu_methods.json, gpu_methods.md and
log.txt, after each part anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from gpu_parts.runner import END, Runner, parser, stage_of

TEACHER, REHEARSAL = "teacher", "rehearsal"
METHODS = ["ect", "scd", "meanflow"]
BY_NAME = ["sct"]  # sCM from data, from the teacher's weights as the others
SHARE = 0.34  # of the seconds, for the teacher
AROUND = 32.0  # seconds of a part besides training: its start, the images, the scores


class Race(Runner):
    """The teacher, then the methods."""

    def all(self, chosen: list[str], kept: Path | None) -> None:
        """Train and score, one part after another.

        Args:
            chosen: the methods.
            kept: a teacher of an earlier race, in the place of one that is trained.
        """
        limit, methods = self.limits(len(chosen), trains=kept is None)
        if kept is not None:
            shutil.copyfile(kept, self.work / f"{TEACHER}.safetensors")
        else:
            self.part(TEACHER, limit)
            self.keep()
        for name in chosen:
            self.part(name, methods)

    def limits(self, n: int, *, trains: bool) -> tuple[float, float]:
        """Seconds of the teacher and of each of ``n`` methods, start and scores included."""
        whole = self.options.seconds - END
        teacher = SHARE * whole if trains else 0.0
        return teacher, (whole - teacher) / n

    def part(self, name: str, limit: float) -> None:
        self.beside([name], limit, "--train", f"{max(5.0, limit - AROUND):.1f}")

    def keep(self) -> None:
        """The teacher goes where the results are, for methods that are raced later."""
        made = self.work / f"{TEACHER}.safetensors"
        if made.exists():
            shutil.copyfile(made, self.out / made.name)

    def said(self, whole: dict[str, Any]) -> str:
        return _table(whole) + "\n" + super().said(whole)


def _table(whole: dict[str, Any]) -> str:
    """The scores of each method, in one step and in two."""
    lines = ["| method | seconds | steps | FD, 1 step | FD, 2 steps |", "|---|---:|---:|---:|---:|"]
    records = [record for part in whole["parts"].values() for record in part]
    for name in (*METHODS, *BY_NAME):
        for r in [r for r in records if r["what"] == name and "fd 2 steps" in r][-1:]:
            numbers = f"{r['training_s']:.0f} | {r['steps']} | "
            numbers += f"{r['fd 1 step']:.2f} | {r['fd 2 steps']:.2f}"
            lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines) + "\n"


def run_part(options: argparse.Namespace) -> int:
    """Work on a part in this process."""
    from gpu_parts import methods

    stage = stage_of(options)
    if options.part == REHEARSAL:
        methods.rehearse(stage, METHODS)
    elif options.part == TEACHER:
        methods.teacher(stage, options.train)
    else:
        methods.method(stage, options.part, options.train)
    return 0


def main() -> int:
    line = parser(__doc__.splitlines()[0], seconds=570)
    line.add_argument("--teacher", type=Path, help="of an earlier race, teacher.safetensors")
    line.add_argument("--train", type=float, default=0.0, help=argparse.SUPPRESS)
    options = line.parse_args()
    if options.part:
        return run_part(options)
    chosen = options.parts or METHODS
    if unknown := {*chosen} - {*METHODS, *BY_NAME}:
        line.error(f"unknown {', '.join(sorted(unknown))}: {', '.join([*METHODS, *BY_NAME])}")
    race = Race(Path(__file__), options)
    race.install()
    if options.rehearse and not options.parts:  # the same parts in one process
        race.part(REHEARSAL, options.seconds)
    else:
        race.all(chosen, options.teacher)
    return race.end()


if __name__ == "__main__":
    sys.exit(main())
