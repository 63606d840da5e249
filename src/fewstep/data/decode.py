"""One picture file to one array: orientation, crop, colour, size.

In this order: the EXIF orientation is applied, the centre is cropped to a square, the colours
become grey or RGB with 8 bits, and the square is resized. Resizing averages whole blocks of
pixels down to about twice the wanted size and then filters bicubically with antialiasing
(Pillow's `reducing_gap`), the scheme customary for ImageNet 64x64; a JPEG's blocks are averaged by
its decoder, which saves most of the time for large photographs. Without a `size` nothing is cropped
or resized.

Colours: transparent pixels are laid on white; 16-bit values are scaled, not cut off; float
values must lie in [0, 1]; palettes, CMYK and YCbCr are converted; of an animation the first frame
counts. Embedded colour profiles are ignored.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

Data = Path | bytes | np.ndarray
GREY = ("1", "L", "La", "LA", "I", "F")
GAP = 2.0


def decode(data: Data, size: int | None, channels: int) -> np.ndarray:
    """The image as uint8 [channels, H, W]; with a `size`, H = W = size.

    Raises:
        Exception: whatever Pillow raises for damaged content; `reason` puts it into words.
    """
    with _open(data) as image:
        if size is not None:
            image.draft(None, (round(GAP * size), round(GAP * size)))
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
        square = upright if size is None else _centre(upright)
        plain = _eight_bits(square, "L" if channels == 1 else "RGB")
        if size is not None:
            plain = plain.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=GAP)
        pixels = np.asarray(plain)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def probe(data: Data) -> tuple[int, int, bool]:
    """Height, width (upright) and whether the file stores colour, from the header alone."""
    with _open(data) as image:
        width, height = image.size
        # Pillow's TIFF reader has turned the size already; a PNG would have to be decoded first.
        if image.format in ("JPEG", "MPO", "WEBP") and _orientation(image) >= 5:
            width, height = height, width
        return height, width, not (image.mode in GREY or image.mode.startswith("I;16"))


def reason(error: Exception) -> str:
    """Why a file could not be decoded, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__)[:120]


def _open(data: Data) -> Image.Image:
    if isinstance(data, np.ndarray):
        return Image.fromarray(data[0] if len(data) == 1 else data.transpose(1, 2, 0))
    if (len(data) if isinstance(data, bytes) else data.stat().st_size) == 0:
        raise ValueError("empty file")
    return Image.open(BytesIO(data) if isinstance(data, bytes) else data)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _centre(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width == height:
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_numbers(np.asarray(image)).convert(mode)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, "white")
        white.alpha_composite(pixels)
        return white.convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _from_numbers(values: np.ndarray) -> Image.Image:
    """Grey from 16-bit integers (0 ... 65535, also inside 32-bit ones) or floats in [0, 1]."""
    full = 1.0 if values.dtype.kind == "f" else 65535.0
    if not (values.min() >= 0 and values.max() <= full):
        raise ValueError(f"pixel values outside 0 ... {full:g}")
    return Image.fromarray(np.rint(values * (255.0 / full)).astype(np.uint8))
