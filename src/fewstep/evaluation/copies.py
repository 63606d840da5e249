"""Which images are others' own: equal in every pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

CHUNK = 4096  # images turned into bytes at a time


def pixel_keys(images: Tensor) -> Iterator[bytes]:
    """A key for each image uint8 [N, C, H, W], the same for the same pixels in the same shape."""
    for some in images.split(CHUNK):
        for row in some.contiguous().numpy():
            yield hashlib.blake2b(row.data, digest_size=16, key=repr(row.shape).encode()).digest()


def share_of_copies(images: Tensor, known: frozenset[bytes]) -> float:
    """Share of images [N, C, H, W] whose key is known, in 0..1."""
    return sum(key in known for key in pixel_keys(images)) / max(1, len(images))
