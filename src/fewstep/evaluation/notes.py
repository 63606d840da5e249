"""What a reader should know before comparing a set of images with others, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from fewstep.evaluation.reference import Reference

FEW = 2048  # below so many images a Fréchet distance over Inception features is hardly comparable
UNEVEN = 0.1  # total variation between class proportions that is worth a remark
COPIES = 0.01  # share of images of the reference among those scored that is worth one
NEEDED = {"fd": 2, "sfd": 2, "pr": 4, "dc": 6, "kid": 4, "fd_infinity": 20}
"""Fewest images, on each side, of which a metric can be had; 1 for others."""


def on_counts(n: int, reference: Reference) -> Iterator[str]:
    """Numbers of images at which a Fréchet distance is too high, or not comparable."""
    D = len(reference.moments.mean)
    fewest, whose = n, "images"
    if reference.n is not None and reference.n < n:
        fewest, whose = reference.n, "reference images"
    if fewest <= D:
        yield (
            f"{fewest} {whose} for {D} features: their covariance is singular, and the "
            f"Fréchet distance is too high. Use more than {max(D, FEW)}."
        )
    elif fewest < FEW <= 2 * D:
        yield f"{fewest} {whose}: with fewer than {FEW} the Fréchet distance is too high."
    if reference.n is not None and n < reference.n // 2:
        yield (
            f"{n} images against {reference.n}: fewer images have a larger Fréchet "
            "distance; compare at equal numbers, or read fd_infinity."
        )


def on_extrapolation(n: int, D: int, metrics: Sequence[str]) -> Iterator[str]:
    """Numbers of images whose Fréchet distances are no line over ``1/n``."""
    if "fd_infinity" in metrics and NEEDED["fd_infinity"] <= n < 4 * D:
        yield (
            f"fd_infinity is too low: halves of {n} images are fewer than twice {D} features. Use "
            f"{4 * D} or more."
        )


def on_proportions(labels: Tensor | None, reference: Tensor | None) -> Iterator[str]:
    """Classes that are not as frequent as in the reference; -1 is a class that it lacks."""
    if labels is None or reference is None:
        return
    apart = _total_variation(labels + 1, reference + 1)
    if apart > UNEVEN:
        yield (
            f"{100 * apart:.0f} % of the images would have to change class to match the "
            "reference's proportions: part of the distance is that."
        )


def on_missing(n: int, metrics: Sequence[str]) -> Iterator[str]:
    """Scores that so few images do not have."""
    missing = [f"{m} (from {NEEDED[m]})" for m in metrics if n < NEEDED.get(m, 1)]
    if missing:
        yield f"{n} images are too few for {', '.join(missing)}: left out."


def on_copies(share: float) -> Iterator[str]:
    """Images that are the reference's own."""
    if share == 1:
        yield "every image is one of the reference: it is scored against itself."
    elif share >= COPIES:
        yield f"{100 * share:.0f} % of the images are images of the reference, pixel by pixel."


def _total_variation(a: Tensor, b: Tensor) -> float:
    size = int(max(a.max(), b.max())) + 1
    p, q = (x.bincount(minlength=size).double() / len(x) for x in (a, b))
    return float((p - q).abs().sum() / 2)
