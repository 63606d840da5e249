"""The scores of a set of images, and which there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fewstep.errors import unknown

METRICS = {
    "fd": "Fréchet distance (FID over Inception features)",
    "is": "inception score",
    "pr": "precision and recall, k = 3",
    "dc": "density and coverage, k = 5",
    "kid": "kernel distance (KID) with its standard error",
    "sfd": "Fréchet distance of spatial features (sFID)",
    "fd_infinity": "Fréchet distance extrapolated to infinitely many images",
}
CITATIONS = {
    "fd": "heusel2017gans",
    "is": "salimans2016improved",
    "pr": "kynkaanniemi2019improved",
    "dc": "naeem2020reliable",
    "kid": "binkowski2018demystifying",
    "sfd": "nash2021generating",
    "fd_infinity": "chong2020effectively",
}
"""The paper of each."""
BASIC = ("fd", "is", "pr")


@dataclass(frozen=True)
class Scores:
    """The scores of a set of images; NaN for one that was not asked for or cannot be had.

    Args:
        n: number of images.
        fd: Fréchet distance to the reference; lower is better.
        inception_score: higher is better.
        inception_score_std: its deviation over the splits.
        precision: share of images that look real, in 0..1.
        recall: share of the reference that the images cover, in 0..1.
        compared: images on each side for the scores by neighbours and the kernel distance.
        class_accuracy: share of images that the classifier takes for their label.
        density: real neighbourhoods that an image lies in, over k; about 1 for real images.
        coverage: share of real neighbourhoods that hold an image, in 0..1.
        kid: kernel distance; lower is better.
        kid_error: its standard error.
        sfd: Fréchet distance of the spatial features.
        fd_infinity: Fréchet distance of infinitely many images.
        errors: bootstrap standard errors of other scores, by name.
        notes: what a reader should know before comparing these scores with others.
    """

    n: int
    fd: float = math.nan
    inception_score: float = math.nan
    inception_score_std: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    compared: int = 0
    class_accuracy: float | None = None
    density: float = math.nan
    coverage: float = math.nan
    kid: float = math.nan
    kid_error: float = math.nan
    sfd: float = math.nan
    fd_infinity: float = math.nan
    errors: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON has it: None for a score that there is not."""
        return {k: _plain(v) for k, v in asdict(self).items()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Scores:
        """What `record` gave.

        Raises:
            TypeError, ValueError, LookupError, AttributeError: something else.
        """
        given = dict(record)
        errors = {k: _number(v) for k, v in given.pop("errors", {}).items()}
        notes = tuple(map(str, given.pop("notes", ())))
        whole = {k: int(given.pop(k)) for k in ("n", "compared")}
        accuracy = given.pop("class_accuracy", None)
        scores: dict[str, Any] = {k: _number(v) for k, v in given.items()}
        scores["class_accuracy"] = None if accuracy is None else float(accuracy)
        return cls(**scores, **whole, errors=errors, notes=notes)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise `FewstepError` for a name that is not of `METRICS`."""
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
