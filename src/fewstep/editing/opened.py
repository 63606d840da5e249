"""A picture's file as it came: upright, with its own colours, transparency and bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fewstep.data.decode import GREY, SIXTEEN, full_scale, reason
from fewstep.errors import FewstepError, not_there

MODELS = ("CMYK", "LAB", "HSV")  # colour models that are written as RGB


@dataclass(frozen=True)
class Opened:
    """A picture that was decoded.

    Args:
        image: upright.
        halved: whether its colours have 16 bits, of which Pillow reads 8.
        full: the value that is white, of grey values of more than 8 bits.
    """

    image: Image.Image
    halved: bool
    full: float

    @property
    def deep(self) -> bool:
        """Whether these are grey values of more than 8 bits: of 16 or 32, or floats."""
        return self.image.mode in ("I", "F") or self.image.mode.startswith("I;16")

    def alpha(self) -> np.ndarray | None:
        """The alpha channel uint8 [H, W]; None where there is no transparency."""
        if self.deep or not self.image.has_transparency_data:
            return None
        return np.asarray(self.image.convert("RGBA").getchannel("A"))

    def brightness(self) -> tuple[np.ndarray, float]:
        """Grey values [H, W] whatever the transparency, and the end of their scale."""
        if not self.deep:
            return np.asarray(self.image.convert("RGB").convert("L")), 255.0
        values = np.asarray(self.image)
        if self.image.mode == "F" and values.max() > self.full:
            return values, 255.0  # bytes that were saved as floats
        return values, self.full

    def values(self) -> Tensor:
        """Grey, grey and alpha, RGB, or RGBA [1 ... 4, H, W], as they came.

        uint8, or uint16 for grey values of more than 8 bits. Palettes and other colour models
        become RGB, floats 8 bits.
        """
        if self.image.mode == "F":
            return torch.from_numpy(np.rint(np.asarray(self.image) * 255.0).astype(np.uint8))[None]
        if self.deep:
            values = np.rint(np.asarray(self.image) * (SIXTEEN / self.full)).astype(np.uint16)
            return torch.from_numpy(values)[None]
        grey = self.image.mode in GREY
        if self.image.has_transparency_data:
            plain = self.image.convert("RGBA")
            bands = [plain.getchannel(c) for c in ("RA" if grey else "RGBA")]
        else:
            bands = list(self.image.convert("L" if grey else "RGB").split())
        return torch.from_numpy(np.stack([np.asarray(band) for band in bands]))

    def profile(self) -> bytes | None:
        """The embedded colour profile, unless the colours are converted."""
        return None if self.image.mode in MODELS else self.image.info.get("icc_profile")

    def lost(self) -> tuple[str, ...]:
        """What cannot be kept of the picture, whatever is done with it."""
        mode = self.image.mode
        found = {
            "has 16 bits per colour, of which 8 are read": self.halved,
            "holds floats, which become 8 bits": mode == "F",
            "has 12 bits, which become 16": self.deep and 1 < self.full < SIXTEEN,
            f"is {mode}, which becomes RGB": mode in MODELS,
            "names a transparent grey value, which is taken as it is": self.deep
            and "transparency" in self.image.info,
        }
        return tuple(what for what, so in found.items() if so)


@contextmanager
def opened(source: Path | bytes, name: str) -> Iterator[Opened]:
    """A file, or the bytes of one.

    Raises:
        FewstepError: nothing there, or not one still picture; also for what the block's own look
            at the pixels raises.
    """
    if isinstance(source, Path) and not source.is_file():
        raise not_there("picture", source)
    what = source if isinstance(source, Path) else name
    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise FewstepError(f"cannot read {what}: empty file.")
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a phone's JPEG with a picture for depth
                raise FewstepError(f"{what} has {frames} frames: give one still picture.")
            halved = ";16" in str(image.tile) and not image.mode.startswith("I")
            full = full_scale(image)
            image.load()
            yield Opened(ImageOps.exif_transpose(image), halved, full)
    except FewstepError:
        raise
    except Exception as error:
        raise FewstepError(f"cannot read {what}: {reason(error)}.") from error
