"""`load`: every kind of source, and every mistake that a user can make with one."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import memory
from fewstep import progress as progress_module
from fewstep.data import Dataset, load
from fewstep.errors import FewstepError, FewstepWarning

RNG = np.random.default_rng(1)


def picture(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))


def put(path: Path, *size: int, mode: str = "RGB") -> np.ndarray:
    """Write a random picture, return its pixels [C, H, W]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture((size[0], size[-1]) if size else (8, 8), mode)
    image.save(path)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def labels_of(data: Dataset) -> list[int]:
    assert data.labels is not None
    return data.labels.tolist()


# --- digits -------------------------------------------------------------------------------------


def test_digits() -> None:
    from sklearn.datasets import load_digits

    train, test = load("digits"), load("digits", split="test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.shape == (1, 8, 8)
    assert train.classes == tuple("0123456789")
    whole = load_digits()
    per_class = np.bincount(whole.target)
    held_out = np.bincount(labels_of(test), minlength=10)
    assert np.abs(held_out - per_class * 360 / 1797).max() < 1

    def bag(images: np.ndarray, labels: object) -> list:
        return sorted((int(c), i.tobytes()) for i, c in zip(images, labels, strict=True))

    expected = np.rint(whole.images / 16 * 255).astype(np.uint8)[:, None]
    found = torch.cat([train.images, test.images]).numpy()
    assert bag(found, labels_of(train) + labels_of(test)) == bag(expected, whole.target)


def test_digits_pinned() -> None:
    """The split must never change: results on the test part would not be comparable."""
    train, test = load("digits"), load("digits", split="test")
    assert train.rows is not None
    assert test.rows is not None
    assert test.rows[:10].tolist() == [0, 3, 8, 9, 14, 15, 18, 19, 21, 26]


def test_digits_conform() -> None:
    plain = load("digits", labels=False)
    assert (plain.labels, plain.classes, len(plain)) == (None, (), 1437)
    big = load("digits", size=16, channels=3)
    assert big.shape == (3, 16, 16)
    assert labels_of(big) == labels_of(load("digits"))
    assert torch.equal(big.images[:, 0], big.images[:, 2])
    small = torch.nn.functional.avg_pool2d(big.images[:, :1].float(), 2)
    assert float((small - load("digits").images.float()).abs().mean()) < 12
    for other in ("val", "Validation", "testing"):
        assert torch.equal(load("digits", split=other).images, load("digits", split="test").images)
    with pytest.raises(FewstepError, match="unknown split 'all'"):
        load("digits", split="all")


# --- folders ------------------------------------------------------------------------------------


def test_a_flat_folder(tmp_path: Path) -> None:
    pixels = {
        name: put(tmp_path / name)
        for name in ("b.png", "a.bmp", "C.PNG", "sub.d/../d.tif", "e.webp.png")
    }
    (tmp_path / "sub.d").rmdir()
    for other in (".hidden.png", "notes.txt", "Thumbs.db"):
        (tmp_path / other).write_bytes(b"not an image")
    data = load(tmp_path)
    assert (data.shape, data.labels, data.classes) == ((3, 8, 8), None, ())
    order = ["C.PNG", "a.bmp", "b.png", "sub.d/../d.tif", "e.webp.png"]
    assert np.array_equal(data.images.numpy(), [pixels[name] for name in order])
    assert (data.name, data.source, data.skipped) == (tmp_path.name, str(tmp_path), 0)


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pnm"]
)
def test_every_ending_is_read(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (8, 8), (250, 10, 20)).save(tmp_path / f"x.{ending}")
    mean = load(tmp_path, channels=3).images.float().mean((0, 2, 3))
    assert float((mean - torch.tensor([250.0, 10.0, 20.0])).abs().max()) < 4


def test_class_folders(tmp_path: Path) -> None:
    pixels = [put(tmp_path / name) for name in ("cat/1.png", "cat/deep/er/2.png", "dog/1.png")]
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.txt").write_text("about")
    data = load(tmp_path)
    assert (data.classes, labels_of(data)) == (("cat", "dog"), [0, 0, 1])
    assert np.array_equal(data.images.numpy(), pixels)
    assert load(tmp_path, labels=False).labels is None


def test_a_mixture_needs_a_decision(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "loose.png"):
        put(tmp_path / name)
    with pytest.raises(FewstepError, match=r"1 images beside .*loose.png.* 2 inside.*labels=False"):
        load(tmp_path)
    assert len(load(tmp_path, labels=False)) == 3


def test_splits_of_a_folder(tmp_path: Path) -> None:
    names = ("train/ant/1.png", "train/cow/1.png", "train/cow/2.png", "val/bee/1.png")
    pixels = {name: put(tmp_path / name) for name in (*names, "val/cow/1.png")}
    train = load(tmp_path)
    assert (len(train), train.classes, labels_of(train)) == (3, ("ant", "cow"), [0, 1, 1])
    for split in ("val", "test"):
        held_out = load(tmp_path, split=split)
        assert held_out.classes == ("ant", "cow", "bee"), "the training classes keep their numbers"
        assert labels_of(held_out) == [2, 1]
        assert np.array_equal(held_out.images[0].numpy(), pixels["val/bee/1.png"])
    with pytest.raises(FewstepError, match=r"unknown split 'tst'.*'test'"):
        load(tmp_path, split="tst")


def test_a_class_called_train_is_not_a_split(tmp_path: Path) -> None:
    for name in ("train", "bus", "car"):
        put(tmp_path / name / "1.png")
    assert load(tmp_path).classes == ("bus", "car", "train")


def test_training_data_are_never_given_out_as_test_data(tmp_path: Path) -> None:
    put(tmp_path / "flat" / "1.png")
    with pytest.raises(FewstepError, match=r"no split 'test'.*not divided"):
        load(tmp_path / "flat", split="test")
    put(tmp_path / "half" / "train" / "1.png")
    assert len(load(tmp_path / "half")) == 1
    with pytest.raises(FewstepError, match=r"no split 'test'.*it has train"):
        load(tmp_path / "half", split="test")


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    outside = put(tmp_path / "outside" / "deep" / "o.png")
    inside = put(root / "a" / "i.png")
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    (root / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (root / "a" / "again").symlink_to(root / "a", target_is_directory=True)
    (root / "b").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "outside" / "deep" / "loop").symlink_to(tmp_path / "outside")
    data = load(root)
    assert (data.classes, labels_of(data)) == (("a", "b"), [0, 1])
    assert np.array_equal(data.images.numpy(), [inside, outside])


def test_colour_wins_unless_told_otherwise(tmp_path: Path) -> None:
    grey = [put(tmp_path / f"{i:02d}.png", mode="L") for i in range(40)]
    assert np.array_equal(load(tmp_path).images.numpy(), grey)
    assert load(tmp_path, channels=3).shape == (3, 8, 8)
    put(tmp_path / "z.png")
    data = load(tmp_path)
    assert data.shape == (3, 8, 8)
    assert np.array_equal(data.images[7].numpy(), np.repeat(grey[7], 3, 0))
    assert load(tmp_path, channels=1).shape == (1, 8, 8)


def test_mixed_sizes(tmp_path: Path) -> None:
    for i in range(40):
        put(tmp_path / f"{i:02d}.png")
    put(tmp_path / "35.png", 12, 9)
    with pytest.raises(FewstepError, match=r"00.png is 8x8, 35.png is 12x9; pass a size"):
        load(tmp_path)
    assert load(tmp_path, size=6).shape == (3, 6, 6)


def test_an_oblong_size_is_kept(tmp_path: Path) -> None:
    pixels = put(tmp_path / "1.png", 12, 9)
    assert np.array_equal(load(tmp_path).images[0].numpy(), pixels)


# --- broken files -------------------------------------------------------------------------------


def _truncated(kind: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        file = io.BytesIO()
        picture((64, 64)).save(file, kind)
        path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])

    return write


def _bomb(path: Path) -> None:
    Image.new("L", (200, 200)).save(path, "PNG")


BROKEN = {
    "empty file": lambda path: path.write_bytes(b""),
    "not an image": lambda path: path.write_text("no picture"),
    "truncated": _truncated("PNG"),
    "image file is truncated": _truncated("JPEG"),
    "No such file": lambda path: path.symlink_to(path.parent / "nowhere"),
    "decompression bomb": _bomb,
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_file_is_named_or_skipped(
    tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    good = [put(tmp_path / "cat" / "1.png"), put(tmp_path / "dog" / "9.png")]
    BROKEN[why](tmp_path / "cat" / "5.png")
    for _ in range(2):
        with pytest.raises(FewstepError, match=rf"1 of 3 images .* cat/5.png \(.*{why}.*skip_bad"):
            load(tmp_path)
        data = load(tmp_path, skip_bad=True)
        assert (data.skipped, labels_of(data)) == (1, [0, 1])
        assert np.array_equal(data.images.numpy(), good)


def test_many_broken_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "z.png")
    for i in range(70):
        (tmp_path / f"{i:02d}.png").write_bytes(b"x")
    with pytest.raises(FewstepError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert message.startswith("70 of 71 images")
    assert "00.png (not an image)" in message
    assert "04.png" in message
    assert "05.png" not in message
    assert "and 65 more" in message
    assert load(tmp_path, skip_bad=True).skipped == 70


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    for skip_bad in (False, True):
        with pytest.raises(FewstepError, match="1 of 1 images"):
            load(tmp_path, skip_bad=skip_bad)


# --- nothing there ------------------------------------------------------------------------------


def test_missing_paths_get_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(FewstepError, match=r"flwers.*Did you mean '.*/flowers'"):
        load(tmp_path / "flwers")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FewstepError, match="Did you mean 'digits'"):
        load("digit")
    with pytest.raises(FewstepError, match=r"There is no folder .*nowhere either"):
        load(tmp_path / "nowhere" / "x.parquet")
    with pytest.raises(FewstepError, match="no such data"):
        load(tmp_path / "*.parquet")


def test_a_path_called_digits_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "digits" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert load(Path("digits")).shape == (3, 8, 8)
    assert load("./digits").shape == (3, 8, 8)
    assert load("digits").shape == (1, 8, 8)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match=r"holds no images.*\.png"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FewstepError, match="not a kind of data"):
        load(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["run.json", "clock.json"])
def test_sample_grids_of_a_run_are_no_data(tmp_path: Path, name: str) -> None:
    put(tmp_path / "samples/step-00000100.png")
    (tmp_path / name).write_text("{}")
    with pytest.raises(FewstepError, match=f"{name}.*not images"):
        load(tmp_path)


def test_an_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a" / "1.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FewstepError, match=r"cannot read the folder .*/a: Permission denied"):
        load(tmp_path)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": "8"}, {"channels": 2}])
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(FewstepError, match="must be"):
        load("digits", **options)


@pytest.mark.parametrize("source", [None, ["digits"], np.zeros((2, 8, 8), np.uint8), 5])
def test_a_source_is_a_text_or_a_path(source: object) -> None:
    with pytest.raises(FewstepError, match="named by a text or a path"):
        load(source)  # type: ignore[arg-type]


# --- npz, npy -----------------------------------------------------------------------------------


def test_archives(tmp_path: Path) -> None:
    u = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    labels = np.array([0, 2, 1, 1, 0, 2])
    expected = torch.from_numpy(u.transpose(0, 3, 1, 2).copy())
    np.savez(tmp_path / "a.npz", u, labels)
    np.savez(tmp_path / "b.npz", images=u.transpose(0, 3, 1, 2), labels=labels.astype(np.int32))
    np.savez_compressed(tmp_path / "c.npz", images=u, other=labels)
    with pytest.warns(FewstepWarning, match=r"c\.npz: no array .* other .*--label-column"):
        load(tmp_path / "c.npz")
    assert labels_of(load(tmp_path / "c.npz", label_column="other")) == labels.tolist()
    for name in "abc":
        data = load(tmp_path / f"{name}.npz", labels=name != "c")
        assert torch.equal(data.images, expected)
        assert (data.labels is None) == (name == "c")
        assert data.name == name
    assert labels_of(load(tmp_path / "b.npz")) == labels.tolist()
    assert load(tmp_path / "a.npz", labels=False).labels is None
    resized = load(tmp_path / "a.npz", size=4, channels=1)
    assert (resized.shape, labels_of(resized)) == ((1, 4, 4), labels.tolist())


def test_single_arrays(tmp_path: Path) -> None:
    u = RNG.integers(0, 256, (6, 5, 5, 1), dtype=np.uint8)
    np.save(tmp_path / "u.npy", u)
    data = load(tmp_path / "u.npy")
    assert np.array_equal(data.images.numpy(), u.transpose(0, 3, 1, 2))
    points = RNG.normal(0, 9, (20, 2))
    np.save(tmp_path / "points.npy", points)
    assert torch.equal(load(tmp_path / "points.npy").images, torch.from_numpy(points).float())
    with pytest.raises(FewstepError, match="for images, not points"):
        load(tmp_path / "points.npy", size=8)
    np.save(tmp_path / "x.npy", RNG.uniform(-1, 1, (2, 1, 4, 4)))
    with pytest.raises(FewstepError, match="convert them to uint8"):
        load(tmp_path / "x.npy", size=8)


def test_float_images_of_a_file(tmp_path: Path) -> None:
    """In [-1, 1] or [0, 1], with or without channels; what is assumed of them is said."""
    signed = RNG.uniform(-1, 1, (6, 4, 5))
    expected = torch.from_numpy(signed).float()[:, None]
    for array, said in (
        (signed[..., None], ""),
        (signed, r".*grey\.npy: floats in \[-1, 1\], taken for grey images of 5x4\."),
        ((signed + 1) / 2, r".*grey\.npy: floats in \[0, 1\], taken for grey images of 5x4\."),
        ((signed[:, None] + 1) / 2 - 3e-8, r".*grey\.npy: floats in \[0, 1\], taken for images\."),
    ):
        np.save(tmp_path / "grey.npy", array)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            data = load(tmp_path / "grey.npy")
        assert re.fullmatch(said, "".join(str(w.message) for w in told))
        assert torch.allclose(data.images, expected, atol=1e-6)
    for array, hint in ((signed * 9, "points as"), (signed[:, None, None], "nor points")):
        np.save(tmp_path / "grey.npy", array)
        with pytest.raises(FewstepError, match=rf"grey\.npy: .*{hint} \[N, d\]"):
            load(tmp_path / "grey.npy")


def test_arrays_that_are_left_out_are_said(tmp_path: Path) -> None:
    for name in ("x_train", "y_train", "x_test"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 4, 4), np.uint8))
    with pytest.warns(FewstepWarning, match=r"without labels; if y_train.npy holds them"):
        assert load(tmp_path / "x_train.npy").labels is None
    put(tmp_path / "1.png")
    with pytest.warns(FewstepWarning, match=r"its arrays \(x_test.npy, x_train.npy, y_train.npy\)"):
        assert len(load(tmp_path)) == 1


def test_the_other_split_of_an_archive(tmp_path: Path) -> None:
    for name, n in (("train", 3), ("test", 2), ("alone", 4), ("contrast", 5)):
        np.savez(tmp_path / f"{name}.npz", np.zeros((n, 4, 4, 1), np.uint8))
    assert len(load(tmp_path / "train.npz", split="test")) == 2
    assert len(load(tmp_path / "test.npz", split="test")) == 2
    assert len(load(tmp_path / "test.npz")) == 2
    for name in ("alone", "contrast"):
        with pytest.raises(FewstepError, match="no split 'test'"):
            load(tmp_path / f"{name}.npz", split="test")


def test_broken_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "key.npz", image=np.zeros((2, 4, 4, 1), np.uint8))
    with pytest.raises(FewstepError, match=r"key.npz: unknown array 'image'.*'images'"):
        load(tmp_path / "key.npz")
    np.savez(tmp_path / "object.npz", np.array([{}, None]))
    with pytest.raises(FewstepError, match=r"object.npz"):
        load(tmp_path / "object.npz")
    np.savez(tmp_path / "nan.npz", np.full((2, 1, 4, 4), np.nan))
    with pytest.raises(FewstepError, match=r"nan.npz: .*first at index 0"):
        load(tmp_path / "nan.npz")
    whole = (tmp_path / "nan.npz").read_bytes()
    for name, content in (("cut.npz", whole[:-40]), ("junk.npz", b"junk"), ("void.npy", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FewstepError, match=name):
            load(tmp_path / name)


def npy(shape: str, dtype: str = "|u1", content: bytes = b"") -> bytes:
    """An array's file with a header of any content."""
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (npy("(1000000000000,)"), "takes 1,000,000,000,000 bytes, but there are 0"),
        (npy("(-5, 3, 8, 8)"), r"shape is \[-5, 3, 8, 8\]"),
        (npy("(4, 8, 8, 3)", content=bytes(767)), "768 bytes, but there are 767"),
        (npy("(" * 90), "no plain array"),
        (npy("(0, 8, 8, 3)"), "are empty"),
        (npy("(4, 0, 8, 3)"), "are empty"),
        (npy("(2,)", "|O", b"x"), "object|pickled"),
        (b"", "no plain array"),
    ],
)
def test_arrays_that_are_not_what_they_say(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", content)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(FewstepError, match=rf"{name}.*(?s:.*)({why})"):
            load(tmp_path / name)


def test_an_array_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", np.zeros((4, 8, 8, 3), np.uint8))
    monkeypatch.setattr(memory, "free_memory", lambda: 767)
    with pytest.raises(FewstepError, match=r"x\.npz, array arr_0 needs .* GiB of memory"):
        load(tmp_path / "x.npz")


def test_labels_that_are_objects(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.zeros((2, 8, 8, 3), np.uint8), np.array(["a", None]))
    with pytest.raises(FewstepError, match=r"arr_1 holds pickled objects.*astype\(str\)"):
        load(tmp_path / "x.npz")
    assert load(tmp_path / "x.npz", labels=False).labels is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet", "x", "in/x.npz", "in/x.parquet"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(FewstepError, match=r"x.* is no file but a pipe"):
        load(tmp_path / "in" if "/" in name else tmp_path / name)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("a" * 300, "File name too long"),
        ("~nobody-of-this-name/x", "home"),
        ("x\0y", "no such data|null byte"),
        ("", "no data named"),
        ("[", "no such data"),
    ],
)
def test_paths_that_cannot_be(source: str, why: str) -> None:
    with pytest.raises(FewstepError, match=why):
        load(source)


def test_columns_are_not_ignored(tmp_path: Path) -> None:
    """Where there are none to be named, that is said."""
    put(tmp_path / "d" / "1.png")
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 3), np.uint8))
    sources = ("digits", tmp_path / "d", tmp_path / "x.npy", load("digits"))
    for source in sources:
        with pytest.raises(FewstepError, match="--image-column"):
            load(source, image_column="image")
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 8, 8, 3), np.uint8), b=np.array([3, 4]))
    with pytest.raises(FewstepError, match=r"x\.npz: .*--image-column\), of a, b"):
        load(tmp_path / "x.npz")
    data = load(tmp_path / "x.npz", image_column="a", label_column="b")
    assert data.classes == ("3", "4")
    with pytest.raises(FewstepError, match=r"unknown array 'c'"):
        load(tmp_path / "x.npz", image_column="a", label_column="c")


def test_a_data_set_passes_through() -> None:
    data = Dataset.from_arrays(np.zeros((3, 1, 8, 8), np.uint8), [0, 1, 1])
    assert load(data) is data
    assert load(data, labels=False).labels is None
    assert load(data, size=4).shape == (1, 4, 4)


# --- progress -----------------------------------------------------------------------------------


def test_only_long_work_shows_a_bar(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "data" / "1.png")
    load(tmp_path / "data", cache=tmp_path / "one")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress_module, "PATIENCE", -1.0)
    load(tmp_path / "data", cache=tmp_path / "two")
    out, err = capfd.readouterr()
    assert out == ""
    assert "Decoding data" in err
    assert "1/1" in err
