"""Which files and folders are held out, by every way to write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.data import load
from fewstep.data.splits import divide, names_split, read_name
from fewstep.errors import FewstepError, FewstepWarning

SPELLINGS = {
    "train": [
        "train",
        "Train",
        "TRAINING",
        "train-images",
        "train2017",
        "Training Set",
        "trainset",
    ],
    "val": ["val", "VAL", "valid", "Validation Set", "dev", "val_64x64", "valData"],
    "test": ["test", "Test", "testing", "test_set", "Eval", "EVALUATION", "test-images", "TestSet"],
}
NO_SPLITS = [
    "testimonials",
    "training-shoes",
    "contest",
    "latest",
    "attest",
    "x",
    "devon",
    "strain",
]


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path, "JPEG" if path.suffix == ".jfif" else None)


def values(data: object) -> list[int]:
    return sorted(data.images[:, 0, 0, 0].tolist())  # type: ignore[attr-defined]


def test_the_words() -> None:
    for split, names in SPELLINGS.items():
        for name in names:
            assert names_split(name) == split, name
            assert read_name(f"cifar_{name}-00000-of-00002").split == split, name
    for name in NO_SPLITS:
        assert names_split(name) == "", name
    assert divide(["cifar_train", "cifar_test", "docs"]) == {
        "cifar_train": "train",
        "cifar_test": "test",
    }
    assert divide(["training-shoes", "boots"]) == {}
    assert read_name("train_test").split == ""
    for name in ("mydata_test", "mydataTest", "x_test", "test1", "1-test"):
        assert read_name(name).split == "test", name


@pytest.mark.parametrize("train", SPELLINGS["train"])
@pytest.mark.parametrize("test", ["Test", "val_64x64", "EVALUATION"])
def test_folders(tmp_path: Path, train: str, test: str) -> None:
    picture(tmp_path / train / "cat" / "1.png", 1)
    picture(tmp_path / train / "dog" / "1.png", 2)
    picture(tmp_path / test / "dog" / "1.png", 3)
    (tmp_path / "docs").mkdir()
    data = load(tmp_path)
    assert (data.classes, values(data)) == (("cat", "dog"), [1, 2])
    held_out = load(tmp_path, split="test")
    assert held_out.labels is not None
    assert [held_out.classes[i] for i in held_out.labels.tolist()] == ["dog"]
    assert values(held_out) == [3]


def test_folders_without_training_images(tmp_path: Path) -> None:
    for name in ("test/cat/1.png", "Validation/dog/1.png"):
        picture(tmp_path / name)
    with pytest.raises(FewstepError, match=r"no split 'train'.*: it has test, val"):
        load(tmp_path)
    assert len(load(tmp_path, split="val")) == 1
    assert len(load(tmp_path / "test")) == 1


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("train/1.png", "test/1.png", "bus/1.png"), r"splits \(test, train\) beside .*\(bus\)"),
        (("test/1.png", "bus/1.png"), r"splits \(test\) beside others \(bus\): rename"),
        (("train/cat/1.png", "bus/1.png"), r"splits \(train\) beside others \(bus\)"),
        (("train/1.png", "Training/1.png", "test/1.png"), r"both split 'train'"),
        (("trainA/1.png", "trainB/1.png", "testA/1.png", "testB/1.png"), r"both split 'test'"),
        (("cat/test/1.png", "cat/train/1.png", "dog/1.png"), r"1 outside, such as dog/1.png"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    for name in names:
        picture(tmp_path / name)
    with pytest.raises(FewstepError, match=why):
        load(tmp_path)


def test_what_is_no_split(tmp_path: Path) -> None:
    for name in ("testimonials", "training-shoes", "train"):
        picture(tmp_path / name / "1.png")
    assert load(tmp_path).classes == ("testimonials", "train", "training-shoes")


def test_classes_that_are_divided(tmp_path: Path) -> None:
    for i, name in enumerate(("cat/train/1.png", "cat/Test/1.png", "dog/train/1.png")):
        picture(tmp_path / name, i)
    data = load(tmp_path)
    assert (data.classes, values(data)) == (("cat", "dog"), [0, 2])
    assert values(load(tmp_path, split="test")) == [1]


def test_a_folder_around_the_splits(tmp_path: Path) -> None:
    for i, name in enumerate(("images/train/cat/1.png", "images/train/dog/1.png")):
        picture(tmp_path / name, i)
    picture(tmp_path / "images" / "val" / "dog" / "1.png", 2)
    (tmp_path / "labels").mkdir()
    data, held_out = load(tmp_path), load(tmp_path, split="val")
    assert (data.classes, values(data)) == (("cat", "dog"), [0, 1])
    assert (held_out.classes, values(held_out)) == (("cat", "dog"), [2])


def test_names_of_images_that_say_splits(tmp_path: Path) -> None:
    for i, name in enumerate(("train_1.png", "train_2.png", "Test-1.png")):
        picture(tmp_path / name, i)
    with pytest.warns(FewstepWarning, match=r"of 3 images the 2 .*'train' are taken"):
        assert values(load(tmp_path)) == [0, 1]
    with pytest.warns(FewstepWarning, match="the 1 whose names say split 'test'"):
        assert values(load(tmp_path, split="test")) == [2]
    picture(tmp_path / "steam_train.png", 3)
    picture(tmp_path / "boat.png", 4)
    assert len(load(tmp_path)) == 5


def test_images_beside_splits_are_left_out_and_said(tmp_path: Path) -> None:
    for name in ("train/1.png", "test/1.png", "logo.png"):
        picture(tmp_path / name)
    with pytest.warns(FewstepWarning, match=r"left out 1 images \(such as logo\.png\)"):
        assert len(load(tmp_path)) == 1


def test_pictures_that_are_not_read_are_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.jfif")
    (tmp_path / "b.HEIC").write_bytes(b"x")
    with pytest.warns(FewstepWarning, match=r"left out 1 pictures .*b\.HEIC"):
        assert len(load(tmp_path)) == 1


def test_lists_of_labels_are_not_read_and_said(tmp_path: Path) -> None:
    picture(tmp_path / "00000" / "a.png")
    (tmp_path / "dataset.json").write_text('{"labels": [["00000/a.png", 6]]}')
    with pytest.warns(FewstepWarning, match=r"dataset\.json is not read.*--no-labels"):
        assert load(tmp_path).classes == ("00000",)
    assert load(tmp_path, labels=False).labels is None


def test_thumbnails_and_what_systems_leave(tmp_path: Path) -> None:
    names = ("@eaDir/1.png/THUMB.jpg", "cat/@eaDir/1.jpg", ".thumbnails/1.png", "#recycle/1.png")
    more = (
        "__MACOSX/._1.png",
        ".ipynb_checkpoints/1.png",
        "$RECYCLE.BIN/1.png",
        "lost+found/1.png",
    )
    for name in ("cat/1.png", *names, *more, "cat/.Trash/1.png", "cat/._1.png"):
        picture(tmp_path / name)
    data = load(tmp_path)
    assert (data.classes, len(data)) == (("cat",), 1)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train.npz", "TEST.npz"),
        ("mnistTrain.npz", "mnistTest.npz"),
        ("training_set.npz", "dev_set.npz"),
        ("Train/0.npz", "Test/0.npz"),
        ("x_train.npy", "x_test.npy"),
    ],
)
def test_archives(tmp_path: Path, train: str, test: str) -> None:
    for name, n in ((train, 3), (test, 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        images = np.zeros((n, 8, 8, 3), np.uint8)
        np.save(tmp_path / name, images) if name.endswith("npy") else np.savez(
            tmp_path / name, images
        )
    assert len(load(tmp_path / test)) == 2, "a file that is named is taken"
    assert len(load(tmp_path / train)) == 3
    assert len(load(tmp_path / train, split="test")) == 2
    if "/" not in train:
        assert (len(load(tmp_path)), len(load(tmp_path, split="test"))) == (3, 2)


@pytest.mark.parametrize(
    ("train", "test", "classes"),
    [
        ("a/b/train/{}", "a/b/test/{}", ("cat", "dog")),
        ("a/b/c/Training/{}", "a/b/c/Validation/{}", ("cat", "dog")),
        ("train/images/{}", "test/images/{}", ("cat", "dog")),
        ("seg_train/seg_train/{}", "seg_test/seg_test/{}", ("cat", "dog")),
        ("chess/train/{}/images", "chess/valid/{}/images", ("cat", "dog")),
    ],
)
def test_folders_that_only_hold_others(
    tmp_path: Path, train: str, test: str, classes: tuple[str, ...]
) -> None:
    for i, name in enumerate((train.format("cat"), train.format("dog"), test.format("dog"))):
        picture(tmp_path / name / "1.png", i)
    data, held_out = load(tmp_path), load(tmp_path, split="test")
    assert (data.classes, values(data)) == (classes, [0, 1])
    assert (held_out.classes, values(held_out)) == (classes, [2])
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [1]


def test_held_out_images_without_classes(tmp_path: Path) -> None:
    for i, name in enumerate(("train/cat/images/1.png", "train/dog/images/1.png")):
        picture(tmp_path / name, i)
    picture(tmp_path / "val" / "images" / "1.png", 2)
    assert load(tmp_path).classes == ("cat", "dog")
    held_out = load(tmp_path, split="val")
    assert (held_out.labels, values(held_out)) == (None, [2])


@pytest.mark.parametrize("around", ["images", "photos/photos"])
def test_splits_in_a_folder_that_only_holds_them_have_no_class(tmp_path: Path, around: str) -> None:
    for i, name in enumerate(("train/1.png", "val/2.png")):
        picture(tmp_path / "photos" / around.removeprefix("photos/") / name, i)
    data, held_out = (load(tmp_path / "photos", split=split) for split in ("train", "val"))
    assert (data.classes, values(data), held_out.classes, values(held_out)) == ((), [0], (), [1])
    picture(tmp_path / "cat" / "cats" / "train" / "1.png")
    picture(tmp_path / "cat" / "cats" / "val" / "1.png")
    assert load(tmp_path / "cat").classes == ("cats",)


def test_splits_deep_inside_are_never_trained_on(tmp_path: Path) -> None:
    for i, name in enumerate(("a/b/train/1.png", "a/b/test/1.png")):
        picture(tmp_path / "one" / name, i)
        picture(tmp_path / "two" / name, i)
    assert values(load(tmp_path / "one")) == [0]
    assert values(load(tmp_path / "one", split="test")) == [1]
    with pytest.raises(FewstepError, match=r"splits \(test, train\) inside folders"):
        load(tmp_path)


def test_the_only_class_may_hold_the_classes(tmp_path: Path) -> None:
    picture(tmp_path / "archive" / "cat" / "1.png")
    picture(tmp_path / "archive" / "dog" / "1.png")
    with pytest.warns(FewstepWarning, match=r"the class 'archive'.*\(cat, dog\) are the classes"):
        assert load(tmp_path).classes == ("archive",)
    assert load(tmp_path / "archive").classes == ("cat", "dog")
