"""IDX files: how MNIST and its kin are stored."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.data import Dataset, load
from fewstep.data.idx import FASHION
from fewstep.errors import FewstepError, FewstepWarning

RNG = np.random.default_rng(3)
CODES = {"u1": 8, ">i2": 11, ">i4": 12, ">f4": 13}


def packed(values: np.ndarray, dtype: str = "u1") -> bytes:
    head = bytes([0, 0, CODES[dtype], values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.astype(dtype).tobytes()


def put(path: Path, values: np.ndarray, dtype: str = "u1") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    path.write_bytes(pack.get(path.suffix, bytes)(packed(values, dtype)))
    return values


def pictures(n: int, height: int = 6, width: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (n, height, width))


def mnist(folder: Path, images: str = "{}-images-idx3-ubyte", labels: str = "") -> np.ndarray:
    """Six training images of classes 0 to 2, four test images; the pixels of the former."""
    labels = labels or images.replace("images", "labels").replace("idx3", "idx1")
    put(folder / images.format("t10k"), pictures(4))
    put(folder / labels.format("t10k"), np.array([2, 1, 0, 1]))
    put(folder / labels.format("train"), np.array([0, 1, 2, 2, 1, 0]))
    return put(folder / images.format("train"), pictures(6))


def labels_of(data: Dataset) -> list[int]:
    assert data.labels is not None
    return data.labels.tolist()


@pytest.mark.parametrize(
    "name",
    [
        "{}-images-idx3-ubyte",
        "{}-images-idx3-ubyte.gz",
        "{}-images.idx3-ubyte",
        "{}-images.idx3-ubyte.gz",
        "{}-images-idx3-ubyte.xz",
        "{}_images_idx3_ubyte.bz2",
        "{}-images-idx3-ubyte/{}-images-idx3-ubyte",
        "MNIST/raw/{}-images-idx3-ubyte.gz",
    ],
)
def test_a_folder_of_idx_files(tmp_path: Path, name: str) -> None:
    labels = name.replace("images", "labels").replace("idx3", "idx1")
    if name.count("{}") == 2:
        train, test = (name.format(split, split) for split in ("train", "t10k"))
        pixels = put(tmp_path / train, pictures(6))
        put(tmp_path / labels.format("train", "train"), np.array([0, 1, 2, 2, 1, 0]))
        put(tmp_path / test, pictures(4))
        put(tmp_path / labels.format("t10k", "t10k"), np.array([2, 1, 0, 1]))
    else:
        train, pixels = name.format("train"), mnist(tmp_path, name)
    assert load(tmp_path).source == str(tmp_path / train)
    for source in (tmp_path, tmp_path / train):
        data = load(source)
        assert (data.images[:, 0].numpy() == pixels).all()
        assert data.images.dtype == torch.uint8
        assert labels_of(data) == [0, 1, 2, 2, 1, 0]
        assert data.classes == ("0", "1", "2")
        held_out = load(source, split="test")
        assert labels_of(held_out) == [2, 1, 0, 1]
    assert load(tmp_path, size=4, channels=3).shape == (3, 4, 4)
    assert load(tmp_path, labels=False).labels is None


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    pixels = mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "train-images-idx3-ubyte.gz")
    assert (load(tmp_path).images[:, 0].numpy() == pixels).all()


def test_a_file_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    mnist(tmp_path, "{}-images-idx3-ubyte.gz")
    pixels = mnist(tmp_path)
    assert (load(tmp_path).images[:, 0].numpy() == pixels).all()


def test_qmnist(tmp_path: Path) -> None:
    pixels = put(tmp_path / "qmnist-train-images-idx3-ubyte.gz", pictures(3))
    table = np.arange(24).reshape(3, 8)
    put(tmp_path / "qmnist-train-labels-idx2-int.gz", table, ">i4")
    with pytest.warns(FewstepWarning, match="of its 8 columns the first is the class"):
        data = load(tmp_path)
    assert (data.images[:, 0].numpy() == pixels).all()
    assert data.classes == ("0", "8", "16")
    assert data.name == "qmnist"


@pytest.mark.filterwarnings("default::fewstep.errors.FewstepWarning")
def test_emnist_is_turned_upright_and_called_by_its_characters(tmp_path: Path) -> None:
    pixels = put(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz", pictures(3))
    put(tmp_path / "emnist-letters-train-labels-idx1-ubyte.gz", np.array([2, 1, 2]))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n")
    with pytest.warns(FewstepWarning, match="turned upright"):
        data = load(tmp_path)
    assert (data.images[:, 0].numpy() == pixels.transpose(0, 2, 1)).all()
    assert (data.classes, labels_of(data)) == (("A", "B"), [1, 0, 1])
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n")
    with pytest.raises(FewstepError, match=r"label 2, which .*mapping"):
        load(tmp_path)


def test_several_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("letters", "digits"):
        put(tmp_path / f"emnist-{name}-train-images-idx3-ubyte", pictures(2))
    with pytest.raises(FewstepError, match=r"several data sets of IDX files .*emnist-digits"):
        load(tmp_path)
    for name in ("MNIST", "KMNIST"):
        mnist(tmp_path / "root" / name / "raw")
    with pytest.raises(FewstepError, match=r"several data sets of IDX files .*KMNIST/raw"):
        load(tmp_path / "root")


def test_idx_files_beside_pictures_are_refused(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "grid.png").write_bytes(b"")
    with pytest.raises(FewstepError, match=r"IDX files .* and other data .*grid.png"):
        load(tmp_path)


def cut(content: bytes) -> bytes:
    return content[:-7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: cut(x), r"is damaged: its header says \[6, 6, 5\], 180 bytes, .* 173"),
        (lambda x: x + b"0", "more than 180"),
        (lambda x: x[:9], "cut off: it ends within its header"),
        (lambda x: b"", "no IDX file: it begins with nothing"),
        (lambda x: b"\x89PNG" + x[4:], "no IDX file: it begins with 89 50 4e 47"),
        (lambda x: x[:3] + b"\x01" + x[4:], "damaged|not images"),
        (lambda x: packed(np.zeros(4)), "holds uint8 of shape .4., not images"),
        (lambda x: cut(gzip.compress(x)), "cut off|truncated|ended"),
        (lambda x: gzip.compress(x)[:-8] + bytes(8), "cannot read .*: CRC check failed"),
        (lambda x: cut(lzma.compress(x)), "cut off|ended"),
        (lambda x: x[:4] + b"\xff\xff\xff\xff" + x[8:], "memory|damaged"),
        (lambda x: packed(np.zeros((0, 6, 5))), "empty|but .* labels"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    mnist(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(FewstepError, match=message) as raised:
        load(tmp_path)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_labels_that_are_missing_too_few_or_none(tmp_path: Path) -> None:
    mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    put(labels, np.array([1, 2]))
    with pytest.raises(FewstepError, match=r"holds 6 images, but .*train-labels.* 2 labels"):
        load(tmp_path)
    put(labels, np.zeros(6), ">f4")
    with pytest.raises(FewstepError, match=r"train-labels-idx1-ubyte holds float32 .*, not labels"):
        load(tmp_path)
    with pytest.raises(FewstepError, match="holds labels: pass the path of the images"):
        load(labels)
    labels.unlink()
    with pytest.raises(FewstepError, match=r"no labels beside it .*train-labels-idx1-.*--no-l"):
        load(tmp_path)
    assert len(load(tmp_path, labels=False)) == 6


def test_labels_alone_and_a_split_that_is_not_there(tmp_path: Path) -> None:
    put(tmp_path / "train-labels-idx1-ubyte", np.array([1]))
    with pytest.raises(FewstepError, match=r"holds labels .*, but no file of images"):
        load(tmp_path)
    put(tmp_path / "train-images-idx3-ubyte", pictures(1))
    with pytest.raises(FewstepError, match="no split 'test'"):
        load(tmp_path, split="test")


def test_fashion_mnist_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.data.fashion_mnist.INSTALLED", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path / "sets"))
    with pytest.raises(FewstepError, match=r"not in .*sets/fashion-mnist.*dataset-fashion-mnist"):
        load("fashion-mnist")
    mnist(tmp_path / "sets" / "fashion-mnist")
    with pytest.raises(FewstepError, match="is not Fashion-MNIST: its labels are others"):
        load("fashion-mnist")


def test_the_real_fashion_mnist(fashion_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_DATA", str(fashion_mnist.parent))
    test = load("fashion-mnist", split="test")
    assert (len(test), test.shape, test.classes) == (10_000, (1, 28, 28), FASHION)
    assert labels_of(test)[:5] == [9, 2, 1, 1, 6]
    assert np.bincount(labels_of(test)).tolist() == [1000] * 10
    assert load(fashion_mnist, split="test").fingerprint() == test.fingerprint()
