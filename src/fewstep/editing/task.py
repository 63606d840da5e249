"""What every edit of pictures is, of any size.

A task cuts pictures to images of the model's size, edits all of them as one batch, and puts each
picture together again at its own size. Pixels that a task says it keeps are copied from the
picture as it came, so that they stay as they are to the bit, with their colours, transparency and
16 bits. What is lost of a picture is said by `Task.notes`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.data import to_float, to_uint8
from fewstep.editing.batches import Progress
from fewstep.editing.pictures import Fit, Picture, Size, cut, join
from fewstep.editing.written import in_grey
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.progress import progress

MOST_PIXELS = 2**28  # of all results for a picture
MOST_STEPS = 10_000


@dataclass(frozen=True)
class How:
    """How an edit is drawn.

    Args:
        n: results per picture, each with noise of its own.
        steps: network evaluations; default the task's.
        taus: decreasing times, instead of steps.
        seed: decides the noise.
        label: class of all results; for conditional models alone.
        embedding: what all results are to show [1, ...]; for models that are told embeddings.
        batch: images at once; a matter of memory and speed only.
        advance: called with the number of images that each batch added; default a bar.
    """

    n: int = 1
    steps: int | None = None
    taus: tuple[float, ...] | None = None
    seed: int = 0
    label: int | None = None
    embedding: Tensor | None = field(default=None, compare=False)
    batch: int = 256
    advance: Progress | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise FewstepError(f"the number of results must be at least 1, got n={self.n}.")
        if self.steps is not None and self.steps > MOST_STEPS:
            raise FewstepError(f"editing takes at most {MOST_STEPS:,} steps, got {self.steps}.")
        if self.taus is not None and self.steps not in (None, len(self.taus)):
            raise FewstepError(f"{self.steps} steps take {self.steps} taus, not {len(self.taus)}.")


class Task(ABC):
    """One way to edit pictures."""

    default_steps: int = 8
    fits: tuple[Fit, ...] = ("resize", "tile")
    """Ways to bring a picture to the model's size that make sense, the default first."""
    fit: Fit
    keeps: ClassVar[bool] = False
    """Whether the result holds pixels of the picture itself."""
    colours: ClassVar[bool] = True
    """Whether the picture's colours matter."""

    def check_fit(self) -> None:
        """Raise `FewstepError` for a way to fit pictures that the task does not have."""
        if self.fit not in self.fits:
            raise FewstepError(f"fit must be {' or '.join(self.fits)}, got {self.fit!r}.")

    def channels(self, f: FlowMap) -> int:
        """Channels to read pictures with.

        Raises:
            FewstepError: the model cannot do this task.
        """
        return f.shape[0]

    def parts(self, f: FlowMap, size: Size) -> int:
        """Images of the model's size that a picture of a size is cut into."""
        return math.prod(map(_tiles, size, self.seen(f))) if self.fit == "tile" else 1

    def seen(self, f: FlowMap) -> Size:
        """Height and width of what one image of the model covers of a picture's tile."""
        return size_of(f)

    def result_size(self, f: FlowMap, size: Size) -> Size:
        """Height and width of the result for a picture of a size."""
        return size

    def check_size(self, f: FlowMap, p: Picture, n: int) -> None:
        """Raise `FewstepError` where ``n`` results for a picture are too large to be made."""
        height, width = self.result_size(f, p.size)
        if n * height * width > MOST_PIXELS:
            raise FewstepError(
                f"{n} of {width}x{height} pixels, the result for {p.name}, are more than "
                f"{MOST_PIXELS:,}: take a smaller picture, factor, margin or number."
            )

    def images(self, f: FlowMap, p: Picture) -> Tensor:
        """A picture as the images that the model edits: [n, *f.shape] in [-1, 1]."""
        return to_float(cut(p.pixels, size_of(f), self.fit))

    @abstractmethod
    def edit(self, f: FlowMap, y: Tensor, pictures: Sequence[Picture], **how: Any) -> Tensor:
        """The images of all pictures [n, *f.shape], edited."""

    def picture(self, f: FlowMap, p: Picture, x: Tensor) -> Tensor:
        """The result for a picture [1 ... 4, H, W], from its edited images uint8 [n, C, h, w].

        Grey for a picture that was grey.
        """
        pixels = join(x, p.size, self.fit)
        return in_grey(pixels) if p.grey else pixels

    def notes(self, f: FlowMap, p: Picture) -> list[str]:
        """What was assumed of a picture and its mask, and what is lost of it, in sentences."""
        return lost_of(f, p, keeps=self.keeps, colours=self.colours)

    def times(self, how: How) -> dict[str, Any]:
        """How many steps, or which times, as the editing functions take them."""
        if how.taus is not None:
            return {"taus": how.taus}
        return {"steps": self.default_steps if how.steps is None else how.steps}

    def evaluations(self, how: How) -> int:
        """Network evaluations of each image."""
        return len(how.taus) if how.taus is not None else self.times(how)["steps"]

    def __call__(
        self, f: FlowMap, pictures: Sequence[Picture], how: How | None = None
    ) -> list[list[Tensor]]:
        """Edit pictures that were read with `channels`.

        Returns:
            ``how.n`` results uint8 [1 or 3, H, W] for each picture; where a task keeps pixels, in
            the channels and bits of `Picture.values`.

        Raises:
            FewstepError: the model, a picture or the settings do not fit.
        """
        how = how or How()
        self.channels(f)
        for p in pictures:
            self.check_size(f, p, how.n)
        parts = [self.images(f, p).repeat(how.n, 1, 1, 1) for p in pictures]
        y = torch.cat(parts)
        told = {"labels": how.label, "embedding": how.embedding}
        options = {"seed": how.seed, "batch": how.batch, **told, **self.times(how)}
        repeated = [p for p in pictures for _ in range(how.n)]
        with progress("editing", len(y)) as bar:
            x = to_uint8(self.edit(f, y, repeated, progress=how.advance or bar, **options))
        return [
            [self.picture(f, p, some) for some in part.chunk(how.n)]
            for p, part in zip(pictures, x.split([len(part) for part in parts]), strict=True)
        ]


def lost_of(f: FlowMap, p: Picture, *, keeps: bool = False, colours: bool = True) -> list[str]:
    """What was assumed of a picture that a model sees, and what is lost of it, in sentences.

    Args:
        keeps: whether the result holds pixels of the picture itself.
        colours: whether the picture's colours matter.
    """
    grey = "what is generated" if keeps else "the result"
    lost = {
        f"is in colour, but the model makes grey images: {grey} is grey": colours
        and f.image_shape[0] == 1
        and p.colourful,
        "is transparent in parts, which become white": not keeps and p.transparent,
        "has 16 bits, of which 8 are kept": not keeps and p.values.dtype == torch.uint16,
    }
    ends = [*p.lost, *(what for what, so in lost.items() if so)]
    return [*p.notes, *(f"{p.name} {end}." for end in ends)]


def size_of(f: FlowMap) -> Size:
    """Height and width of a model's images."""
    return f.shape[1], f.shape[2]


def _tiles(length: int, tile: int) -> int:
    return -(-length // tile)
