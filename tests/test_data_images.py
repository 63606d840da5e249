"""Pictures out: conversion, grids, files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.data import grid, load, save_images, to_float, to_uint8
from fewstep.errors import FewstepError


@pytest.fixture
def colour() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)


def test_all_bytes_survive_the_round_trip() -> None:
    u = torch.arange(256, dtype=torch.uint8)
    x = to_float(u)
    assert (float(x[0]), float(x[255])) == (-1.0, 1.0)
    assert torch.equal(to_uint8(x), u)
    assert torch.equal(to_uint8(x.double()), u)
    assert torch.equal(to_uint8(x.to(torch.float16)), u)


def test_bytes_are_rounded_and_clipped() -> None:
    x = torch.tensor([-7.0, -1.001, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.999, 1.2, 9.0])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 255, 255, 255]
    kept = x.clone()
    to_uint8(x)
    assert torch.equal(x, kept), "the argument must not change"


def test_the_grid_places_every_pixel(colour: torch.Tensor) -> None:
    sheet = grid(colour, columns=2, scale=3, pad=2)
    assert sheet.shape == (3, 3 * (12 + 2) + 2, 2 * (18 + 2) + 2)
    seen = torch.zeros(sheet.shape[1:], dtype=torch.bool)
    for n in range(5):
        top, left = 2 + n // 2 * 14, 2 + n % 2 * 20
        tile = sheet[:, top : top + 12, left : left + 18]
        seen[top : top + 12, left : left + 18] = True
        for dy in range(3):
            for dx in range(3):
                assert torch.equal(tile[:, dy::3, dx::3], colour[n])
    assert bool((sheet[:, ~seen] == 255).all()), "borders and empty cells are white"


@pytest.mark.parametrize(
    ("n", "side", "expected"),
    [(16, 8, 4 * 65 + 1), (100, 32, 10 * 65 + 1), (4, 256, 2 * 257 + 1), (10_000, 8, 100 * 17 + 1)],
)
def test_a_grid_has_a_pleasant_size(n: int, side: int, expected: int) -> None:
    assert grid(torch.zeros(n, 1, side, side, dtype=torch.uint8)).shape == (1, expected, expected)


def test_a_grid_is_written_as_seen(tmp_path: Path, colour: torch.Tensor) -> None:
    path = save_images(colour, tmp_path / "new" / "grid.png", columns=5)
    expected = grid(colour, 5).permute(1, 2, 0).numpy()
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), expected)
    grey = save_images(colour[:, :1], tmp_path / "grey.png")
    with Image.open(grey) as image:
        assert image.mode == "L"
    save_images(colour, grey)
    assert sorted(os.listdir(tmp_path)) == ["grey.png", "new"], "no temporary files stay"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_found_again(tmp_path: Path, colour: torch.Tensor, channels: int) -> None:
    images = colour[:, :channels]
    folder = save_images(images, tmp_path / "samples")
    assert sorted(os.listdir(folder)) == [f"{i:05d}.png" for i in range(5)]
    data = load(folder)
    assert torch.equal(data.images, images)
    assert data.labels is None


def test_labels_make_subfolders(tmp_path: Path, colour: torch.Tensor) -> None:
    labels = torch.tensor([1, 0, 1, 1, 0])
    data = load(save_images(colour, tmp_path / "s", labels, classes=("cat", "dog")))
    order = [1, 4, 0, 2, 3]
    assert data.classes == ("cat", "dog")
    assert torch.equal(data.images, colour[order])
    assert data.labels is not None
    assert torch.equal(data.labels, labels[order])
    assert (save_images(colour, tmp_path / "t", labels) / "1" / "00003.png").is_file()


NAMES = [
    ("T-shirt/top", "b"),
    ("../up", "/abs/olute"),
    (".hidden", ""),
    ("train", "test"),
    ("Test Set", "bus"),
    ("a train", "a test"),
    ("model_train", "model_test", "model"),
    ("x train", "x/test", "x:val"),
    ("@eaDir", "lost+found"),
    ("CON", "nul.txt"),
    ("Cat", "cat"),
    ("cat ", "cat."),
    ("x" * 300, "é" * 120),
    ("T-shirt/top", "T-shirt_top"),
    ("class-0", "a:b", "class", ":", "?"),
    ("\udcff", "日本", "a\nb"),
    ("x.png", "y.parquet", "10", "9", "1"),
]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("place", ["new/d", "new/d.npz"])
def test_class_names_come_back(tmp_path: Path, names: tuple[str, ...], place: str) -> None:
    """As names, whatever they are; nothing is written outside."""
    labels = torch.arange(2 * len(names)) % len(names)
    images = labels.byte()[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    data = load(save_images(images, tmp_path / place, labels, names), cache=tmp_path / "c")
    assert os.listdir(tmp_path / "new") == [Path(place).name]
    assert sorted(data.classes) == sorted(names)
    assert data.labels is not None
    found = [data.classes[i] for i in data.labels.tolist()]
    assert found == [names[i] for i in data.images[:, 0, 0, 0].tolist()]
    assert set(os.listdir(tmp_path)) <= {"new", "c"}


def test_twelve_classes_keep_their_numbers(tmp_path: Path) -> None:
    labels = torch.arange(12)
    images = labels.byte()[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    data = load(save_images(images, tmp_path / "d", labels))
    assert data.classes == tuple(map(str, range(12)))
    assert data.labels is not None
    assert data.labels.tolist() == data.images[:, 0, 0, 0].tolist()
    few = load(save_images(images[:2], tmp_path / "few", torch.tensor([5, 11]), data.classes))
    assert few.classes == ("5", "11")


def test_a_note_on_class_names_that_is_damaged(tmp_path: Path, colour: torch.Tensor) -> None:
    folder = save_images(colour, tmp_path / "d", torch.tensor([0, 1, 1, 0, 0]), ("a/b", "c"))
    note = folder / "fewstep-classes.json"
    for content in ("[]", "{", '{"format": 1, "classes": {"a_b": 5}}', "[" * 99999):
        note.write_text(content)
        with pytest.raises(FewstepError, match=r"fewstep-classes\.json is not a note"):
            load(folder)
    note.unlink()
    assert load(folder).classes == ("a_b", "c")


def test_an_archive_is_found_again(tmp_path: Path, colour: torch.Tensor) -> None:
    labels = torch.tensor([1, 0, 1, 1, 0])
    path = save_images(colour, tmp_path / "s.npz", labels)
    with np.load(path) as content:
        assert content["arr_0"].shape == (5, 4, 6, 3)
        assert content["arr_0"].dtype == np.uint8
    data = load(path)
    assert torch.equal(data.images, colour)
    assert data.labels is not None
    assert torch.equal(data.labels, labels)
    with np.load(save_images(colour, tmp_path / "t.npz")) as content:
        assert content.files == ["arr_0"]


def test_nothing_is_mixed_or_overwritten_in_a_folder(tmp_path: Path, colour: torch.Tensor) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FewstepError, match="not empty"):
        save_images(colour, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    save_images(colour, tmp_path / "empty")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(FewstepError, match="in the way"):
        save_images(colour, tmp_path / "a.png")


def test_a_place_that_cannot_be_written(tmp_path: Path, colour: torch.Tensor) -> None:
    (tmp_path / "file").write_text("not a folder")
    for name in ("file/x.png", "file/x.npz", "file/x"):
        with pytest.raises(FewstepError, match=r"cannot write .*file/x"):
            save_images(colour, tmp_path / name)


def test_a_failure_leaves_the_old_file(
    tmp_path: Path, colour: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_images(colour, tmp_path / "x.npz")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(FewstepError, match="No space left"):
        save_images(colour, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 3, 4, 4), torch.zeros(2, 2, 4, 4).byte(), torch.zeros(0, 3, 4, 4).byte()],
)
def test_only_bytes_are_written(tmp_path: Path, wrong: torch.Tensor) -> None:
    with pytest.raises(FewstepError, match="to_uint8"):
        save_images(wrong, tmp_path / "x.png")


def test_bytes_are_no_floats(colour: torch.Tensor) -> None:
    for wrong in (colour, colour.long(), colour.numpy()):
        with pytest.raises(FewstepError, match="takes a tensor of floats"):
            to_uint8(wrong)


@pytest.mark.parametrize("name", ["x.PNG", "x.Npz"])
def test_endings_in_capitals(tmp_path: Path, colour: torch.Tensor, name: str) -> None:
    path = save_images(colour, tmp_path / name)
    assert path.is_file()
    if name == "x.Npz":
        assert torch.equal(load(path).images, colour)


@pytest.mark.parametrize("name", ["x.npz", "x"])
def test_labels_as_people_have_them(tmp_path: Path, colour: torch.Tensor, name: str) -> None:
    """Lists and arrays, of numbers or names, with and without classes."""
    for i, (labels, classes, names) in enumerate(
        [
            ([5, 7, 5, 7, 5], (), "57575"),
            (np.array(["b", "a", "b", "a", "b"]), (), "babab"),
            (["b", "a", "b", "a", "b"], ("b", "a"), "babab"),
            ([0, 1, 0, 1, 0], (5, 7), "57575"),
        ]
    ):
        path = save_images(colour, tmp_path / str(i) / name, labels, classes)  # type: ignore[arg-type]
        data = load(path, cache=tmp_path / "cache")
        order = {x.numpy().tobytes(): k for k, x in enumerate(colour)}
        found = [order[x.numpy().tobytes()] for x in data.images]
        assert data.labels is not None
        assert [data.classes[k] for k in data.labels.tolist()] == [names[k] for k in found]


def test_other_mistakes(tmp_path: Path, colour: torch.Tensor) -> None:
    with pytest.raises(FewstepError, match=r"not as '.jpg'"):
        save_images(colour, tmp_path / "x.jpg")
    with pytest.raises(FewstepError, match="5 images but 2 labels"):
        save_images(colour, tmp_path / "x.npz", torch.tensor([1, 2]))
    for labels, classes, why in (
        ([0, 1, 2, 0, 1], ("a", "b"), "label 2, but there are 2 classes"),
        ([0, 1, -1, 0, 1], (), "example 2 has -1"),
        ([0, 1, 1, 0, 1], ("a", "a"), "two classes are called 'a'"),
    ):
        for name in ("x.npz", "x"):
            with pytest.raises(FewstepError, match=why):
                save_images(colour, tmp_path / name, torch.tensor(labels), classes)
            assert os.listdir(tmp_path) == []
    with pytest.raises(FewstepError, match="columns=0"):
        grid(colour, columns=0)
