"""One picture file to one array: orientation, crop, colour, size.

In this order: the EXIF orientation is applied, the centre is cropped to a square (or whatever else
a fit does, see `fewstep.data.fits`), the colours become grey or RGB with 8 bits, and the square is
resized. Resizing averages whole blocks of
pixels down to about twice the wanted size and then filters bicubically with antialiasing
(Pillow's `reducing_gap`), the scheme customary for ImageNet 64x64; a JPEG's blocks are averaged by
its decoder, which saves most of the time for large photographs. Without a `size` nothing is cropped
or resized.

Colours: transparent pixels are laid on white; 12- and 16-bit values are scaled, not cut off; float
values must lie in [0, 1]; palettes, CMYK and YCbCr are converted; of an animation the first frame
counts. Embedded colour profiles are ignored. Integers of more than 8 bits that would make an all
but black picture are refused, and said where they look like fewer bits than their file has.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from fewstep.data.fits import GAP, Crop, Fit, Whole
from fewstep.errors import FewstepWarning

Data = Path | bytes | np.ndarray
GREY = ("1", "L", "La", "LA", "I", "F")
TURNING = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""What a PNG holds that says how to turn it, perhaps behind the pixels."""
ASIDE = range(5, 9)  # the orientations that exchange height and width
WHITE, TWELVE, SIXTEEN = 255, 4095, 65535  # the largest value of 8, 12 and 16 bits
BITS_PER_SAMPLE = 258  # the tag of a TIFF


def decode(data: Data, size: int | None, channels: int, fit: Fit | None = None) -> np.ndarray:
    """The image as uint8 [channels, H, W]; with a `size`, H = W = size or what a fit makes of it.

    Raises:
        Exception: whatever Pillow raises for damaged content; `reason` puts it into words.
    """
    fit = fit or (Whole() if size is None else Crop(size))
    with _open(data) as image:
        own = image.height, image.width
        if size is not None:
            image.draft(None, (round(GAP * size), round(GAP * size)))
        if isinstance(image, PngImageFile) and "transparency" in image.info:
            image = _with_exact_transparency(image, data)
        image.load()
        orientation = _orientation(image)
        upright = ImageOps.exif_transpose(image) if orientation != 1 else image
        own = own[::-1] if orientation in ASIDE else own
        plain = _eight_bits(fit.cut(upright), "L" if channels == 1 else "RGB")
        pixels = np.asarray(fit.sized(plain, own))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def probe(data: Data) -> tuple[int, int, bool]:
    """Height, width (upright) and whether the file stores colour, from the header alone."""
    with _open(data) as image:
        (width, height), grey = image.size, _is_grey(image)
        if _may_turn(image, data) and _orientation(image) in ASIDE:
            width, height = height, width
        return height, width, not grey


def _is_grey(image: Image.Image) -> bool:
    if image.mode in GREY or image.mode.startswith("I;16"):
        return True
    # Pillow turns grey and alpha of 16 bits each into RGBA.
    return isinstance(image, PngImageFile) and any(tile.args == "LA;16B" for tile in image.tile)


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


def _may_turn(image: Image.Image, data: Data) -> bool:
    """Whether it is worth asking how to turn an image that is not decoded yet."""
    if image.format == "TIFF" or isinstance(data, np.ndarray):  # whose size is turned already
        return False
    if image.format != "PNG":
        return True
    # Pillow would decode all pixels to look for an orientation behind them.
    content = data if isinstance(data, bytes) else data.read_bytes()
    return any(mark in content for mark in TURNING)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata turn nothing
        return 1


def _with_exact_transparency(image: PngImageFile, data: Data) -> Image.Image:
    """A PNG, not decoded yet, whose transparent value means what it does in the file.

    Pillow keeps it as it is where it scales the pixels: those of fewer bits than 8, and RGB of 16.
    """
    value, tiles = image.info["transparency"], image.tile
    stored = tiles[0].args if tiles and isinstance(tiles[0].args, str) else ""
    if stored in ("L;2", "L;4") and isinstance(value, int):
        image.info["transparency"] = value * 255 // (2 ** int(stored[2:]) - 1)
    if stored != "RGB;16B":
        return image
    high = np.asarray(image).astype(np.int64)
    with _open(data) as again:
        assert isinstance(again, PngImageFile)
        # Of each value Pillow keeps the first byte; taken for little-endian it keeps the second.
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        hidden = (256 * high + np.asarray(again) == np.array(value)).all(-1)
    found = image.copy()
    del found.info["transparency"]
    found.putalpha(Image.fromarray(np.where(hidden, 0, WHITE).astype(np.uint8)))
    return found


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = _from_numbers(values, full_scale(image))
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = WHITE
        return Image.fromarray(grey).convert(mode)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, "white")
        white.alpha_composite(pixels)
        return white.convert(mode)
    return image if image.mode == mode else image.convert(mode)


def full_scale(image: Image.Image) -> float:
    """The value that is white: 1 for floats, else what the file's bits allow, at most 65535."""
    if image.mode == "F":
        return 1.0
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    return 2.0 ** min(16, int(bits[0])) - 1


def _from_numbers(values: np.ndarray, full: float) -> np.ndarray:
    """Grey uint8 [H, W] of integers or floats in 0 ... full.

    Raises:
        ValueError: values outside, or integers that would all be black or next to it.
    """
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= full):
        raise ValueError(f"pixel values outside 0 ... {full:g}")
    if full == SIXTEEN and 0 < high <= WHITE:
        raise ValueError(
            f"16-bit values of 0 ... {high} alone, all but black; save them with 8 bits"
        )
    if full == SIXTEEN and WHITE < high <= TWELVE:
        warnings.warn(
            "a 16-bit picture with no value above 4095 is dark: if its numbers have 12 bits or "
            "fewer, scale them to 0 ... 65535",
            FewstepWarning,
            stacklevel=2,
        )
    return np.rint(values * (255.0 / full)).astype(np.uint8)
