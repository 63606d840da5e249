"""Decoding a whole collection in parallel, in order, with an account of what is broken."""

from __future__ import annotations

import os
import warnings
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
from fewstep.data.fits import Fit, OutOfCanvas, Size, canvas_of, fit_of
from fewstep.errors import FewstepError, FewstepWarning, listed
from fewstep.fit_name import FitName
from fewstep.progress import progress

BLOCK = 32  # images per task

T = TypeVar("T")
R = TypeVar("R")


class Item(NamedTuple):
    """One encoded image: its name for messages, its file or content, its label (-1: none)."""

    name: str
    data: Data
    label: int = -1
    picture: int | None = None
    """Which picture of its collection it is of; by default its own number."""


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
    fit: FitName = "crop"
    encoder: str | None = None
    text_column: str | None = None
    embeddings: str | None = None
    canvas: Size | None = None
    """Height and width that fit=pad lays pictures in; by default the smallest that holds all."""

    @property
    def described(self) -> bool:
        """Whether it is wanted what each picture shows."""
        return any((self.encoder, self.text_column, self.embeddings))


@dataclass
class Outcome:
    """What `build` found besides the pixels."""

    shape: tuple[int, int, int]
    labels: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    pixel_hash: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def survey(source: Source, request: Request) -> tuple[int, int, int]:
    """The shape (C, H, W) that all images will have.

    Height and width are `size`, or those of the first image, or what all padded ones need; C is
    `channels`, or 3 as soon as any file stores colour (whatever its pixels), else 1. Reads headers,
    and only as many as it takes.
    """
    found: list[Size] = []
    colour, pads = False, request.fit == "pad"
    with progress("Reading headers", len(source)) as advance:
        for sizes in in_order(_probe_block, _blocks(source)):
            advance(BLOCK)
            for height, width, is_colour in filter(None, sizes):
                found.append((height, width))
                colour = colour or is_colour
            if found and not pads and (colour or request.channels is not None):
                break
    height, width = _canvas(source, found, request)
    return request.channels or (3 if colour else 1), height, width


def _canvas(source: Source, found: list[Size], request: Request) -> Size:
    """Height and width of the images that pictures of these sizes become."""
    if request.fit != "pad" or not found:
        return (request.size,) * 2 if request.size else (found or [(0, 0)])[0]
    canvas, filled = canvas_of(found, request.size)
    if request.canvas is not None:
        canvas, filled = _within(source, canvas, request.canvas), False
    if filled:
        warnings.warn(
            f"{source.origin}: its pictures are laid in {canvas[1]}x{canvas[0]}, and where they do "
            "not fill that their edges are repeated; samples will have such edges",
            FewstepWarning,
            stacklevel=2,
        )
    return canvas


def _within(source: Source, needed: Size, canvas: Size) -> Size:
    """The canvas that is asked for, where it holds all pictures."""
    if needed[0] > canvas[0] or needed[1] > canvas[1]:
        raise OutOfCanvas(
            f"{source.origin}: its pictures need {needed[1]}x{needed[0]}, which {canvas[1]}x"
            f"{canvas[0]} does not hold"
        )
    return canvas


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
    first, number = "", -1

    fit = fit_of(request.fit, request.size, shape[1:])

    def decoded(block: list[Item]) -> list[tuple[Item, np.ndarray | str]]:
        return [(item, _decode(item, request.size, shape[0], fit)) for item in block]

    with progress(f"Decoding {source.name}", len(source)) as advance:
        for block in in_order(decoded, _blocks(source)):
            good: list[np.ndarray] = []
            for item, result in block:
                number += 1
                if isinstance(result, str):
                    outcome.bad.append(f"{item.name} ({result})")
                    continue
                first = first or item.name
                _check_shape(item.name, result.shape, first, outcome.shape)
                outcome.labels.append(item.label)
                outcome.pictures.append(number if item.picture is None else item.picture)
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


def in_order(function: Callable[[T], R], arguments: Iterable[T]) -> Iterator[R]:
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


def _probe_block(block: list[Item]) -> list[tuple[int, int, bool] | None]:
    return [_probe(item) for item in block]


def _probe(item: Item) -> tuple[int, int, bool] | None:
    try:
        return probe(item.data)
    except Exception:  # counted and named when it is decoded
        return None


def headers(source: Source) -> Iterator[tuple[int, int, bool] | None]:
    """Of every picture height, width and whether it stores colour; None where it is unreadable."""
    with progress("Reading headers", len(source)) as advance:
        for found in in_order(_probe_block, _blocks(source)):
            advance(len(found))
            yield from found


def _decode(item: Item, size: int | None, channels: int, fit: Fit) -> np.ndarray | str:
    try:
        return decode(item.data, size, channels, fit)
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        return reason(error)


def _check_shape(
    name: str, shape: tuple[int, ...], first: str, expected: tuple[int, int, int]
) -> None:
    if shape != expected:
        raise FewstepError(
            f"images differ in size: {first} is {expected[2]}x{expected[1]}, {name} is "
            f"{shape[2]}x{shape[1]}; pass a size (--size) to crop and resize all of them, or --fit "
            "pad to lay all in one"
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
