"""`load`: one door for every kind of data."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path

from fewstep.cache import cache_folder, expanded
from fewstep.data import cache as caching
from fewstep.data.arrays import CHANNELS
from fewstep.data.build import Request, headers, survey
from fewstep.data.conform import conform
from fewstep.data.dataset import Dataset
from fewstep.data.described import described
from fewstep.data.found import Plan, find
from fewstep.data.splits import WORDS
from fewstep.data.tiles import tiled
from fewstep.errors import FewstepError, FewstepWarning, refusals, unknown
from fewstep.fit_name import FITS, FitName
from fewstep.whole import whole


def load(
    source: str | Path | Dataset,
    *,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    labels: bool = True,
    skip_bad: bool = False,
    cache: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    fit: FitName = "crop",
    encoder: str | None = None,
    text_column: str | None = None,
    embeddings: str | None = None,
) -> Dataset:
    """A data set of images (or points), from whatever `source` is.

    - `"digits"`: the 1,797 handwritten digits of scikit-learn, 1 x 8 x 8 (1,437 train, 360 test).
    - a folder: its images, found recursively. The first level of subfolders names the classes;
      images without subfolders have no labels. Files without an image's ending, hidden ones and
      those that systems leave (thumbnails, recycle bins) are ignored.
    - a `.parquet` file, a glob of them, or a folder with them, also as it came from the hub.
    - `"hub:owner/name[:config][@revision]"`: a data set of the Hugging Face hub.
    - a folder that `fewstep pairs` made: a diffusion model's samples, with their noise.
    - `train-images-idx3-ubyte[.gz]` with its labels beside it, or a folder with them: MNIST,
      EMNIST, KMNIST, Fashion-MNIST, QMNIST; `"fashion-mnist"` where it is installed.
    - `.npz` with `arr_0` or `images` and perhaps `arr_1` or `labels`; `.npy`. Images are bytes, or
      floats in [-1, 1] or, where none is negative, in [0, 1]; floats [N, d] are points.
    - `"name:where"` or `"name"`, of a reader that a plugin has added to `fewstep.data.READERS`.
    - a `Dataset`: itself, with `size`, `channels` and `labels` applied.

    `split` picks images by the names of files and folders: `fewstep.data.splits` has the one rule.
    Data that are not divided are all of "train". The classes are those that the split's images
    have, called as the labels are, in the order of `fewstep.data.labels.natural` (or that of their
    file); of a folder's other splits, first those of the training images.

    Images of folders, Parquet files and the hub are decoded once into a file in the cache folder
    and mapped into memory from then on. When one of the files changes they are decoded again; for a
    hub name without a revision nothing tells, so delete the cache file to fetch it anew.

    Args:
        split: "train", "test" or "val", or another word for one of them such as "validation";
            "test" and "val" stand in for each other.
        size: crop the centre to a square and resize to this; None if all share one size already.
        encoder: ``module:function`` that makes embeddings of the texts beside the images; the data
            set has them as its column "embedding".
        text_column: of the texts; several, separated by commas, are put together.
        embeddings: a file, ``.npy`` or ``.safetensors``, or columns of numbers, that give them.
        fit: what else to do with pictures of other shapes: see `fewstep.data.fits`.
        channels: 1 or 3; None for 3 if any file stores colour, else 1.
        labels: False to leave labels out.
        skip_bad: leave undecodable files out and count them in `Dataset.skipped`.
        cache: the cache folder; by default `FEWSTEP_CACHE` or `~/.cache/fewstep`.
        image_column, label_column: names of columns (Parquet, the hub) or arrays (`.npz`), where
            they cannot be guessed.

    Raises:
        FewstepError: nothing there, nothing readable, or anything ambiguous; the message says what.
    """
    request = Request(
        split,
        size,
        channels,
        labels,
        skip_bad,
        image_column,
        label_column,
        fit,
        encoder,
        text_column,
        embeddings,
    )
    return load_requested(source, request, cache)


@refusals()
def load_requested(
    source: str | Path | Dataset, request: Request, cache: Path | None = None
) -> Dataset:
    """`load` of what a request says."""
    request = request._replace(split=WORDS.get(request.split.lower(), request.split))
    _check(request)
    found = find(source, request)
    folder = cache_folder() if cache is None else Path(cache)
    if isinstance(found, Dataset):
        # What is given says what whole images show, also where they are then cut into tiles.
        return conform(described(found, request, lambda: None, folder), request)
    dataset = described(_cached(found, request, folder), request, found.open, folder)
    return dataset if request.labels else dataset.without_labels()


@refusals()
def sizes_of(source: str | Path, request: Request) -> list[tuple[int, int, bool]]:
    """Height, width and colour of every image of a source, as its headers say.

    Raises:
        FewstepError: nothing there or nothing readable; points, which have no size.
    """
    found = find(source, request)
    if not isinstance(found, Dataset):
        return [size for size in headers(found.open()) if size is not None]
    if not found.is_images:
        raise FewstepError(f"{source} holds points, not images.")
    channels, height, width = found.shape
    return [(height, width, channels == 3)] * len(found)


def _check(request: Request) -> None:
    if request.size is not None and whole(request.size, "size") < 1:
        raise FewstepError(f"size must be at least 1, got {request.size}")
    if request.fit not in FITS:
        raise unknown("fit", str(request.fit), FITS)
    if request.fit == "tile" and request.size is None:
        raise FewstepError("fit=tile cuts pictures into tiles: say of which size (--size)")
    if request.channels not in (None, *CHANNELS):
        raise FewstepError(f"channels must be 1 or 3, got {request.channels}")


def _how(request: Request) -> str:
    fit = "" if request.fit == "crop" else f" {request.fit}"
    canvas = f" in {request.canvas}" if request.canvas and request.fit == "pad" else ""
    return fit + canvas + " described" * request.described


def _cached(plan: Plan, request: Request, folder: Path) -> Dataset:
    key = hashlib.sha256(
        f"{plan.identity} {request.size} {request.channels}{_how(request)}".encode(
            "utf-8", "surrogateescape"
        )
    )
    stem = re.sub(r"[^\w.-]+", "-", plan.name)[:80] or "data"
    path = expanded(folder) / f"{stem}-{key.hexdigest()[:16]}.safetensors"
    found = caching.read(path, plan.state)
    if found is not None and (request.skip_bad or not found.skipped):
        return found
    source, request = tiled(plan.open(), request)
    shape = survey(source, request)
    try:
        caching.write(path, plan.state, source, request, shape)
    except OSError as error:
        caching.check_memory(source, shape, folder, error)
        warnings.warn(
            f"decoded images cannot be kept in {folder} ({error}); they are held in memory and "
            "decoded again next time. Set FEWSTEP_CACHE to a folder with room.",
            FewstepWarning,
            stacklevel=3,
        )
        return caching.in_memory(source, request, shape)
    return caching.read(path, plan.state) or caching.in_memory(source, request, shape)
