"""Decoded data sets in one file each, mapped into memory instead of read.

A cache file is a plain safetensors file: `images` uint8 [N, C, H, W], `labels` int64 [N] where
there are any, and a few strings of metadata. Its name is made from what the data set *is* (paths
and options), the `state` inside from how the files *were* (names, sizes, times of modification):
when a file changes, the cache file is replaced and no old copy stays behind.

The pixels start at a place that is fixed before decoding, so that they are written as they come,
without holding them; the labels end where the pixels start and the header fills what is
left in front (safetensors allows trailing spaces there).
"""

from __future__ import annotations

import errno
import json
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.data.build import Outcome, Request, Source, build
from fewstep.data.dataset import Dataset
from fewstep.data.labels import numbered, used
from fewstep.errors import FewstepError
from fewstep.files import SHAPELESS, replacing, sweep
from fewstep.memory import GIB, free_disk, free_memory

VERSION = "2"  # of the decoding and the file; raise it when either changes what a file holds
PAGE = 4096
SAMPLES, SAMPLE = 256, 65_536  # blocks and bytes per block that are checked on every load


def read(path: Path, state: str) -> Dataset | None:
    """The data set in a cache file, mapped; None if it is absent, outdated or damaged.

    Damage means a wrong length, an unreadable header, or a wrong checksum of the labels and
    of up to 16 MiB of evenly spaced pixels: the rest of a large file is not read.
    """
    try:
        with safe_open(path, "pt") as file:
            note = file.metadata() or {}
            if (note.get("version"), note.get("state")) != (VERSION, state):
                return None
            images = file.get_tensor("images")
            names = set(file.keys())
            labels = file.get_tensor("labels") if "labels" in names else None
            pictures = file.get_tensor("pictures") if "pictures" in names else None
        if note["check"] != _check(images, labels):
            return None
        classes = tuple(json.loads(note["classes"]))
        return Dataset(
            images,
            labels,
            classes,
            note["name"],
            note["source"],
            int(note["skipped"]),
            pixel_hash=note["pixel_hash"],
            pictures=pictures,
        )
    except (SafetensorError, *SHAPELESS):
        return None


def write(
    path: Path, state: str, source: Source, request: Request, shape: tuple[int, int, int]
) -> None:
    """Decode `source` into a cache file; it appears whole or not at all.

    Files that killed processes left in the folder are removed first.

    Raises:
        OSError: the folder cannot be written, is full, or has no room for the images of this shape.
        FewstepError: from `build`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    start = _start(source, request)
    _check_room(path.parent, start + _size(source, shape))
    with replacing(path) as partial, partial.open("w+b") as file:
        file.seek(start)
        outcome = build(source, request, shape, lambda rows: file.write(rows.numpy().data))
        file.flush()
        _finish(file, start, state, source, outcome, described=request.described)


def _size(source: Source, shape: tuple[int, int, int]) -> int:
    return len(source) * math.prod(shape)


def _check_room(folder: Path, size: int) -> None:
    free = free_disk(folder)
    if free is not None and size > free:
        raise OSError(
            errno.ENOSPC,
            f"needs {size / GIB:,.1f} GiB of disk, of which {free / GIB:,.1f} are free",
        )


def check_memory(source: Source, shape: tuple[int, int, int], folder: Path, error: OSError) -> None:
    """Raise `FewstepError` where images that no file can keep would fill the memory.

    Half of the free memory is left for whatever is done with them.
    """
    size, free = _size(source, shape), free_memory()
    if free is not None and 2 * size > free:
        raise FewstepError(
            f"decoded images of {source.origin} cannot be kept in {folder} ({error}), and with "
            f"{size / GIB:,.1f} GiB they are too large for the memory: set FEWSTEP_CACHE to a "
            "folder with room"
        ) from error


def in_memory(source: Source, request: Request, shape: tuple[int, int, int]) -> Dataset:
    """Decode `source` without a cache."""
    images = torch.empty((len(source), *shape), dtype=torch.uint8)
    filled = 0

    def keep(rows: Tensor) -> None:
        nonlocal filled
        images[filled : filled + len(rows)] = rows
        filled += len(rows)

    outcome = build(source, request, shape, keep)
    labels, classes = _labels(source, outcome)
    return Dataset(
        images[:filled],
        labels,
        classes,
        source.name,
        source.origin,
        len(outcome.bad),
        pixel_hash=outcome.pixel_hash,
        pictures=torch.tensor(outcome.pictures),
    )


def _labels(source: Source, outcome: Outcome) -> tuple[Tensor | None, tuple[str, ...]]:
    if source.classes is None:
        return None, ()
    try:
        labels, classes = numbered(np.array(outcome.labels), len(outcome), source.classes)
    except FewstepError as error:
        raise FewstepError(f"{source.origin}: {error}") from error
    if labels is not None and outcome.bad:  # of a class there may be nothing but broken images
        labels, classes = used(labels, classes)
    return labels, classes


def _start(source: Source, request: Request) -> int:
    """Where the pixels begin: room for the header, and one label and number per image."""
    # These strings end up as JSON inside JSON, where quoting at most doubles them.
    header = PAGE + 2 * len(json.dumps([source.classes, source.name, source.origin]))
    labels = 8 * len(source) * ((source.classes is not None) + request.described)
    return -(-(header + labels) // PAGE) * PAGE


def _finish(
    file: BinaryIO, start: int, state: str, source: Source, outcome: Outcome, *, described: bool
) -> None:
    labels, classes = _labels(source, outcome)
    shape = (len(outcome), *outcome.shape)
    mapped = np.memmap(file, np.uint8, "r+", start, shape)
    note = {
        "version": VERSION,
        "state": state,
        "name": _text(source.name),
        "source": _text(source.origin),
        "classes": json.dumps(classes),
        "skipped": str(len(outcome.bad)),
        "pixel_hash": outcome.pixel_hash,
        "check": _check(torch.from_numpy(mapped), labels),
    }
    header: dict[str, object] = {"__metadata__": note}
    numbers = {} if labels is None else {"labels": labels}
    numbers |= {"pictures": torch.tensor(outcome.pictures)} if described else {}
    room = 0
    for name, values in numbers.items():
        header[name] = _entry("I64", values.shape, room, room + 8 * len(values))
        room += 8 * len(values)
    header["images"] = _entry("U8", shape, room, room + mapped.size)
    length = start - room - 8
    file.seek(0)
    file.write(length.to_bytes(8, "little"))
    file.write(json.dumps(header).encode().ljust(length))
    for values in numbers.values():
        file.write(values.numpy().tobytes())


def _text(name: str) -> str:
    """A path's name as text that a header can hold: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _entry(dtype: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def _check(images: Tensor, labels: Tensor | None) -> str:
    pixels = images.numpy().reshape(-1)
    value = 0 if labels is None else zlib.crc32(labels.numpy().data)
    starts = np.linspace(0, max(pixels.size - SAMPLE, 0), SAMPLES).astype(np.int64)
    for first in np.unique(starts):
        value = zlib.crc32(pixels[first : first + SAMPLE].data, value)
    return f"{value:08x}"
