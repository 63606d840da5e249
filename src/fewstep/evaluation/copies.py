"""Whether samples are copies of training images, beside how near new real images lie to these.

    r(x) = |x - x_1| / mean_(1 < k <= 50) |x - x_k|     x_1, x_2, ... training images, nearest first

A copy has a small `r`: it is near to one training image and far from the others. The distance alone
does not tell, because a smooth image is near to everything (Carlini et al. 2023, "Extracting
Training Data from Diffusion Models", Section 4.2). Held-out images tell which `r` is small: one in
a hundred of them lies below their threshold, and so it would be with samples that are as new. What
more of the samples lies below are copies. This is a test of three samples, as in Meehan et al.
2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models".

Images are compared by their pixels, averaged down to a side of at most 32. An original that was
shifted, turned or recoloured is not recognised; a mirrored one is where that is asked for.

Images that are others' own, equal in every pixel, are found by `pixel_keys`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fewstep.errors import FewstepError

CHUNK = 4096  # images turned into bytes at a time
SIDE = 32  # to which larger images are averaged down
NEIGHBOURS = 50  # training images that an image is compared with
MOST = 2000  # samples, and held-out images, that are looked at
TILE = 8192  # training images that are compared at a time
PART = 256  # images that are averaged down at a time
LEVEL = 0.01  # share of new images that look like copies
FEW = 100  # held-out images below which the threshold is their lowest, and says little
SURE = 3.0  # standard errors above chance
WORTH = 0.01  # share of copies that is worth being called so


class Nearest(NamedTuple):
    """The training image nearest to each of several images."""

    which: Tensor
    """Its number, int64 [n]."""
    distance: Tensor
    """Root mean square difference of the pixels, in 0..255: [n]."""
    relative: Tensor
    """The distance over the mean distance to the next 49: `r` [n], in 0..1."""


class Neighbour(NamedTuple):
    """A training image near to an image."""

    which: int
    """Its number."""
    distance: float
    """Root mean square difference of the pixels, in 0..255."""
    mirrored: bool
    """Whether it is near when it is mirrored."""


@dataclass(frozen=True)
class Memorisation:
    """How near samples lie to training images.

    Args:
        nearest: of each sample that was looked at.
        beside: of each held-out image.
        rows: which of the samples these are, int64 [n].
        whose: what the images are that stand for new ones, in words.
        leaked: share of the held-out images that are training images; they are left out.
    """

    nearest: Nearest
    beside: Nearest
    rows: Tensor
    whose: str
    leaked: float = 0.0

    @property
    def threshold(self) -> float:
        """The `r` below which an image looks like a copy."""
        k = self._below
        return float(self.beside.relative.kthvalue(k).values)

    @property
    def expected(self) -> float:
        """Share of new images below the threshold, `k / (N + 1)` for the k-th lowest of N."""
        return self._below / (len(self.beside.relative) + 1)

    @property
    def share(self) -> float:
        """Share of samples below the threshold."""
        return float((self.nearest.relative < self.threshold).double().mean())

    @property
    def copied(self) -> float:
        """Share of samples that are copies, `(share - expected) / (1 - expected)`, at least 0."""
        return max(0.0, (self.share - self.expected) / (1 - self.expected))

    @property
    def error(self) -> float:
        """Standard error of `share - expected` where nothing is copied."""
        p, n, N = self.expected, len(self.nearest.relative), len(self.beside.relative)
        return math.sqrt(p * (1 - p) * (1 / n + 1 / (N + 2)))

    @property
    def copies(self) -> bool:
        """Whether more of the samples are copies than 1 % and than chance explains."""
        return self.copied > WORTH and self.share - self.expected > SURE * self.error

    @property
    def _below(self) -> int:
        return max(1, math.floor(LEVEL * (len(self.beside.relative) + 1)))

    def pairs(self, n: int) -> list[tuple[int, int]]:
        """The `n` samples most like copies, each with its training image: numbers of both."""
        order = self.nearest.relative.argsort(stable=True)[:n]
        return list(zip(self.rows[order].tolist(), self.nearest.which[order].tolist(), strict=True))

    def record(self) -> dict[str, float | bool | str]:
        """What is worth keeping, as JSON values; distances are medians, in 0..255."""
        return {
            "distance": float(self.nearest.distance.median()),
            "distance_beside": float(self.beside.distance.median()),
            "beside": self.whose,
            "samples": len(self.rows),
            "new": len(self.beside.distance),
            "share": self.share,
            "expected": self.expected,
            "copied": self.copied,
            "copies": self.copies,
            "leaked": self.leaked,
        }

    def sentence(self) -> str:
        """What a reader should know, in plain words."""
        return " ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        ours, theirs = (float(x.distance.median()) for x in (self.nearest, self.beside))
        yield (
            f"A sample's nearest training image is {ours:.1f} of 255 grey levels away, that of "
            f"{self.whose} {theirs:.1f} (medians of root mean squares)."
        )
        yield (
            f"Of {len(self.beside.distance):,} {self.whose} {100 * self.expected:.1f} % look like "
            f"copies by chance, of {len(self.rows):,} samples {100 * self.share:.1f} %: "
            f"{self._verdict()}."
        )
        if len(self.beside.distance) < FEW:
            yield f"With fewer than {FEW} of these that is rough."
        if self.leaked:
            yield (
                f"{100 * self.leaked:.1f} % of the held-out images are training images themselves "
                "and were left out."
            )

    def _verdict(self) -> str:
        if not self.copies:
            return "no sign of copies"
        return f"about {100 * self.copied:.0f} % of the samples are copies of training images"


def memorisation(
    samples: Tensor, train: Tensor, held_out: Tensor | None = None, *, mirrored: bool = False
) -> Memorisation:
    """How near samples lie to training images, beside how near held-out images do.

    Of more than 2,000 samples or held-out images, 2,000 are looked at, evenly spaced.

    Args:
        samples: uint8 [n, C, H, W].
        train: the training images, uint8 [N, C, H, W].
        held_out: real images that the training has not seen, of the same shape. Without them the
            training images stand for them, each beside the others.
        mirrored: whether the training mirrors its images: a mirrored one is a copy, too.

    Raises:
        FewstepError: not such images, of different shapes, or too few of them.
    """
    for name, images in (("samples", samples), ("train", train), ("held_out", held_out)):
        if images is not None:
            _check(name, images, tuple(train.shape[1:]))
    rows = _spaced(len(samples))
    nearest = _nearest(samples[rows], train, mirrored)
    if held_out is None:
        apart = _spaced(len(train))
        beside = _nearest(train[apart], train, mirrored, apart)
        return Memorisation(nearest, beside, rows, "training images")
    beside = _nearest(held_out[_spaced(len(held_out))], train, mirrored)
    new = beside.distance > 0
    if not new.any():
        raise FewstepError("the held-out images are all among the training images.")
    beside = Nearest(*(values[new] for values in beside))
    return Memorisation(nearest, beside, rows, "held-out images", 1 - float(new.double().mean()))


def _check(name: str, images: Tensor, shape: tuple[int, ...]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != shape:
        raise FewstepError(
            f"memorisation compares uint8 images of one shape {list(shape)}; {name} are "
            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}."
        )
    fewest = 3 if name == "train" else 1
    if len(images) < fewest:
        raise FewstepError(
            f"memorisation needs {fewest} or more images of {name}, got {len(images)}."
        )


def _spaced(n: int) -> Tensor:
    """Numbers of at most 2,000 of `n` images, from the first to the last."""
    return torch.linspace(0, n - 1, min(n, MOST)).round().long()


def _nearest(images: Tensor, train: Tensor, mirrored: bool, own: Tensor | None = None) -> Nearest:
    """Their nearest training images, but not the one that each is itself (`own` [n])."""
    n, x = len(train), _pixels(images)
    squares, index = _closest(x, train, mirrored, own)
    first = index[:, 0]
    distance = (x - _pixels(_originals(train, first))).square().mean(1).sqrt()
    there = squares[:, 1:].isfinite()
    others = (squares[:, 1:].where(there, 0.0) / x.shape[1]).sqrt().sum(1) / there.sum(1)
    relative = torch.where(distance > 0, distance / others.maximum(distance), 0.0)
    return Nearest(first % n, distance, relative)


def neighbours_of(
    image: Tensor, train: Tensor, k: int, *, mirrored: bool = False
) -> list[Neighbour]:
    """The training images nearest to an image, the nearest first.

    Args:
        image: uint8 [C, H, W].
        train: uint8 [N, C, H, W].
        k: how many, at most half of `NEIGHBOURS`; fewer where there are fewer.
        mirrored: whether the training mirrors its images.

    Raises:
        FewstepError: not such images, or of different shapes.
    """
    _check("the image", image[None], tuple(train.shape[1:]))
    x = _pixels(image[None])
    _, index = _closest(x, train, mirrored)
    first = index[0].unique()  # in order of their numbers
    distances = (x - _pixels(_originals(train, first))).square().mean(1).sqrt()
    found: dict[int, Neighbour] = {}
    for at in distances.argsort(stable=True).tolist():
        which, flipped = int(first[at]) % len(train), int(first[at]) >= len(train)
        found.setdefault(which, Neighbour(which, float(distances[at]), flipped))
    return list(found.values())[:k]


def _originals(train: Tensor, which: Tensor) -> Tensor:
    """Training images [n, C, H, W] by number; those from N on are mirrored."""
    n = len(train)
    original = train[which % n]
    return torch.where((which >= n)[:, None, None, None], original.flip(-1), original)


def _closest(
    x: Tensor, train: Tensor, mirrored: bool, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Squared distances to the nearest training images, and their numbers: [n, k] each."""
    n = len(train)
    centre = x.mean(0)  # around it squared distances by products cancel least
    squares, index = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64)
    for at, part in _parts(train, mirrored):
        d = _squared_distances(x - centre, part - centre)
        if own is not None:
            d.masked_fill_(own[:, None] == (at + torch.arange(len(part))) % n, torch.inf)
        some = d.topk(min(NEIGHBOURS, len(part)), largest=False)
        squares, index = (
            torch.cat([squares, some.values], 1),
            torch.cat([index, some.indices + at], 1),
        )
        best = squares.topk(min(NEIGHBOURS, squares.shape[1]), largest=False)
        squares, index = best.values, index.gather(1, best.indices)
    return squares, index


def _parts(train: Tensor, mirrored: bool) -> Iterator[tuple[int, Tensor]]:
    """The pixels of some training images at a time, mirrored ones last, with the first's number."""
    for start in range(0, len(train), TILE):
        yield start, _pixels(train[start : start + TILE])
    for start in range(0, len(train) if mirrored else 0, TILE):
        yield len(train) + start, _pixels(train[start : start + TILE].flip(-1))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    d = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
    return d.add_(x.square().sum(1)[:, None]).clamp_(min=0)


def _pixels(images: Tensor) -> Tensor:
    """Images as rows of pixels [n, C h w], h and w at most 32."""
    h, w = (min(side, SIDE) for side in images.shape[2:])
    parts = images.split(PART)
    return torch.cat([adaptive_avg_pool2d(part.float(), (h, w)).flatten(1) for part in parts])


def pixel_keys(images: Tensor) -> Iterator[bytes]:
    """A key for each image uint8 [N, C, H, W], the same for the same pixels in the same shape."""
    for some in images.split(CHUNK):
        for row in some.contiguous().numpy():
            yield hashlib.blake2b(row.data, digest_size=16, key=repr(row.shape).encode()).digest()


def share_of_copies(images: Tensor, known: frozenset[bytes]) -> float:
    """Share of images [N, C, H, W] whose key is known, in 0..1."""
    return sum(key in known for key in pixel_keys(images)) / max(1, len(images))
