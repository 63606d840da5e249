"""ECT, sCM and MeanFlow from one EDM teacher, equal seconds each: see benchmarks/gpu.md.

    python benchmarks/gpu_methods.py --out results --carried packed    # on a machine with a GPU
    python benchmarks/gpu_methods.py --rehearse --out /tmp/x           # the same, tiny, on the CPU

Networks of some 5 million weights on CIFAR-10, scored in one step and in two by the Frechet
distance over a ResNet-56's features. The teacher is trained first, then each method, in one process
that reads the images once. Writes gpu_methods.json, gpu_methods.md, log.txt and the weights of the
teacher.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from gpu_parts.runner import TEACHER, Runner, parser, stage_of

METHODS = ["ect", "scd", "meanflow"]
BY_NAME = ["sct"]  # sCM from data, from the teacher's weights as the others
RACE = "race"


class Race(Runner):
    """The teacher, then the methods, in one part."""

    def said(self, whole: dict[str, Any]) -> str:
        return _table(whole) + "\n" + super().said(whole)

    def keep(self) -> None:
        """The teacher goes where the results are, for methods that are raced later."""
        made = self.work / TEACHER
        if made.exists():
            shutil.copyfile(made, self.out / made.name)


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


def main() -> int:
    line = parser(__doc__.splitlines()[0], seconds=570)
    line.add_argument("--teacher", type=Path, help="of an earlier race, teacher.safetensors")
    options = line.parse_args()
    chosen = options.parts or METHODS
    if unknown := {*chosen} - {*METHODS, *BY_NAME}:
        line.error(f"unknown {', '.join(sorted(unknown))}: {', '.join([*METHODS, *BY_NAME])}")
    if options.part:
        from gpu_parts import methods

        methods.race(stage_of(options), chosen, options.teacher)
        return 0
    race = Race(Path(__file__), options)
    race.install()
    words = ["--parts", *chosen]
    if options.teacher is not None:
        words += ["--teacher", str(options.teacher.resolve())]
    race.beside([RACE], options.seconds, *words)
    race.keep()
    return race.end()


if __name__ == "__main__":
    sys.exit(main())
