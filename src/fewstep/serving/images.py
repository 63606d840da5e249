"""Pictures as they come in requests and go out in answers."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fewstep.data.images import with_settings
from fewstep.editing.masks import Marks, Mask, open_mask
from fewstep.editing.pictures import Picture, Size, read
from fewstep.editing.written import to_pil
from fewstep.errors import FewstepError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ALPHABET = str.maketrans("-_", "+/")
PIECE = 2**20


def png(pixels: Tensor, settings: dict[str, Any], profile: bytes | None = None) -> bytes:
    """uint8 [1 ... 4, H, W], or uint16 [1, H, W], as a PNG that carries its settings.

    Args:
        profile: colour profile to embed.
    """
    info = with_settings(settings)
    file, how = BytesIO(), {"icc_profile": profile} if profile else {}
    to_pil(pixels).save(file, format="PNG", pnginfo=info, compress_level=1, **how)
    return file.getvalue()


def base64_png(pixels: Tensor, settings: dict[str, Any], profile: bytes | None = None) -> str:
    """The same in base64."""
    return base64.b64encode(png(pixels, settings, profile)).decode()


def sheet(images: Sequence[Tensor]) -> Tensor:
    """Pictures of one size side by side in about a square [C, H, W]; white where there is none."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    C, H, W = images[0].shape
    white = torch.iinfo(images[0].dtype).max
    pixels = images[0].new_full((C, rows * H, columns * W), white)
    for i, image in enumerate(images):
        y, x = i // columns * H, i % columns * W
        pixels[:, y : y + H, x : x + W] = image
    return pixels


def scale_of(
    size: str | None, native: Size, pictures: int, most: int, whose: str = "the model's"
) -> int:
    """How many times as large as ``native`` (height, width) an answer's pictures are.

    Args:
        size: such as "WxH"; None and "auto" are just the native one.
        pictures: of the answer.
        most: pixels of all of them together.
        whose: the native size is, for the message.

    Raises:
        FewstepError: not WxH, too large, or no whole multiple: pixels are repeated, so that they
            stay sharp.
    """
    scale = 1 if size in (None, "auto") else _times(str(size), native, whose)
    H, W = (scale * side for side in native)
    if pictures * H * W > most:
        raise FewstepError(
            f"an answer of {pictures} x {W}x{H} pixels is too large: it has "
            f"{pictures * H * W:,}, and at most {most:,} are allowed."
        )
    return scale


def _times(size: str, native: Size, whose: str) -> int:
    width, _, height = size.partition("x")
    H, W = native
    if not (width.isdecimal() and height.isdecimal() and len(size) <= 11):
        raise FewstepError(f"size must be such as {8 * W}x{8 * H}, got {size!r}.")
    w, h = int(width), int(height)
    if not (w and w % W == 0 and h % H == 0 and w // W == h // H):
        raise FewstepError(f"size must be a whole multiple of {whose} {W}x{H}, got {size}.")
    return w // W


def enlarge(pixels: Tensor, scale: int) -> Tensor:
    """Each pixel of [..., H, W] ``scale`` x ``scale`` times."""
    if scale == 1:
        return pixels
    return pixels.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def from_base64(text: str, name: str) -> bytes:
    """Bytes of base64 as people send it.

    With or without the head of a data URL, line breaks and blanks, the last "=", and in either
    alphabet (+ and /, or - and _ of RFC 4648's Section 5).

    Raises:
        FewstepError: it is not base64.
    """
    body = text.lstrip("\ufeff \t\r\n")
    if body[:5].lower() == "data:":
        head, _, body = body.partition(",")
        if not head.lower().rstrip().endswith(";base64"):
            raise FewstepError(f"{name} is a data URL, but not one in base64.")
    try:
        return _decoded(body.rstrip("= \t\r\n"))
    except ValueError as error:
        raise FewstepError(f"{name} is not base64.") from error


def _decoded(text: str) -> bytes:
    """Bytes of base64 without its last "=", piece by piece, so that other threads have a turn.

    Raises:
        ValueError: it is not base64.
    """
    parts, rest = [], ""
    for start in range(0, len(text), PIECE):
        rest += "".join(text[start : start + PIECE].split()).translate(ALPHABET)
        if "=" in rest:
            raise ValueError("the end of base64 in its middle")
        whole = len(rest) - len(rest) % 4
        parts.append(base64.b64decode(rest[:whole], validate=True))
        rest = rest[whole:]
    parts.append(base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True))
    return b"".join(parts)


def picture(data: bytes, channels: int, most: int, name: str) -> Picture:
    """An uploaded picture; its header is looked at before anything is unpacked.

    Raises:
        FewstepError: not a still picture of a known format, or one of too many pixels.
    """
    _check(data, most, name)
    return read(data, channels, name)


def picture_of(data: bytes, channels: int, size: Size, name: str) -> Picture:
    """An uploaded picture of a known size; one of another is not unpacked.

    Raises:
        FewstepError: not a still picture of a known format, or one of another size.
    """
    H, W = size
    h, w = _size(data, name)
    found = None
    if h * w == H * W:  # a camera's picture may lie on its side
        found = read(data, channels, name)
        h, w = found.size
    if found is None or found.size != (H, W):
        raise FewstepError(f"{name} has {w}x{h} pixels, and the model's are {W}x{H}.")
    return found


def mask(data: bytes, most: int, name: str, marks: Marks | None) -> Mask:
    """An uploaded mask; where its transparency varies, what is transparent is generated."""
    _check(data, most, name)
    return open_mask(data, name, marks, layer="transparent")


def _check(data: bytes, most: int, name: str) -> None:
    height, width = _size(data, name)
    if width * height > most:
        raise FewstepError(
            f"{name} has {width}x{height} pixels; at most {most:,} pixels are allowed."
        )


def _size(data: bytes, name: str) -> Size:
    """Height and width that a picture's header tells."""
    if not data:
        raise FewstepError(f"cannot read {name}: empty file.")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            return height, width
    except Exception as error:  # Pillow's readers raise all kinds for damaged headers
        raise FewstepError(f"cannot read {name}: it is none of {', '.join(FORMATS)}.") from error
