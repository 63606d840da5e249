"""What the papers reached: Tables 1 and 2 of Song, Dhariwal, Chen, Sutskever 2023.

``published.csv`` holds every line of the two tables: figures of the papers that it names, as that
paper quotes them. They are of other networks and millions of images, and scored with Inception:
they stand beside the digits' for their order, not for their size.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DATASETS = {
    "cifar10": "CIFAR-10",
    "imagenet64": "ImageNet 64x64",
    "lsun_bedroom256": "LSUN Bedroom 256x256",
    "lsun_cat256": "LSUN Cat 256x256",
}


@dataclass(frozen=True)
class Published:
    """One line of the paper's tables.

    Args:
        dataset: key of `DATASETS`.
        group: sampler, distillation or direct generation.
        method, reference: who did it.
        nfe: network evaluations per image.
        fid, inception_score, precision, recall: the scores, None where the paper has none.
        note: what else the paper says of it.
    """

    dataset: str
    group: str
    method: str
    reference: str
    nfe: int
    fid: float
    inception_score: float | None
    precision: float | None
    recall: float | None
    note: str


@cache
def published() -> tuple[Published, ...]:
    """Every line, in the paper's order."""
    text = files("fewstep.report").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_line(row) for row in csv.DictReader(text.splitlines()))


def _line(row: dict[str, str]) -> Published:
    def score(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return Published(
        row["dataset"],
        row["group"],
        row["method"],
        row["reference"],
        int(row["nfe"]),
        float(row["fid"]),
        score("inception_score"),
        score("precision"),
        score("recall"),
        row["note"],
    )


def find(dataset: str, method: str, nfe: int) -> Published:
    """The line of a method at its evaluations."""
    return next(p for p in published() if (p.dataset, p.method, p.nfe) == (dataset, method, nfe))
