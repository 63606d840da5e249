"""How pictures of any shape become images of one: cropped, padded, stretched, or cut into tiles.

    crop      the square in the middle                       resized to `size`
    content   the square with the most detail                resized to `size`
    pad       the whole picture, its longer side `size`      what it does not fill repeats its edges
    stretch   the whole picture                              resized to `size`, out of proportion
    tile      squares of `size`, which cover the picture     not resized

Detail is the sum of the differences between neighbouring pixels of the grey picture, its shorter
side reduced to 64; of squares with equally much the one nearest to the middle is taken. Where all
padded pictures are of one shape nothing is filled: images then are not square. Tiles are spread
evenly from edge to edge and overlap where they do not divide a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from fewstep.errors import FewstepError
from fewstep.fit_name import FitName

GAP = 2.0  # sides are averaged down to so many times the wanted ones before they are filtered
REDUCED = 64  # the shorter side of a picture whose detail is measured
Size = tuple[int, int]
"""Height and width."""


class OutOfCanvas(FewstepError):
    """Pictures that the canvas that was asked for does not hold."""


class Fit(Protocol):
    """A way from an upright picture to an image of the wanted size."""

    def cut(self, image: Image.Image) -> Image.Image:
        """What is looked at, before colours are converted."""

    def sized(self, image: Image.Image, own: Size) -> Image.Image:
        """That, grey or RGB, in the wanted size.

        Args:
            image: may have been reduced while it was decoded.
            own: height and width of the whole picture before that.
        """


class Whole:
    """As it is."""

    def cut(self, image: Image.Image) -> Image.Image:
        return image

    def sized(self, image: Image.Image, own: Size) -> Image.Image:
        return image


@dataclass(frozen=True)
class Stretch(Whole):
    """The whole picture, out of proportion, to a square."""

    size: int

    def sized(self, image: Image.Image, own: Size) -> Image.Image:
        return resized(image, (self.size, self.size))


class Crop(Stretch):
    """The square in the middle."""

    def cut(self, image: Image.Image) -> Image.Image:
        return square(image, abs(image.width - image.height) // 2)


class Content(Stretch):
    """The square with the most detail."""

    def sized(self, image: Image.Image, own: Size) -> Image.Image:
        return super().sized(square(image, start_of_detail(image)), own)


@dataclass(frozen=True)
class Pad(Whole):
    """The whole picture in the middle of a canvas, which repeats its edges.

    Args:
        canvas: height and width of the images.
        size: the longer side of a picture; None to leave it as it is.
    """

    canvas: Size
    size: int | None

    def sized(self, image: Image.Image, own: Size) -> Image.Image:
        image = resized(image, scaled(own, self.size))
        h, w = self.canvas[0] - image.height, self.canvas[1] - image.width
        if not h and not w:
            return image
        pixels = np.asarray(image)
        room = ((h // 2, h - h // 2), (w // 2, w - w // 2), (0, 0))[: pixels.ndim]
        return Image.fromarray(np.pad(pixels, room, mode="edge"))


SQUARE: dict[str, type[Stretch]] = {"crop": Crop, "content": Content, "stretch": Stretch}


def fit_of(name: FitName, size: int | None, canvas: Size) -> Fit:
    """The fit of a name; images are of the canvas' size. Tiles are cut before."""
    if name == "pad":
        return Pad(canvas, size)
    return Whole() if size is None or name == "tile" else SQUARE[name](size)


def resized(image: Image.Image, size: Size) -> Image.Image:
    """Of a height and width, averaged down and filtered bicubically."""
    if (image.height, image.width) == size:
        return image
    return image.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=GAP)


def scaled(size: Size, longer: int | None) -> Size:
    """Height and width in the same proportion with a given longer side, each at least 1."""
    if longer is None:
        return size
    height, width = (max(1, round(side * longer / max(size))) for side in size)
    return height, width


def canvas_of(sizes: Iterable[Size], longer: int | None) -> tuple[Size, bool]:
    """The smallest canvas for all pictures, and whether some of them do not fill it."""
    every = {scaled(size, longer) for size in sizes}
    canvas = max(h for h, _ in every), max(w for _, w in every)
    return canvas, every != {canvas}


def square(image: Image.Image, start: int) -> Image.Image:
    """The square of the shorter side that begins at a place of the longer one."""
    side = min(image.size)
    if image.width == image.height:
        return image
    left, top = (start, 0) if image.width > image.height else (0, start)
    return image.crop((left, top, left + side, top + side))


def start_of_detail(image: Image.Image) -> int:
    """Where the square with the most detail begins on the longer side."""
    spare = max(image.size) - min(image.size)
    if not spare:
        return 0
    factor = max(1, min(image.size) // REDUCED)
    grey = np.asarray(image.convert("L").reduce(factor), dtype=np.float64)
    if grey.shape[0] > grey.shape[1]:
        grey = grey.T
    detail = np.zeros(grey.shape[1])
    detail[1:] += np.abs(np.diff(grey, axis=1)).sum(0)
    detail += np.abs(np.diff(grey, axis=0)).sum(0)
    within = np.convolve(detail, np.ones(grey.shape[0]), "valid").round(6)
    starts = np.flatnonzero(within == within.max())
    middle = (len(within) - 1) / 2
    best = starts[np.abs(starts - middle).argmin()]
    return round(best / max(1, len(within) - 1) * spare)


def tile_starts(side: int, size: int) -> list[int]:
    """Where tiles begin that cover a side evenly, from its first pixel to its last."""
    count = math.ceil(side / size)
    return np.linspace(0, side - size, count).round().astype(int).tolist()
