"""From tensors to picture files: conversion to and from bytes, grids, folders and archives.

    x = u / 127.5 - 1            u = round(clip((x + 1) 127.5, 0, 255))

`u` is a byte in a stored data set or a file, `x` in [-1, 1] is what networks and samplers see.
The second undoes the first exactly, for each of the 256 values.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from fewstep.cache import expanded
from fewstep.data.class_folders import folder_names, write_names
from fewstep.data.labels import numbered, used
from fewstep.errors import FewstepError, refusals
from fewstep.files import check_writable, partial_of, sweep
from fewstep.finite import check_finite
from fewstep.progress import progress

CHUNK = "fewstep"
"""Key of the text chunk of a PNG that holds its settings as JSON."""

TILE = 64  # a tiny image in a grid is enlarged to about this many pixels
WIDEST = 2048  # but not so far that the whole grid is wider than this
WHITE = 255


def to_float(u: Tensor) -> Tensor:
    """`u / 127.5 - 1`: uint8 of any shape to float32 in [-1, 1]."""
    return u.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """`round(clip((x + 1) 127.5, 0, 255))`: floats of any shape to uint8.

    Raises:
        FewstepError: no floats; bytes would become white.
        NotFinite: NaN or an infinity.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise FewstepError(f"to_uint8 takes a tensor of floats in [-1, 1], got {kind}.")
    check_finite(x, "an image to be written as bytes")
    return (
        x.to(torch.float32, copy=True).add_(1.0).mul_(127.5).clamp_(0, 255).round_().to(torch.uint8)
    )


def grid(
    images: Tensor, columns: int | None = None, scale: int | None = None, pad: int = 1
) -> Tensor:
    """Images side by side, row by row, on white.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3.
        columns: images per row; by default the smallest square that holds all.
        scale: each pixel becomes `scale x scale` sharp pixels; by default enough to make tiny
            images about 64 pixels wide while the grid stays below about 2,048.
        pad: pixels between the images and around them.

    Returns:
        uint8 [C, rows (scale H + pad) + pad, columns (scale W + pad) + pad].

    Raises:
        FewstepError: not such images, or a number out of range.
    """
    _check_images(images)
    n, c, h, w = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    if columns < 1 or pad < 0 or (scale is not None and scale < 1):
        raise FewstepError(
            f"a grid needs columns >= 1, scale >= 1 and pad >= 0, got {columns=}, {scale=}, {pad=}"
        )
    if scale is None:
        scale = max(1, min(TILE // max(h, w), WIDEST // (columns * w)))
    rows = math.ceil(n / columns)
    tiles = images.cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    cells = tiles.new_full((rows * columns, c, h * scale + pad, w * scale + pad), WHITE)
    cells[:n, :, pad:, pad:] = tiles
    height, width = cells.shape[2:]
    sheet = cells.reshape(rows, columns, c, height, width).permute(2, 0, 3, 1, 4)
    # Every cell brings its own upper and left border; the last row and column close the frame.
    return functional.pad(
        sheet.reshape(c, rows * height, columns * width), (0, pad, 0, pad), value=WHITE
    )


@refusals()
def save_images(
    images: Tensor,
    path: str | Path,
    labels: Tensor | None = None,
    classes: Sequence[str] = (),
    columns: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write images where `path`'s ending says: a `.png` grid, an `.npz`, otherwise a folder.

    - `x.png`: one `grid` of all images with `columns` images per row.
    - `x.npz`: `arr_0` uint8 [N, H, W, C] and, with labels, `arr_1` int64 [N], with class names also
      `classes` (text).
    - a folder: `00000.png`, `00001.png`, ...; with labels in one subfolder per class, called as the
      class is. Where a name cannot be a folder's, or would be taken for something else ("a/b",
      "test"), the folder has a similar one and `fewstep-classes.json` the class. The folder must be
      new or empty.

    `load` finds images and classes of both again.

    What is written appears whole or not at all.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3 (`to_uint8` makes them).
        labels: int64 [N], for an `.npz` or a folder.
        classes: names of the classes that the labels count; by default the labels' numbers.
        columns: of a grid; default about as many as rows.
        settings: how the images were made, as JSON values. A PNG holds them in the text chunk
            `CHUNK`, one of a folder with its ``index`` and ``class``, a grid with its number ``n``
            and the ``class`` of all its images, where it is one.

    Returns:
        The path.

    Raises:
        FewstepError: not such images, labels that do not fit, class names that do not differ, an
            unknown ending, a place that cannot be written.
    """
    _check_images(images)
    path = expanded(path)
    if labels is not None and len(labels) != len(images):
        raise FewstepError(f"{len(images)} images but {len(labels)} labels for {path}")
    classes = tuple(map(str, classes))
    numbered(labels, len(images), classes)  # labels and names that fit, before anything is written
    with _placed(path) as temporary:
        if path.suffix.lower() == ".png":
            of = _class_of_all(labels, len(images), classes)
            said = None if settings is None else {**settings, **of, "n": len(images)}
            _write_png(grid(images, columns), temporary, said)
        elif path.suffix.lower() == ".npz":
            _write_npz(images, labels, classes, temporary)
        else:
            _write_folder(images, labels, classes, temporary, settings)
    return path


def save_points(
    x: Tensor, path: str | Path, labels: Tensor | None = None, classes: Sequence[str] = ()
) -> Path:
    """Write what is no image, such as points of the plane, as an `.npz`.

    `arr_0` is float32 [N, *shape]; labels and classes are as in that of `save_images`.

    Returns:
        The path.

    Raises:
        FewstepError: a place that cannot be written.
    """
    path = expanded(path)
    with _placed(path) as temporary:
        _write_arrays(x.float().cpu().numpy(), labels, tuple(map(str, classes)), temporary)
    return path


def is_picture(shape: Sequence[int]) -> bool:
    """Whether arrays of a shape are images that can be shown: [1 or 3, H, W]."""
    return len(shape) == 3 and shape[0] in (1, 3)


def check_pictures(shape: Sequence[int], name: object, instead: str = "") -> None:
    """Raise `FewstepError` for a model of arrays that are no images, such as points.

    Args:
        shape: of what it makes.
        name: of the model.
        instead: what to do.
    """
    if not is_picture(shape):
        raise FewstepError(f"{name} makes points of shape {list(shape)}, not images{instead}.")


def _check_images(images: Tensor) -> None:
    good = images.dtype == torch.uint8 and is_picture(images.shape[1:])
    if not good or len(images) == 0:
        raise FewstepError(
            "expected images as uint8 [N, 1 or 3, H, W] with N >= 1, got "
            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}; "
            "to_uint8 converts floats in [-1, 1]"
        )


def _class_of_all(labels: Tensor | None, n: int, classes: Sequence[str]) -> dict[str, str]:
    numbers, names = numbered(labels, n, classes)
    found = [] if numbers is None else numbers.unique().tolist()
    return {"class": names[found[0]]} if len(found) == 1 else {}


@refusals()
def check_place(path: Path) -> None:
    """Raise `FewstepError` where `save_images` would refuse the path, before any work is done."""
    path = expanded(path)
    if path.suffix.lower() not in ("", ".png", ".npz"):
        raise FewstepError(
            f"{path}: images are written as one .png grid, as an .npz, or as a folder "
            f"(a path without an ending), not as {path.suffix!r}"
        )
    if path.is_file() and not path.suffix:
        raise FewstepError(f"cannot write the folder {path}: it is a file")
    if path.is_dir() and (path.suffix or any(path.iterdir())):
        raise FewstepError(
            f"{path} is a folder that is in the way"
            if path.suffix
            else f"{path} is not empty; name a new folder or delete this one"
        )
    check_writable(path)


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name at the end; removed after a failure."""
    check_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        partial = partial_of(path)
        try:
            yield partial
            os.replace(partial, path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error.strerror or error}") from error


def _write_png(image: Tensor, path: Path, settings: Mapping[str, Any] | None = None) -> None:
    pixels = image.permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(path, format="PNG", pnginfo=None if settings is None else with_settings(settings))


def with_settings(settings: Mapping[str, Any]) -> PngInfo:
    """The text chunk of a PNG that holds its settings."""
    info = PngInfo()
    info.add_itxt(CHUNK, json.dumps(settings))
    return info


def _write_npz(images: Tensor, labels: Tensor | None, classes: Sequence[str], path: Path) -> None:
    _write_arrays(images.permute(0, 2, 3, 1).contiguous().cpu().numpy(), labels, classes, path)


def _write_arrays(
    array: np.ndarray, labels: Tensor | None, classes: Sequence[str], path: Path
) -> None:
    arrays: dict[str, Any] = {"arr_0": array}
    if labels is not None:
        arrays["arr_1"] = _stored(labels, classes)
        if classes:
            arrays["classes"] = np.array(classes)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _stored(labels: Tensor, classes: Sequence[str]) -> np.ndarray:
    """Labels for an archive [N]: int64, or text where they are names without a list of them."""
    if classes:
        numbers, _ = numbered(labels, len(labels), classes)
        assert numbers is not None
        return numbers.numpy()
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).reshape(-1)
    return values.astype(str if values.dtype.kind in "USO" else np.int64)


def _write_folder(
    images: Tensor,
    labels: Tensor | None,
    classes: Sequence[str],
    path: Path,
    settings: Mapping[str, Any] | None,
) -> None:
    path.mkdir()
    folders = [path] * len(images)
    numbers, names = numbered(labels, len(images), classes)
    if numbers is not None:
        numbers, names = used(numbers, names)
        under = folder_names(names)
        folders = [path / under[i] for i in numbers.tolist()]
        write_names(path, names, under)
    for folder in set(folders):
        folder.mkdir(exist_ok=True)
    digits = max(5, len(str(len(images) - 1)))  # names must sort like numbers
    paths = [folder / f"{i:0{digits}d}.png" for i, folder in enumerate(folders)]
    images, said = images.cpu(), _said(settings, numbers, names, len(images))
    with ThreadPoolExecutor() as pool, progress("Writing images", len(paths)) as advance:
        for _ in pool.map(_write_png, images, paths, said):
            advance(1)


def _said(
    settings: Mapping[str, Any] | None, numbers: Tensor | None, names: Sequence[str], n: int
) -> list[dict[str, Any] | None]:
    """The settings of each image of a folder."""
    if settings is None:
        return [None] * n
    classes = [None] * n if numbers is None else [names[i] for i in numbers.tolist()]
    return [{**settings, "index": i, "class": name} for i, name in enumerate(classes)]
