"""Pictures as they come in requests and go out in answers."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fewstep.editing.masks import Marks, Mask, open_mask
from fewstep.editing.pictures import Picture, Size, read
from fewstep.editing.written import to_pil
from fewstep.errors import FewstepError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
CHUNK = "fewstep"
"""Key of the text chunk of a PNG that holds its settings as JSON."""


def png(pixels: Tensor, settings: dict[str, Any]) -> bytes:
    """uint8 [1 or 3, H, W] as a PNG that carries its settings."""
    info = PngInfo()
    info.add_itxt(CHUNK, json.dumps(settings))
    file = BytesIO()
    to_pil(pixels).save(file, format="PNG", pnginfo=info, compress_level=1)
    return file.getvalue()


def base64_png(pixels: Tensor, settings: dict[str, Any]) -> str:
    """The same in base64."""
    return base64.b64encode(png(pixels, settings)).decode()


def sheet(images: Sequence[Tensor]) -> Tensor:
    """Pictures of one size side by side in about a square [C, H, W]; white where there is none."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    C, H, W = images[0].shape
    pixels = torch.full((C, rows * H, columns * W), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * H, i % columns * W
        pixels[:, y : y + H, x : x + W] = image
    return pixels


def parse_size(size: str | None, native: Size, most: int) -> int:
    """How many times as large as the model's images ("WxH") the answer is; 1 for None.

    Raises:
        FewstepError: not WxH, too large, or no whole multiple: pixels are repeated, so that they
            stay sharp.
    """
    if size is None:
        return 1
    width, _, height = size.partition("x")
    H, W = native
    if not (width.isdecimal() and height.isdecimal() and len(size) <= 11):
        raise FewstepError(f"size must be such as {8 * W}x{8 * H}, got {size!r}.")
    w, h = int(width), int(height)
    if not (w and w % W == 0 and h % H == 0 and w // W == h // H):
        raise FewstepError(f"size must be a whole multiple of the model's {W}x{H}, got {size}.")
    if w * h > most:
        raise FewstepError(f"size {size} has {w * h:,} pixels; at most {most:,} are allowed.")
    return w // W


def enlarge(pixels: Tensor, scale: int) -> Tensor:
    """Each pixel of [..., H, W] ``scale`` x ``scale`` times."""
    if scale == 1:
        return pixels
    return pixels.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def from_base64(text: str, name: str) -> bytes:
    """Bytes of base64, with or without the head of a data URL.

    Raises:
        FewstepError: it is not base64.
    """
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FewstepError(f"{name} is not base64.") from error


def picture(data: bytes, channels: int, most: int, name: str) -> Picture:
    """An uploaded picture; its header is looked at before anything is unpacked.

    Raises:
        FewstepError: not a still picture of a known format, or one of too many pixels.
    """
    _check(data, most, name)
    return read(data, channels, name)


def mask(data: bytes, most: int, name: str, marks: Marks | None) -> Mask:
    """An uploaded mask; where its transparency varies, what is transparent is generated."""
    _check(data, most, name)
    return open_mask(data, name, marks, layer="transparent")


def _check(data: bytes, most: int, name: str) -> None:
    if not data:
        raise FewstepError(f"cannot read {name}: empty file.")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Exception as error:  # Pillow's readers raise all kinds for damaged headers
        raise FewstepError(f"cannot read {name}: it is none of {', '.join(FORMATS)}.") from error
    if width * height > most:
        raise FewstepError(
            f"{name} has {width}x{height} pixels; at most {most:,} pixels are allowed."
        )
