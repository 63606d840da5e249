"""Data and models from hostile or broken hands: read, or refused in one line, and never run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from bits import DAMAGES
from ground import Ground, Tally
from kills import TRAIN
from PIL import Image

STUDENT = (
    "train",
    "images",
    "--size=8",
    "--steps=1",
    "--batch=2",
    "--network.channels=8",
    "--network.multipliers=1",
    "--network.blocks=1",
    "--device=cpu",
    "--quiet",
)
VALUES: tuple[Any, ...] = (
    10**7, -1, 0, 10**30, 1e308, "x", "", None, [], {}, [[[]]], True, [10**9], ["a", 5], {"2": 5},
)  # fmt: skip


def campaign(ground: Ground, rng: random.Random, seconds: float) -> Tally:
    tally = Tally("hostile files")
    run = ground.folder / "model"
    tally.judge("training", ground.run(*TRAIN, "--out", run))
    sentinel = ground.folder / "executed"
    kinds = [*DATA.items(), *((name, make) for name, make in DATA.items() if name != "pickle")]
    end, trial = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        place = ground.folder / f"file-{trial}"
        place.mkdir()
        trial += 1
        if trial % 2:
            name, make = rng.choice(kinds)
            path = make(place, rng, sentinel)
            words: tuple[object, ...] = (*STUDENT, "--data", path, "--out", place / "run")
        else:
            name, path = "model", _model(run / "model.safetensors", place, rng)
            words = ("sample", path, "-n", 2, "-o", place / "x.png")
        tally.judge(name, ground.run(*words))
        if sentinel.exists():
            tally.count("executed", f"code in {path} was run")
            sentinel.unlink()
        shutil.rmtree(place, ignore_errors=True)
    return tally


def _maybe_damaged(path: Path, rng: random.Random) -> Path:
    if rng.random() < 0.7:
        how = rng.choice(list(DAMAGES))
        path.write_bytes(DAMAGES[how](path.read_bytes(), rng))
    return path


def _images(rng: random.Random) -> np.ndarray:
    return np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (6, 8, 8, 3), np.uint8)


def _labels(rng: random.Random) -> np.ndarray:
    return rng.choice(
        [
            np.array(list("abcabc")),
            np.array([1, 2, 3, 1, 2, 3]),
            np.array([0.5] * 6),
            np.array([np.nan] * 6),
            np.array([-1, 0, 1, 2, 3, 4]),
            np.array([True, False] * 3),
            np.array([b"a", b"b"] * 3),
            np.arange(5),
            np.eye(6),
            np.array([2**63] * 6, np.uint64),
            np.zeros(6, "datetime64[s]"),
        ]
    )


def _npz(place: Path, rng: random.Random, sentinel: Path) -> Path:
    path = place / "data.npz"
    images: np.ndarray = _images(rng)
    if rng.random() < 0.3:
        images = rng.choice([images[0], images.astype(float), images.astype("<U3"), images[:0]])
    np.savez(path, **{rng.choice(("images", "arr_0", "x")): images, "labels": _labels(rng)})
    return _maybe_damaged(path, rng)


def _npy(place: Path, rng: random.Random, sentinel: Path) -> Path:
    """An array whose header promises what is not there."""
    shape = rng.choice(("(1000000000000,)", "(-5, 8, 8, 3)", "(6, 8, 8, 3)", "()", "(0, 8, 8, 3)"))
    kind = rng.choice(("|u1", "<f8", "|O", "<U99999999", "|V3", "nonsense"))
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path = place / "data.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(1152))
    return _maybe_damaged(path, rng)


def _parquet(place: Path, rng: random.Random, sentinel: Path) -> Path:
    path = place / rng.choice(("data.parquet", "train.parquet", "test.parquet"))
    cells = [_png(x) for x in _images(rng)]
    labels = _labels(rng)
    columns: dict[str, Any] = {rng.choice(("image", "img", "picture")): cells}
    if labels.ndim == 1 and len(labels) == 6:
        columns[rng.choice(("label", "Label", "class"))] = pa.array(labels)
    pyarrow.parquet.write_table(pa.table(columns), path)
    return _maybe_damaged(path, rng)


def _png(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "PNG")
    return buffer.getvalue()


def _folder(place: Path, rng: random.Random, sentinel: Path) -> Path:
    root = place / "photos"
    names = ("cat", "dog", "Train", "test", "@eaDir", ".hidden", "ü", "a" * 200, "0", "10")
    for x in _images(rng):
        folder = root / rng.choice(names)
        folder.mkdir(parents=True, exist_ok=True)
        suffix = rng.choice((".png", ".jpg", ".gif", ".tiff", ".bmp"))
        mode = rng.choice("RL" if suffix == ".jpg" else "RL1P")
        path = folder / f"{rng.randrange(1000)}{suffix}"
        Image.fromarray(x).convert({"R": "RGB"}.get(mode, mode)).save(path)
        if rng.random() < 0.2:
            _maybe_damaged(path, rng)
    if rng.random() < 0.2:
        (root / "loop").symlink_to(root)
    return root


def _pickle(place: Path, rng: random.Random, sentinel: Path) -> Path:
    """A pickle that leaves a trace where it is loaded, under many names."""

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {sentinel}",)

    path = place / f"data{rng.choice(('.npy', '.npz', '.pt', '.pkl', '.parquet', '.safetensors'))}"
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", b"\x93NUMPY" + pickle.dumps(Trap()))
    elif path.suffix == ".npy":
        np.save(path, np.array([Trap()] * 6, dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Trap()))
    return path


def _bomb(place: Path, rng: random.Random, sentinel: Path) -> Path:
    """An archive of some kilobytes that declares gigabytes."""
    path = place / "data.npz"
    shape = (rng.choice((10**5, 10**7)), 64, 64, 3)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("images.npy", start + bytes(2**22))
    return path


def _pipe(place: Path, rng: random.Random, sentinel: Path) -> Path:
    path = place / f"data{rng.choice(('.npz', '.npy', '.parquet', '.safetensors', ''))}"
    os.mkfifo(path)
    return path


DATA: dict[str, Callable[[Path, random.Random, Path], Path]] = {
    "npz": _npz,
    "npy": _npy,
    "parquet": _parquet,
    "folder": _folder,
    "pickle": _pickle,
    "bomb": _bomb,
    "pipe": _pipe,
}


def _model(whole: Path, place: Path, rng: random.Random) -> Path:
    """A model file with a setting of its header replaced, or with bytes damaged."""
    path, data = place / "model.safetensors", whole.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(data)
        return _maybe_damaged(path, rng)
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    described = json.loads(header["__metadata__"]["fewstep"])
    _replace(described, rng)
    header["__metadata__"]["fewstep"] = json.dumps(described)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return path


def _replace(node: dict[str, Any], rng: random.Random) -> None:
    key = rng.choice(list(node))
    if isinstance(node[key], dict) and node[key] and rng.random() < 0.8:
        _replace(node[key], rng)
    else:
        node[key] = rng.choice(VALUES)
