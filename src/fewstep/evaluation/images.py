"""Images to score or to score against, brought to one form: bytes, of one size and colour."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fewstep.cache import expanded
from fewstep.data import Dataset, load, to_uint8
from fewstep.data.archives import ENDINGS, read_arrays
from fewstep.data.build import Request
from fewstep.data.found import of_arrays
from fewstep.data.sources import load_requested
from fewstep.data.splits import siblings
from fewstep.errors import FewstepError

Say = Callable[[str], object]


def load_images(source: str | Path, say: Say, request: Request) -> Dataset:
    """Images as `fewstep.data.load` reads them; floats are rounded to bytes.

    Floats of an ``.npz`` or ``.npy`` may lie in [-1, 1] or, where none is negative, in [0, 1].

    Args:
        source: as for `load`.
        say: called with what was done to the images, a sentence each.
        request: which of them, and how to read them.

    Raises:
        FewstepError: nothing there, nothing readable, points, floats of another range.
    """
    path = expanded(source)
    files = siblings(path, request.split) if _is_array(path) else []
    if len(files) != 1:
        return as_bytes(load_requested(source, request), say)
    (file,) = files
    found = read_arrays(file, request.image_column, request.label_column, request.labels)
    data = as_bytes(of_arrays(file, *found, say=say), say)
    # Now that they are bytes they can be resized and recoloured, which floats cannot.
    return load_requested(data, request._replace(image_column=None, label_column=None))


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and os.path.isfile(path)


def conformed(data: Dataset, size: int | None, channels: int | None) -> Dataset:
    """The images with a size and channels, where they are asked for."""
    return load(data, size=size, channels=channels) if size or channels else data


def as_bytes(data: Dataset, say: Say) -> Dataset:
    """The images as bytes, if they are floats in [-1, 1].

    Raises:
        FewstepError: points, which are no images.
    """
    if not data.is_images:
        raise FewstepError(f"{data.name} holds points of shape {list(data.shape)}, not images.")
    if not data.stored.is_floating_point():
        return data
    say("float images, rounded to bytes.")
    return replace(data, stored=to_uint8(data.images), rows=None, pixel_hash=None, columns={})


def in_channels(images: Tensor, channels: int, whose: str, say: Say) -> Tensor:
    """Images [N, C, H, W] with as many channels as the reference, where that loses nothing.

    Raises:
        FewstepError: coloured images and a grey reference.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        say("grey images, repeated as red, green and blue like the reference.")
        return images.expand(-1, 3, -1, -1)
    if not all(torch.equal(images[:, 0], images[:, c]) for c in (1, 2)):
        raise FewstepError(
            f"{whose} is in colour and the reference is grey: pass --channels 1 to score both in "
            "grey, or give a reference in colour."
        )
    say("grey images stored as red, green and blue, read as grey like the reference.")
    return images[:, :1]


def check_size(images: Tensor, wanted: tuple[int, ...], whose: str) -> None:
    """Raise `FewstepError` for images of another size than the reference's [C, H, W]."""
    if tuple(images.shape[1:]) != wanted:
        raise FewstepError(
            f"{whose} has images of shape {tuple(images.shape[1:])}, the reference has {wanted}: "
            f"pass --size {min(wanted[1:])} to crop and resize all of them, or another --size."
        )
