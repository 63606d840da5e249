"""Decoding a whole collection in parallel, in order, with an account of what is broken."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewstep.data.dataset import PixelHash
from fewstep.data.decode import Data, decode, probe, reason
from fewstep.errors import FewstepError, listed
from fewstep.progress import progress

BLOCK = 32  # images per task

T = TypeVar("T")
R = TypeVar("R")


class Item(NamedTuple):
    """One encoded image: its name for messages, its file or content, its label (-1: none)."""

    name: str
    data: Data
    label: int = -1


class Source(Protocol):
    """A collection of encoded images that can be read more than once, always in the same order."""

    name: str
    origin: str
    classes: tuple[str, ...] | None
    """Names of the classes, which the items' labels count; None when unlabelled."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Item]: ...


class Request(NamedTuple):
    """What the caller of `load` wants."""

    split: str = "train"
    size: int | None = None
    channels: int | None = None
    labels: bool = True
    skip_bad: bool = False
    image_column: str | None = None
    label_column: str | None = None


@dataclass
class Outcome:
    """What `build` found besides the pixels."""

    shape: tuple[int, int, int]
    labels: list[int] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    pixel_hash: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def survey(source: Source, request: Request) -> tuple[int, int, int]:
    """The shape (C, H, W) that all images will have.

    Height and width are `size`, or those of the first image; C is `channels`, or 3 as soon as any
    file stores colour (whatever its pixels), else 1. Reads headers, and only as many as it takes.
    """
    first: tuple[int, int] | None = None
    colour = False
    with progress("Reading headers", len(source)) as advance:
        for sizes in _in_order(_probe_block, _blocks(source)):
            advance(BLOCK)
            for height, width, is_colour in sizes:
                first = first or (height, width)
                colour = colour or is_colour
            if first is not None and (colour or request.channels is not None):
                break
    height, width = (request.size,) * 2 if request.size else first or (0, 0)
    return request.channels or (3 if colour else 1), height, width


def build(
    source: Source,
    request: Request,
    shape: tuple[int, int, int],
    write: Callable[[Tensor], object],
) -> Outcome:
    """Decode everything; `write` receives the pixels as consecutive uint8 [m, C, H, W].

    Args:
        source: the encoded images.
        request: what is wanted of them.
        shape: that all of them will have, as `survey` found it.
        write: is called for a few images at a time.

    Raises:
        FewstepError: images of different sizes without `size`, files that cannot be decoded
            without `skip_bad`, or nothing left.
    """
    outcome = Outcome(shape)
    pixels = PixelHash(outcome.shape)
    first = ""

    def decoded(block: list[Item]) -> list[tuple[Item, np.ndarray | str]]:
        return [(item, _decode(item, request.size, outcome.shape[0])) for item in block]

    with progress(f"Decoding {source.name}", len(source)) as advance:
        for block in _in_order(decoded, _blocks(source)):
            good: list[np.ndarray] = []
            for item, result in block:
                if isinstance(result, str):
                    outcome.bad.append(f"{item.name} ({result})")
                    continue
                first = first or item.name
                _check_shape(item.name, result.shape, first, outcome.shape)
                outcome.labels.append(item.label)
                good.append(result)
            if good:
                rows = torch.from_numpy(np.stack(good)).contiguous()
                pixels.update(rows)
                write(rows)
            advance(len(block))
    _check_bad(source, request, outcome)
    outcome.pixel_hash = pixels.hexdigest()
    return outcome


def _blocks(source: Iterable[T]) -> Iterator[list[T]]:
    items = iter(source)
    while block := list(islice(items, BLOCK)):
        yield block


def _in_order(function: Callable[[T], R], arguments: Iterable[T]) -> Iterator[R]:
    """`map` on threads (Pillow decodes without the GIL) that never runs far ahead of its reader."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _probe_block(block: list[Item]) -> list[tuple[int, int, bool]]:
    found = []
    for item in block:
        try:
            found.append(probe(item.data))
        except Exception:  # noqa: PERF203 - counted and named when it is decoded
            continue
    return found


def _decode(item: Item, size: int | None, channels: int) -> np.ndarray | str:
    try:
        return decode(item.data, size, channels)
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        return reason(error)


def _check_shape(
    name: str, shape: tuple[int, ...], first: str, expected: tuple[int, int, int]
) -> None:
    if shape != expected:
        raise FewstepError(
            f"images differ in size: {first} is {expected[2]}x{expected[1]}, {name} is "
            f"{shape[2]}x{shape[1]}; pass a size (--size) to crop and resize all of them"
        )


def _check_bad(source: Source, request: Request, outcome: Outcome) -> None:
    bad = outcome.bad
    if not bad and not outcome.labels:
        raise FewstepError(f"{source.origin} holds no images")
    if bad and (not request.skip_bad or not outcome.labels):
        advice = "." if request.skip_bad else ", or leave them out: skip_bad=True (--skip-bad)."
        raise FewstepError(
            f"{len(bad):,} of {len(source):,} images in {source.origin} cannot be decoded: "
            f"{listed(bad)}. Repair or remove them{advice}"
        )
