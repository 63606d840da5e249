"""Pictures to files: without loss where the format can, and said where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EIGHT = ("L", "RGB")
HOLDS = {
    ".png": ("L", "LA", "RGB", "RGBA", "I;16"),
    ".tif": ("L", "LA", "RGB", "RGBA", "I;16"),
    ".tiff": ("L", "LA", "RGB", "RGBA", "I;16"),
    ".webp": ("L", "LA", "RGB", "RGBA"),
    ".bmp": EIGHT,
    ".jpg": EIGHT,
    ".jpeg": EIGHT,
    ".gif": EIGHT,
    ".ppm": EIGHT,
    ".pgm": EIGHT,
    ".pbm": EIGHT,
    ".pnm": EIGHT,
}
"""Pillow's modes that a format has, by the ending of its files."""
LOSSY = (".jpg", ".jpeg", ".gif")
HOW: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95},
    ".jpeg": {"quality": 95},
    ".webp": {"lossless": True, "exact": True},
}


def to_pil(pixels: Tensor) -> Image.Image:
    """uint8 [1 ... 4, H, W], or uint16 [1, H, W], as Pillow has it."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def save(pixels: Tensor, path: Path, profile: bytes | None = None) -> list[str]:
    """Write uint8 [1 ... 4, H, W], or uint16 [1, H, W], in the format of the path's ending.

    Args:
        profile: colour profile to embed.

    Returns:
        What the format cannot hold, in sentences.
    """
    ending, image, notes = path.suffix.lower(), to_pil(pixels), []
    if image.mode not in HOLDS[ending]:
        what = "16 bits: 8 are written" if image.mode == "I;16" else "transparency: it is on white"
        notes.append(f"{ending} files hold no {what}.")
        image = _plain(image)
    how = HOW.get(ending, {}) | ({"icc_profile": profile} if profile else {})
    image.save(path, **how)
    return notes


def _plain(image: Image.Image) -> Image.Image:
    """8 bits, on white where it is transparent."""
    if image.mode == "I;16":
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB" if image.mode == "RGBA" else "L")


def in_grey(pixels: Tensor) -> Tensor:
    """uint8 [1 or 3, H, W] to [1, H, W]; equal colours keep their value."""
    return torch.from_numpy(np.asarray(to_pil(pixels).convert("L")).copy())[None]
