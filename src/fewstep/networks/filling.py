"""Images of sides that a network can neither halve nor cut into patches: filled up inside of it.

A network of levels or patches computes on multiples of some pixels. What an image lacks is filled
with zeros on all sides, as a convolution does at an edge, and cut off again at the end. Nobody
outside sees it: the map, its noise and its samples have the image's own size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad

from fewstep.errors import FewstepError


def filled_shape(shape: Sequence[int], multiple: int, network: str) -> tuple[int, int, int]:
    """The smallest shape (C, H, W) with sides of a multiple that holds images of a shape.

    Raises:
        FewstepError: a side shorter than the multiple, of which most would be filling.
    """
    C, H, W = shape
    if min(H, W) < multiple:
        raise FewstepError(
            f"{network} computes on sides of {multiple}, 2 x {multiple}, ... pixels, and {W}x{H} "
            "is smaller: choose larger images, or fewer multipliers or a smaller patch."
        )
    return C, _rounded_up(H, multiple), _rounded_up(W, multiple)


def _rounded_up(side: int, multiple: int) -> int:
    return math.ceil(side / multiple) * multiple


def filled(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Images [B, C, h, w] in the middle of zeros [B, *shape]."""
    h, w = shape[1] - x.shape[2], shape[2] - x.shape[3]
    if not h and not w:
        return x
    return pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))


def without_filling(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The images [B, *shape] in the middle of `filled` ones."""
    h, w = x.shape[2] - shape[1], x.shape[3] - shape[2]
    if not h and not w:
        return x
    return x[:, :, h // 2 : h // 2 + shape[1], w // 2 : w // 2 + shape[2]]
