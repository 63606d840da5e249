"""Masks: which pixels of a picture are to be generated, the hole.

A mask does what it shows. One without transparency is bright where pixels are to be generated; in
one whose transparency varies, such as a layer of a drawing program, the alpha channel is the mask,
and what is painted, in whatever colour, marks the hole. `Marks` says it otherwise.

Bright is what lies above the middle of the scale: of 0 ... 255, of 0 ... 65535 in 16 bits, of
0 ... 1 in floats. Where that separates nothing, as in a mask of zeros and ones, the middle between
the darkest and the brightest value does, if the mask holds just these two or they are an eighth
of the scale apart; this is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fewstep.editing.opened import opened
from fewstep.errors import FewstepError

Marks = Literal["bright", "dark", "painted", "transparent"]
"""What of a mask marks the hole."""

APART = 1 / 8  # of the scale: the least contrast of a mask of many values


@dataclass(frozen=True)
class Mask:
    """A mask that was read.

    Args:
        hole: True where pixels are to be generated, bool [H, W].
        name: what it is called.
        notes: what was assumed of it, in sentences.
    """

    hole: Tensor
    name: str
    notes: tuple[str, ...] = ()

    def fitted(self, size: tuple[int, int], name: str) -> Mask:
        """The mask for a picture of another size (height, width) but the same proportions.

        A pixel belongs to the hole where any part of it does.

        Raises:
            FewstepError: other proportions.
        """
        (h, w), (H, W) = self.hole.shape, size
        if (h, w) == (H, W):
            return self
        if abs(h * W / w - H) > 1 and abs(w * H / h - W) > 1:
            raise FewstepError(
                f"the mask has {w}x{h} pixels, but {name} has {W}x{H}: give one of the same "
                "proportions."
            )
        share = torch.nn.functional.interpolate(self.hole[None, None].float(), size, mode="area")
        note = f"the mask of {w}x{h} pixels is scaled to the {W}x{H} of {name}."
        return replace(self, hole=share[0, 0] > 0, notes=(*self.notes, note))


def open_mask(
    source: Path | bytes, name: str, marks: Marks | None = None, layer: Marks = "painted"
) -> Mask:
    """The mask of a file, or of the bytes of one.

    Args:
        source: a still picture of any kind; it is turned as its EXIF orientation says.
        name: what it is called in messages.
        marks: what marks the hole; default ``layer`` where the transparency varies, else bright.
        layer: what marks the hole of a mask whose transparency varies: painted, or transparent.

    Raises:
        FewstepError: not one still picture, unknown marks, or no transparency where it should mark.
    """
    if marks is not None and marks not in get_args(Marks):
        raise FewstepError(f"marks must be one of {', '.join(get_args(Marks))}, got {marks!r}.")
    with opened(source, name) as picture:
        alpha, (grey, full) = picture.alpha(), picture.brightness()
    notes: list[str] = []
    if marks is None and alpha is not None and alpha.min() < alpha.max():
        marks = layer
        notes.append(f"the transparency of {name} is the mask: what is {layer} is generated.")
    if marks is None and alpha is not None and not alpha.any():
        raise FewstepError(f"the mask {name} is wholly transparent: paint over what to generate.")
    if marks in ("painted", "transparent"):
        if alpha is None:
            raise FewstepError(f"the mask {name} has no transparency that could mark anything.")
        grey, full = alpha, 255.0
    if marks == "transparent" and alpha is not None and not alpha.all():
        bright = alpha > 0  # the hole is what is wholly transparent
    else:
        bright, note = _bright(grey, full, name)
        notes += [note] if note else []
    hole = ~bright if marks in ("dark", "transparent") else bright
    return Mask(torch.from_numpy(np.array(hole)), name, tuple(notes))


def _bright(values: np.ndarray, full: float, name: str) -> tuple[np.ndarray, str | None]:
    """Where a mask is bright, and what had to be assumed for that."""
    bright = values > full / 2
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise FewstepError(f"the mask {name} holds values that are not finite.")
    if (bright.any() and not bright.all()) or low == high:
        return bright, None
    two = bool(((values == low) | (values == high)).all())
    if not two and float(high) - float(low) < APART * full:
        return bright, None
    note = f"{name} runs from {low:g} to {high:g} of {full:g} only: its brighter part is the mask."
    return values > (float(low) + float(high)) / 2, note
