"""Pictures of any size and kind, cut to what a model takes, and put together again.

A model sees a picture as it does the data (`fewstep.data.decode`): upright, 8 bits, transparency on
white. What an edit keeps is taken from the file's own values (`fewstep.editing.opened`).
It becomes images of the model's size by `cut`, and one picture of its own size by `join`:

- ``resize``: one image, stretched to the model's size and back;
- ``tile``: as many images as it takes side by side; a picture that they do not fill is continued by
  reflection, and cropped at the end. Each tile is edited by itself.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.data.decode import decode, probe
from fewstep.data.folder import ENDINGS
from fewstep.data.listing import list_files
from fewstep.editing.masks import Marks, Mask, open_mask
from fewstep.editing.opened import opened
from fewstep.editing.written import in_grey, save
from fewstep.errors import FewstepError, FewstepWarning, not_there
from fewstep.files import check_writable

Fit = Literal["resize", "tile"]
Size = tuple[int, int]
OPAQUE = 255


@dataclass(frozen=True)
class Picture:
    """A picture that was read, and what its result is called.

    Args:
        pixels: what a model sees, on white where it is transparent: uint8 [C, H, W].
        grey: whether the result is to be grey.
        name: its file's.
        hole: True where pixels are to be generated, bool [H, W]; only inpainting asks for it.
        came: the values of the file itself, which an edit keeps: uint8, or uint16 of 16 bits
            [1 ... 4, H, W], grey or RGB, with alpha as the last; default ``pixels``.
        profile: the embedded colour profile.
        notes: what was assumed of the picture or its mask, in sentences.
        lost: what cannot be kept of the picture, each as the end of a sentence.
    """

    pixels: Tensor
    grey: bool
    name: str
    hole: Tensor | None = None
    came: Tensor | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def values(self) -> Tensor:
        """What an edit keeps of it [1 ... 4, H, W]."""
        return self.pixels if self.came is None else self.came

    @property
    def colourful(self) -> bool:
        """Whether it shows a colour: RGB of equal values is grey."""
        values = self.values
        return len(values) >= 3 and not bool((values[1:3] == values[0]).all())

    @property
    def transparent(self) -> bool:
        """Whether a part of it is not opaque."""
        return len(self.values) in (2, 4) and bool((self.values[-1] < OPAQUE).any())

    def profile_of(self, pixels: Tensor) -> bytes | None:
        """The colour profile of a result [1 ... 4, H, W]; none where colour became grey."""
        return self.profile if (len(pixels) < 3) == (len(self.values) < 3) else None

    def masked(self, mask: Mask) -> Picture:
        """This picture with the hole of a mask, which may have another size.

        Raises:
            FewstepError: a mask of other proportions.
        """
        mask = mask.fitted(self.size, self.name)
        return replace(self, hole=mask.hole, notes=(*self.notes, *mask.notes))

    def like(self, pixels: Tensor) -> Tensor:
        """Generated pixels uint8 [1 or 3, H, W] in the channels and bits of `values`, opaque."""
        values = self.values
        colours = 1 if len(values) < 3 else 3
        plain = in_grey(pixels) if colours < len(pixels) else pixels.expand(colours, -1, -1)
        alpha = [torch.full_like(plain[:1], OPAQUE)] * (len(values) - colours)
        scale = 257 if values.dtype == torch.uint16 else 1
        return (torch.cat([plain, *alpha]).int() * scale).to(values.dtype)


def read_all(source: Path, channels: int) -> list[Picture]:
    """The picture of a file, or all of a folder in the order of their names.

    Hidden files, and what systems leave beside a user's own, are no pictures, as in data.

    Raises:
        FewstepError: nothing there, or a file that is not one still picture.
    """
    if not source.exists():
        raise not_there("picture or folder", source)
    if source.is_file():
        return [read(source, channels, source.name)]
    names = list_files(source, ENDINGS)
    if not names:
        raise FewstepError(f"{source} holds no pictures (names ending in {' '.join(ENDINGS)}).")
    return [read(source / name, channels, name) for name in names]


def read(source: Path | bytes, channels: int, name: str) -> Picture:
    """A file, or the bytes of one, converted to grey (1 channel) or colour (3).

    Raises:
        FewstepError: nothing there, or not one still picture.
    """
    with opened(source, name) as picture:
        grey = not probe(source)[2]
        pixels = torch.from_numpy(decode(source, None, channels).copy())
        return Picture(
            pixels,
            grey or channels == 1,
            name,
            came=picture.values(),
            profile=picture.profile(),
            lost=picture.lost(),
        )


def resized(pixels: Tensor, size: Size) -> Tensor:
    """uint8 [C, H, W] to [C, *size], bicubic with antialiasing."""
    if tuple(pixels.shape[1:]) == size:
        return pixels
    planes = [
        Image.fromarray(plane.numpy()).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        for plane in pixels
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))


def cut(pixels: Tensor, size: Size, fit: Fit) -> Tensor:
    """A picture [C, H, W] as images [n, C, *size]."""
    if fit == "resize":
        return resized(pixels, size)[None]
    (C, *_), (h, w) = pixels.shape, size
    (rows, above), (columns, left) = map(_padding, pixels.shape[1:], size)
    padded = np.pad(pixels.numpy(), ((0, 0), (0, above), (0, left)), mode="symmetric")
    tiles = torch.from_numpy(padded).reshape(C, rows, h, columns, w).permute(1, 3, 0, 2, 4)
    return tiles.reshape(rows * columns, C, h, w)


def _padding(length: int, tile: int) -> tuple[int, int]:
    """How many tiles cover a length, and by how much they are longer."""
    count = math.ceil(length / tile)
    return count, count * tile - length


def join(tiles: Tensor, size: Size, fit: Fit) -> Tensor:
    """Images [n, C, h, w] as one picture [C, *size]."""
    if fit == "resize":
        return resized(tiles[0], size)
    n, C, h, w = tiles.shape
    columns = math.ceil(size[1] / w)
    sheet = tiles.reshape(n // columns, columns, C, h, w).permute(2, 0, 3, 1, 4)
    return sheet.reshape(C, -1, columns * w)[:, : size[0], : size[1]]


def read_mask(source: Path | bytes, name: str, marks: Marks | None = None) -> Tensor:
    """A mask picture as bool [H, W], True where pixels are to be generated; see `open_mask`.

    Warns:
        FewstepWarning: what was assumed of it.
    """
    mask = open_mask(source, name, marks)
    for note in mask.notes:
        warnings.warn(note, FewstepWarning, stacklevel=2)
    return mask.hole


def check_out(out: Path, source: Path) -> None:
    """Raise `FewstepError` where the results cannot be written, before any work is done."""
    if source.is_dir():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise FewstepError(f"{out} is in the way: pictures of a folder go to a new folder.")
    elif out.suffix.lower() not in ENDINGS or out.is_dir():
        raise FewstepError(f"{out} is not the name of a picture: end it in {', '.join(ENDINGS)}.")
    elif out.exists() and source.exists() and out.samefile(source):
        raise FewstepError(f"{out} would overwrite the picture that it is made from.")
    check_writable(out)


def write_all(
    results: Sequence[tuple[Picture, Tensor]], out: Path, folder: bool, *, keeps: bool = False
) -> list[str]:
    """Pictures and their results [1 ... 4, H, W] into a new folder, or the only one into a file.

    Args:
        results: those.
        out: the folder or file.
        folder: which of both it is.
        keeps: whether results hold pixels of the pictures themselves.

    Returns:
        What the files cannot hold of the results, in sentences.
    """
    notes: dict[str, None] = {}
    with placed(out) as place:
        for picture, pixels in results:
            path = place_of(picture, place, folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            notes |= dict.fromkeys(save(pixels, path, picture.profile_of(pixels), keeps=keeps))
    return list(notes)


def place_of(picture: Picture, out: Path, folder: bool) -> Path:
    """Where the result for a picture goes: into the folder by its name, or into the file."""
    return out / picture.name if folder else out


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name at the end; removed after a failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield scratch / path.name
            os.replace(scratch / path.name, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error.strerror or error}.") from error
