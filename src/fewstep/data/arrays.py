"""Arrays as data: what a numpy array or tensor of images or points must look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError

CHANNELS = (1, 3)
ROUNDING = 1e-4  # by which float images may leave [-1, 1]


def checked_images(array: Any, points: bool = False) -> Tensor:
    """The array as stored data: uint8 [N, C, H, W], or float32 [N, *shape].

    Images may come as [N, H, W, C], [N, C, H, W] or [N, H, W] (grey); those of floats with values
    in [-1, 1].

    Args:
        points: take floats of any shape [N, *shape] and any range as they are.

    Raises:
        FewstepError: another type or shape, no rows, values out of range, NaN or infinity.
    """
    if isinstance(array, np.ndarray):
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if not array.flags.writeable:
            array = array.copy()
    try:
        values = torch.as_tensor(array).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise FewstepError(f"the data are not an array of numbers: {error}") from error
    if values.ndim == 0 or values.numel() == 0:
        raise FewstepError(f"the data are empty: shape {list(values.shape)}")
    if values.dtype == torch.uint8 and not points:
        return _channels_first(values)
    if not values.is_floating_point():
        raise FewstepError(
            f"the data are {_type(values)}: images must be uint8 (0 ... 255) or float in [-1, 1]"
            + (", points float" if points else "")
        )
    values = values.to(torch.float32)
    _check_finite(values)
    if points:
        return values.unsqueeze(1) if values.ndim == 1 else values
    return _checked_range(values)


def scaled(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Float images of a file, which does not say their range, in [-1, 1]; and what was assumed.

    Where no value is negative they lie in [0, 1] and `2 x - 1` is taken, else in [-1, 1]. All of
    the file is looked at, so that one image without dark pixels does not decide.

    Args:
        array: floats [N, H, W], [N, H, W, C] or [N, C, H, W].

    Returns:
        Those, and what was assumed in a sentence, empty where nothing was.

    Raises:
        FewstepError: another shape, values in neither range, NaN or infinity.
    """
    if array.ndim not in (3, 4):
        raise FewstepError(
            f"floats of shape {list(array.shape)} are neither images [N, H, W], [N, H, W, C] or "
            "[N, C, H, W], nor points [N, d]"
        )
    values = np.asarray(array, np.float32)
    _check_finite(torch.from_numpy(values))
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        raise FewstepError(
            f"float images must lie in [-1, 1] or [0, 1], these reach from {low:g} to {high:g}; "
            "store images of 0 to 255 as uint8, and points as [N, d]"
        )
    positive = low >= -ROUNDING and high > ROUNDING
    grey = f"grey images of {values.shape[2]}x{values.shape[1]}" if values.ndim == 3 else "images"
    assumed = f"floats in {'[0, 1]' if positive else '[-1, 1]'}, taken for {grey}."
    return (2 * values - 1 if positive else values), assumed * (positive or values.ndim == 3)


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _check_finite(values: Tensor) -> None:
    good = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
    if not bool(good.all()):
        first, count = int((~good).nonzero()[0]), int((~good).sum())
        raise FewstepError(
            f"the data hold NaN or infinity in {count} of {len(values)} examples, first at index "
            f"{first}"
        )


def _checked_range(values: Tensor) -> Tensor:
    if values.ndim not in (3, 4):
        raise FewstepError(
            f"float data of shape {list(values.shape)} are not images [N, C, H, W] or [N, H, W]; "
            "pass points=True for points or other arrays"
        )
    low, high = float(values.min()), float(values.max())
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        raise FewstepError(
            f"float images must lie in [-1, 1], these reach from {low:g} to {high:g}; scale them, "
            "or pass points=True to use the numbers as they are"
        )
    if low >= 0 and high > 0:
        raise FewstepError(
            f"these float images lie in [0, 1] (from {low:g} to {high:g}), expected [-1, 1]: "
            "pass 2 * images - 1, or points=True to use the numbers as they are"
        )
    return _channels_first(values)


def _channels_first(images: Tensor) -> Tensor:
    """[N, H, W, C] to [N, C, H, W]; where both readings are possible the square image wins.

    [N, H, W] is grey.
    """
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim == 4:
        first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
        if first and last:
            first = images.shape[2] == images.shape[3] or images.shape[1] != images.shape[2]
        if first or (images.is_floating_point() and not last):
            return images
        if last:
            return images.permute(0, 3, 1, 2)
    raise FewstepError(
        f"images of shape {list(images.shape)} are neither [N, H, W, C] nor [N, C, H, W] "
        "with C = 1 or 3, nor grey [N, H, W]"
    )
