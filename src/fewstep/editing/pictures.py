"""Pictures of any size and kind, cut to what a model takes, and put together again.

A picture is read as the data are (`fewstep.data.decode`): upright, 8 bits, transparency on white.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.data.decode import decode, probe, reason
from fewstep.data.folder import ENDINGS
from fewstep.errors import FewstepError, not_there

Fit = Literal["resize", "tile"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """A picture that was read: uint8 [C, H, W], and what its result is called.

    ``hole`` is True where pixels are to be generated, bool [H, W]; only inpainting asks for it.
    """

    pixels: Tensor
    grey: bool
    name: str
    hole: Tensor | None = None

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]


def read_all(source: Path, channels: int) -> list[Picture]:
    """The picture of a file, or all of a folder in the order of their names.

    Raises:
        FewstepError: nothing there, or a file that is not one still picture.
    """
    if not source.exists():
        raise not_there("picture or folder", source)
    if source.is_file():
        return [read(source, channels, source.name)]
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in ENDINGS and _visible(p))
    if not paths:
        raise FewstepError(f"{source} holds no pictures (names ending in {' '.join(ENDINGS)}).")
    return [read(path, channels, str(path.relative_to(source))) for path in paths]


def _visible(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def read(source: Path | bytes, channels: int, name: str) -> Picture:
    """A file, or the bytes of one, converted to grey (1 channel) or colour (3).

    Raises:
        FewstepError: nothing there, or not one still picture.
    """
    if isinstance(source, Path) and not source.is_file():
        raise not_there("picture", source)
    what = source if isinstance(source, Path) else name
    try:
        grey = not probe(source)[2]
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            frames = getattr(image, "n_frames", 1)
        pixels = decode(source, None, channels)
    except Exception as error:
        raise FewstepError(f"cannot read {what}: {reason(error)}.") from error
    if frames > 1:
        raise FewstepError(f"{what} has {frames} frames: give one still picture.")
    return Picture(torch.from_numpy(pixels.copy()), grey or channels == 1, name)


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


def read_mask(source: Path | bytes, name: str) -> Tensor:
    """A mask picture as bool [H, W], True where it is bright: to be generated."""
    return read(source, 1, name).pixels[0] >= 128


def check_out(out: Path, source: Path) -> None:
    """Raise `FewstepError` where the results cannot be written, before any work is done."""
    above = next(parent for parent in out.parents if parent.exists())
    if not above.is_dir():
        raise FewstepError(f"cannot write {out}: {above} is not a folder.")
    if source.is_dir():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise FewstepError(f"{out} is in the way: pictures of a folder go to a new folder.")
    elif out.suffix.lower() not in ENDINGS or out.is_dir():
        raise FewstepError(f"{out} is not the name of a picture: end it in {', '.join(ENDINGS)}.")
    elif out.exists() and source.exists() and out.samefile(source):
        raise FewstepError(f"{out} would overwrite the picture that it is made from.")


def write_all(results: Sequence[tuple[str, Tensor]], out: Path, folder: bool) -> None:
    """Names and pixels, uint8 [1 or 3, H, W], into a new folder, or the only one into a file."""
    with placed(out) as place:
        for name, pixels in results:
            path = place / name if folder else place
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(to_pil(pixels), path)


def to_pil(pixels: Tensor) -> Image.Image:
    """uint8 [1 or 3, H, W] as Pillow has it."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def in_grey(pixels: Tensor) -> Tensor:
    """uint8 [1 or 3, H, W] to [1, H, W]; equal colours keep their value."""
    return torch.from_numpy(np.asarray(to_pil(pixels).convert("L")).copy())[None]


def _save(image: Image.Image, path: Path) -> None:
    """Without loss where the format can."""
    ending = path.suffix.lower()
    if ending in (".jpg", ".jpeg"):
        image.save(path, quality=95)
    elif ending == ".webp":
        image.save(path, lossless=True)
    else:
        image.save(path)


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
