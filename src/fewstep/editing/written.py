"""Pictures to files: without loss where the format can, and said where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.errors import FewstepError

EIGHT = ("L", "RGB")
SIXTEEN = "I;16"


@dataclass(frozen=True)
class Format:
    """What files of a format hold.

    Args:
        modes: Pillow's, of 8 bits grey and in colour, perhaps with transparency or 16 bits.
        longest: pixels of a side; None for more than memory has.
        lossy: whether pixels change.
        how: arguments of Pillow's encoder.
    """

    modes: tuple[str, ...] = EIGHT
    longest: int | None = None
    lossy: bool = False
    how: Mapping[str, Any] = field(default_factory=dict)


FORMATS = {
    "PNG": Format((*EIGHT, "LA", "RGBA", SIXTEEN)),
    "TIFF": Format((*EIGHT, "LA", "RGBA", SIXTEEN)),
    "WEBP": Format((*EIGHT, "LA", "RGBA"), 16_383, how={"lossless": True, "exact": True}),
    "BMP": Format(),
    "PPM": Format((*EIGHT, SIXTEEN)),
    "JPEG": Format(longest=65_500, lossy=True, how={"quality": 95}),
    "GIF": Format(longest=65_535, lossy=True),
}
"""By Pillow's name: of every ending in `fewstep.data.folder.ENDINGS`."""


def format_name(path: Path) -> str:
    """Pillow's name of the format that the path's ending stands for.

    Raises:
        FewstepError: none that pictures are written in.
    """
    name = Image.registered_extensions().get(path.suffix.lower(), "")
    if name not in FORMATS:
        raise FewstepError(f"{path} is not the name of a picture: end it in .png, for example.")
    return name


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Raise `FewstepError` for a height and width that the format of the path's ending lacks."""
    longest = FORMATS[format_name(path)].longest
    if longest is not None and max(size) > longest:
        raise FewstepError(
            f"{path} would have {size[1]}x{size[0]} pixels, and {path.suffix} files have at most "
            f"{longest:,} on a side: write a .png."
        )


def to_pil(pixels: Tensor) -> Image.Image:
    """uint8 [1 ... 4, H, W], or uint16 [1, H, W], as Pillow has it."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def save(
    pixels: Tensor, path: Path, profile: bytes | None = None, *, keeps: bool = False
) -> list[str]:
    """Write uint8 [1 ... 4, H, W], or uint16 [1, H, W], in the format of the path's ending.

    Args:
        pixels: of the picture.
        path: of the file.
        profile: colour profile to embed.
        keeps: whether some pixels are to stay what they were.

    Returns:
        What the format cannot hold, in sentences.

    Raises:
        FewstepError: an ending of no picture, or more pixels than the format has.
    """
    check_size(path, (pixels.shape[1], pixels.shape[2]))
    name, image, notes = format_name(path), to_pil(pixels), []
    its, ending = FORMATS[name], path.suffix.lower()
    if image.mode not in its.modes:
        what = "16 bits: 8 are written" if image.mode == SIXTEEN else "transparency: it is on white"
        notes.append(f"{ending} files hold no {what}.")
        image = _plain(image)
    if keeps and its.lossy:
        notes.append(f"{ending} is a format with loss: what was kept changes a little.")
    image.save(path, name, **its.how, **({"icc_profile": profile} if profile else {}))
    return notes


def _plain(image: Image.Image) -> Image.Image:
    """8 bits, on white where it is transparent."""
    if image.mode == SIXTEEN:
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB" if image.mode == "RGBA" else "L")


def in_grey(pixels: Tensor) -> Tensor:
    """uint8 [1 or 3, H, W] to [1, H, W]; equal colours keep their value."""
    return torch.from_numpy(np.asarray(to_pil(pixels).convert("L")).copy())[None]
