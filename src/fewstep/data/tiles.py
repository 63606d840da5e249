"""Pictures cut into tiles: see `fewstep.data.fits`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fewstep.data.build import Item, Request, Source, headers, in_order
from fewstep.data.decode import decode
from fewstep.data.fits import Size, tile_starts
from fewstep.errors import FewstepError


def tiled(source: Source, request: Request) -> tuple[Source, Request]:
    """The tiles of a collection where they are asked for, else the collection itself.

    Returns:
        That, and the request with the channels that the whole collection has.

    Raises:
        FewstepError: a picture that is smaller than a tile.
    """
    if request.fit != "tile":
        return source, request
    assert request.size is not None
    found = list(headers(source))
    colour = any(one is not None and one[2] for one in found)
    channels = request.channels or (3 if colour else 1)
    sizes = [None if one is None else one[:2] for one in found]
    _check_large(source, sizes, request.size)
    return Tiles(source, request.size, channels, sizes), request._replace(channels=channels)


def _check_large(source: Source, sizes: Sequence[Size | None], least: int) -> None:
    for item, size in zip(source, sizes, strict=True):
        if size is not None and min(size) < least:
            raise FewstepError(
                f"{source.origin}: {item.name} is {size[1]}x{size[0]}, smaller than a tile of "
                f"{least}: choose a smaller --size, or leave it out"
            )


@dataclass
class Tiles:
    """The tiles of all pictures, row by row (a `Source`).

    A picture is decoded once. One that cannot be is given on as it is, to be named by `build`.
    """

    source: Source
    size: int
    channels: int
    sizes: Sequence[Size | None]

    def __post_init__(self) -> None:
        of = self.source
        self.name, self.origin, self.classes = of.name, of.origin, of.classes

    def __len__(self) -> int:
        return sum(1 if size is None else len(self._places(size)) for size in self.sizes)

    def __iter__(self) -> Iterator[Item]:
        numbered = enumerate(zip(self.source, self.sizes, strict=True))
        for some in in_order(self._cut, numbered):
            yield from some

    def _cut(self, numbered: tuple[int, tuple[Item, Size | None]]) -> list[Item]:
        number, (item, size) = numbered
        pixels = None if size is None else self._decoded(item)
        if size is None or pixels is None:
            return [item._replace(picture=number)]
        return [
            Item(f"{item.name} at {left},{top}", self._tile(pixels, top, left), item.label, number)
            for top, left in self._places(size)
        ]

    def _tile(self, pixels: np.ndarray, top: int, left: int) -> np.ndarray:
        return pixels[:, top : top + self.size, left : left + self.size]

    def _decoded(self, item: Item) -> np.ndarray | None:
        try:
            return decode(item.data, None, self.channels)
        except Exception:  # damaged bytes make Pillow raise nearly anything
            return None

    def _places(self, size: Size) -> list[tuple[int, int]]:
        rows, columns = (tile_starts(side, self.size) for side in size)
        return [(top, left) for top in rows for left in columns]
