"""What the paper's table makes one expect of the digits, and whether it is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOISE = 0.5
"""A difference in FD that another seed of the training can turn round; see docs/digits.md."""


@dataclass(frozen=True)
class Relation:
    """One row is expected ahead of another.

    Args:
        statement: in words.
        better, worse: keys of the rows, the first with the smaller Fréchet distance.
        otherwise: why, where it is not so.
    """

    statement: str
    better: str
    worse: str
    otherwise: str = ""

    def verdict(self, fd: Mapping[str, float]) -> str:
        """Whether it holds with these distances."""
        a, b = fd[self.better], fd[self.worse]
        if a >= b:
            return "does not hold"
        return "holds" if b - a >= NOISE else "holds by less than a seed's noise"

    def sentence(self, fd: Mapping[str, float]) -> str:
        """What was expected, what was found, and why where they differ."""
        found = f"{fd[self.better]:.2f} against {fd[self.worse]:.2f}: {self.verdict(fd)}."
        why = f" {self.otherwise}" if fd[self.better] >= fd[self.worse] and self.otherwise else ""
        return f"{self.statement}, {found}{why}"


RELATIONS = (
    Relation("CD is ahead of PD in one step", "cd-heun-1", "pd-heun-1"),
    Relation("CD is ahead of PD in two steps", "cd-heun-2", "pd2-heun-2"),
    Relation("DPM-Solver-2 is ahead of DDIM in 12 evaluations", "edm-dpm2-12", "edm-ddim-12"),
    Relation("DPM-Solver-3 is ahead of DDIM in 12 evaluations", "edm-dpm3-12", "edm-ddim-12"),
    Relation("DPM-Solver++(2M) is ahead of DDIM in 10", "edm-dpmpp-2m-10", "edm-euler-10"),
    Relation("3-DEIS is ahead of DDIM in 10", "edm-deis-10", "edm-euler-10"),
    Relation("CD is ahead of CT in one step", "cd-heun-1", "ct-heun-1"),
    Relation("CD is ahead of CT in two steps", "cd-heun-2", "ct-heun-2"),
    Relation(
        "In continuous time CD is ahead of CT in one step",
        "continuous-cd-heun-1",
        "continuous-ct-heun-1",
        "This CT is not the paper's, which starts from random weights (and ends at five times the "
        "distance here): it starts from the same diffusion model as CD. What is left between them "
        "is the target. CD follows the teacher and inherits its errors; CT follows the data, with "
        "noisier gradients, and on so few and simple images the noise costs less. A second seed "
        "of both trainings says the same: 6.27 against 5.36.",
    ),
    Relation(
        "Distilling a rectified flow beats its one Euler step", "rf1-distill-heun-1", "rf1-euler-1"
    ),
    Relation(
        "Reflow straightens: one Euler step of the second flow beats the first's",
        "rf2-euler-1",
        "rf1-euler-1",
    ),
)
