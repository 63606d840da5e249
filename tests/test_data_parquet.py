"""Parquet files and the hub, offline."""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.data import NoSplit, load
from fewstep.errors import FewstepError, FewstepWarning

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PIXELS = np.random.default_rng(2).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8)
LABELS = [0, 1, 2, 2, 1, 0, 1]


@pytest.fixture(autouse=True)
def _no_network_and_no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("a test touched the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    yield
    assert not cache.exists(), "something was written to the user's Hugging Face cache"


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def structs(pixels: np.ndarray = PIXELS) -> list[dict[str, Any]]:
    return [{"bytes": png(p), "path": f"{i}.png"} for i, p in enumerate(pixels)]


def typed(path: Path, start: int = 0, stop: int = 7) -> Path:
    """A file as `datasets` writes it, with the types of its columns inside."""
    features = datasets.Features(
        img=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee", "cow"])
    )
    rows = {"img": structs()[start:stop], "label": LABELS[start:stop]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


def untyped(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_typed_file(tmp_path: Path) -> None:
    data = load(typed(tmp_path / "x.parquet"))
    assert np.array_equal(data.images.numpy(), PIXELS)
    assert data.classes == ("ant", "bee", "cow")
    assert data.labels is not None
    assert data.labels.tolist() == LABELS
    assert load(tmp_path / "x.parquet", labels=False).labels is None
    assert load(str(tmp_path / "x.parquet"), size=4, channels=1).shape == (1, 4, 4)


@pytest.mark.parametrize("column", ["struct", "binary", "large_binary", "binary_view"])
def test_raw_columns(tmp_path: Path, column: str) -> None:
    content: Any = structs()
    if column != "struct":
        content = pa.array([row["bytes"] for row in structs()], getattr(pa, column)())
    path = untyped(tmp_path / "x.parquet", id=list("abcdefg"), photo=content, fine_label=LABELS)
    data = load(path)
    assert np.array_equal(data.images.numpy(), PIXELS)
    assert data.classes == ("0", "1", "2")
    assert data.labels is not None
    assert data.labels.tolist() == LABELS


def test_awkward_paths_and_relative_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a [b] *c, {d} é"
    folder.mkdir()
    typed(folder / "x [1].parquet")
    assert len(load(folder / "x [1].parquet")) == 7
    monkeypatch.chdir(folder)
    assert len(load("x [1].parquet")) == 7


def test_shards_and_splits(tmp_path: Path) -> None:
    typed(tmp_path / "train-00001-of-00002.parquet", 3, 5)
    typed(tmp_path / "train-00000-of-00002.parquet", 0, 3)
    typed(tmp_path / "validation-00000-of-00001.parquet", 5, 7)
    (tmp_path / "README.md").write_text("about")
    for source in (tmp_path, tmp_path / "*.parquet"):
        assert np.array_equal(load(source).images.numpy(), PIXELS[:5])
        assert np.array_equal(load(source, split="test").images.numpy(), PIXELS[5:])
    everything = load(tmp_path / "train-*.parquet")
    assert np.array_equal(everything.images.numpy(), PIXELS[:5])


def test_the_shards_of_another_split(tmp_path: Path) -> None:
    typed(tmp_path / "train-00000-of-00001.parquet", 0, 4)
    typed(tmp_path / "test-00000-of-00002.parquet", 4, 6)
    typed(tmp_path / "test-00001-of-00002.parquet", 6, 7)
    data = load(tmp_path / "train-00000-of-00001.parquet", split="test")
    assert np.array_equal(data.images.numpy(), PIXELS[4:])


def test_the_sibling_of_a_file(tmp_path: Path) -> None:
    typed(tmp_path / "train.parquet", 0, 4)
    with pytest.raises(FewstepError, match="no split 'test'"):
        load(tmp_path / "train.parquet", split="test")
    typed(tmp_path / "test.parquet", 4, 7)
    assert len(load(tmp_path / "train.parquet", split="test")) == 3
    assert len(load(tmp_path / "test.parquet")) == 3


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = untyped(
        tmp_path / "x.parquet", left=structs(), right=structs(255 - PIXELS), kind=LABELS, n=[3] * 7
    )
    with pytest.raises(
        FewstepError, match=r"several image columns \(left, right\).*--image-column"
    ):
        load(path)
    with pytest.warns(FewstepWarning, match=r"no column .* one of kind, n .*--label-column"):
        data = load(path, image_column="right")
    assert np.array_equal(data.images.numpy(), 255 - PIXELS)
    assert data.labels is None
    labelled = load(path, image_column="left", label_column="kind")
    assert np.array_equal(labelled.images.numpy(), PIXELS)
    assert labelled.labels is not None
    assert labelled.labels.tolist() == LABELS
    with pytest.raises(FewstepError, match=r"unknown column 'rihgt'. Did you mean 'right'"):
        load(path, image_column="rihgt")
    with pytest.raises(FewstepError, match=r"'left' holds struct<.*>, no labels.*--label-column"):
        load(path, image_column="right", label_column="left")


def test_no_image_column(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match=r"no image column.*a, b"):
        load(untyped(tmp_path / "x.parquet", a=[1], b=["x"]))


@pytest.mark.parametrize(
    ("name", "values", "classes"),
    [
        ("label", ["dog", "cat", "dog", "cat", "cat", "cat", "eel"], ("cat", "dog", "eel")),
        ("Label", [True, False] * 3 + [True], ("False", "True")),
        ("LABELS", [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 11.0], ("1", "2", "3", "11")),
        ("class", pa.array(list("bababab")).dictionary_encode(), ("a", "b")),
        ("class_id", pa.array([9, 10, 9, 10, 9, 10, 2], pa.uint64()), ("2", "9", "10")),
    ],
)
def test_labels_of_every_type(tmp_path: Path, name: str, values: Any, classes: tuple) -> None:
    data = load(untyped(tmp_path / "x.parquet", image=structs(), **{name: values}))
    plain = values.to_pylist() if isinstance(values, pa.Array) else values
    names = [str(v) if isinstance(v, (str, bool)) else str(int(v)) for v in plain]
    assert data.labels is not None
    assert data.classes == classes
    assert [data.classes[i] for i in data.labels.tolist()] == names


def test_labels_that_are_none(tmp_path: Path) -> None:
    for values, why in (
        ([[1]] * 7, r"'label' holds list<.*>, no labels"),
        ([0.5] * 7, r"'label': example 0 has label 0\.5"),
        (pa.array([None] * 7, pa.null()), r"'label': example 0 has no label"),
    ):
        path = untyped(tmp_path / "x.parquet", image=structs(), label=values)
        with pytest.raises(FewstepError, match=rf"x\.parquet: .*{why}.*--no-labels"):
            load(path)
        assert load(path, labels=False).labels is None
    path = untyped(tmp_path / "y.parquet", image=structs(), label_a=LABELS, label_b=LABELS)
    with pytest.raises(FewstepError, match=r"several columns of labels \(label_a, label_b\)"):
        load(path)
    assert load(path, label_column="label_b").num_classes == 3


def test_only_classes_that_have_images(tmp_path: Path) -> None:
    data = load(typed(tmp_path / "x.parquet", 2, 5))
    assert data.labels is not None
    assert (data.classes, data.labels.tolist()) == (("bee", "cow"), [1, 1, 0])


def test_lists_of_one_image(tmp_path: Path) -> None:
    rows: list[Any] = [[row] for row in structs()]
    data = load(untyped(tmp_path / "x.parquet", images=rows, label=LABELS))
    assert np.array_equal(data.images.numpy(), PIXELS)
    rows[3] = structs()[:2]
    with pytest.raises(FewstepError, match="row 3 holds 2 images"):
        load(untyped(tmp_path / "y.parquet", images=rows, label=LABELS))
    with pytest.raises(FewstepError, match=r"'label' holds int64, no images.*--image-column"):
        load(tmp_path / "x.parquet", image_column="label")


def test_shards_without_rows(tmp_path: Path) -> None:
    empty = typed(tmp_path / "train-0.parquet", 0, 0)
    with pytest.raises(FewstepError, match=r"train-0\.parquet holds no images"):
        load(empty)
    typed(tmp_path / "train-1.parquet")
    typed(tmp_path / "train-2.parquet", 0, 0)
    assert np.array_equal(load(tmp_path).images.numpy(), PIXELS)


def test_shards_that_differ(tmp_path: Path) -> None:
    typed(tmp_path / "a.parquet")
    untyped(tmp_path / "b.parquet", img=structs())
    with pytest.raises(FewstepError, match=r"b\.parquet has no column 'label'"):
        load(tmp_path)
    untyped(tmp_path / "b.parquet", img=structs(), label=LABELS)
    with pytest.raises(FewstepError, match=r"b\.parquet: the classes .* called otherwise"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("default/partial-train/0000.parquet", "default/partial-validation/0000.parquet"),
        ("Train/a.parquet", "Dev/a.parquet"),
        ("x/cifar_training.parquet", "x/cifar_EVAL.parquet"),
    ],
)
def test_folders_as_they_come_from_the_hub(tmp_path: Path, train: str, test: str) -> None:
    root = tmp_path / "d"
    for name, rows in ((train, (0, 4)), (test, (4, 7))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        typed(root / name, *rows)
    (root / "README.md").write_text("about")
    (root / ".cache").mkdir()
    typed(root / ".cache" / "other.parquet")
    for source in (root, root / "**" / "*.parquet", root / train):
        assert np.array_equal(load(source, split="train").images.numpy(), PIXELS[:4])
        assert np.array_equal(load(source, split="test").images.numpy(), PIXELS[4:])
    Image.new("RGB", (8, 8)).save(root / "logo.png")
    with pytest.raises(FewstepError, match=r"holds Parquet files \(.*\) and images \(logo\.png\)"):
        load(root)


def test_one_of_several_configurations(tmp_path: Path) -> None:
    for name in ("cropped/train-0.parquet", "full/train-0.parquet", "full/test-0.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        typed(tmp_path / name)
    with pytest.raises(FewstepError, match=r"several data sets .*\(cropped, full\).*/cropped"):
        load(tmp_path)
    assert len(load(tmp_path / "full", split="test")) == 7


def test_a_file_that_names_no_split_is_left_out_and_said(tmp_path: Path) -> None:
    for name in ("train.parquet", "test.parquet", "extra.parquet"):
        typed(tmp_path / name, 0, 3)
    with pytest.warns(FewstepWarning, match=r"left out .*: extra\.parquet"):
        assert len(load(tmp_path)) == 3


def test_hidden_labels(tmp_path: Path) -> None:
    path = untyped(tmp_path / "x.parquet", image=structs()[:2], label=[0, -1])
    with pytest.raises(FewstepError, match=r"x.parquet: .*example 1 has -1.*labels=False"):
        load(path)
    assert len(load(path, labels=False)) == 2
    gap = untyped(tmp_path / "y.parquet", image=structs()[:2], label=pa.array([None, 1]))
    with pytest.raises(FewstepError, match=r"y.parquet: column 'label': example 0 has no label"):
        load(gap)


def test_broken_rows(tmp_path: Path) -> None:
    rows: list[Any] = structs()
    rows[2] = {"bytes": b"junk", "path": "two.png"}
    rows[4] = None
    rows[5] = {"bytes": None, "path": "/nowhere/five.png"}
    path = untyped(tmp_path / "x.parquet", image=rows, label=LABELS)
    with pytest.raises(FewstepError) as caught:
        load(path)
    for part in ("3 of 7 images", "row 2 two.png (not an image)", "row 4 (empty", "No such file"):
        assert part in str(caught.value)
    data = load(path, skip_bad=True)
    assert np.array_equal(data.images.numpy(), PIXELS[[0, 1, 3, 6]])
    assert data.labels is not None
    assert (data.labels.tolist(), data.skipped) == ([0, 1, 2, 1], 3)


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(FewstepError, match=r"x.parquet cannot be read as Parquet"):
        load(tmp_path / "x.parquet")
    (tmp_path / "y.txt").write_text("")
    with pytest.raises(FewstepError, match=r"\.parquet files only, not y.txt"):
        load(tmp_path / "y*")


# --- the hub ------------------------------------------------------------------------------------


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        features = datasets.Features(
            image=datasets.Image(), label=datasets.ClassLabel(names=["ant", "bee", "cow"])
        )
        rows = {"image": structs(), "label": LABELS}
        part = datasets.Dataset.from_dict(rows, features=features)
        return datasets.DatasetDict({"train": part, "validation": part})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for _ in range(2):
        data = load("hub:owner/some-name:config.a@v1.0", split="validation")
        assert np.array_equal(data.images.numpy(), PIXELS)
        assert (data.classes, data.name) == (("ant", "bee", "cow"), "some-name")
    expected = ("owner/some-name", "config.a"), {"revision": "v1.0"}
    assert calls == [expected], "the second time comes from the cache"
    load("hub:mnist")
    assert calls[1] == (("mnist", None), {"revision": None})


@pytest.mark.parametrize(
    ("parts", "split", "taken"),
    [
        (("train", "validation"), "test", "validation"),
        (("train", "valid"), "val", "valid"),
        (("train", "dev"), "test", "dev"),
        (("train", "eval"), "val", "eval"),
        (("train", "train_extra", "test"), "train", "train"),
        (("train_small", "test_small"), "train", "train_small"),
        (("all",), "train", "all"),
        (("train",), "test", "it has train"),
        (("all",), "test", "it has all"),
        (("cats", "dogs"), "train", "it has cats, dogs"),
        (("test",), "train", "it has test"),
    ],
)
def test_the_hub_calls_splits_by_its_own_names(
    parts: tuple[str, ...], split: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {name: {"image": structs()[: i + 1]} for i, name in enumerate(parts)}
    found = {name: datasets.Dataset.from_dict(columns) for name, columns in rows.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(found))
    source = f"hub:owner/{'-'.join(parts)}"
    if taken in parts:
        assert len(load(source, split=split)) == 1 + parts.index(taken)
        return
    with pytest.raises(NoSplit, match=taken):
        load(source, split=split)


def test_several_parts_of_the_hub_for_one_split_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = datasets.Dataset.from_dict({"image": structs()})
    parts = datasets.DatasetDict(dict.fromkeys(("train_a", "train_b", "test_a", "test_b"), part))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: parts)
    with pytest.raises(FewstepError, match=r"several parts .* 'train' \(train_a, train_b\)"):
        load("hub:owner/several")


def test_the_hub_keeps_its_options_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"a": structs(), "b": structs(255 - PIXELS), "kind": LABELS}

    def load_dataset(*_: Any, **__: Any) -> Any:
        return datasets.DatasetDict(train=datasets.Dataset.from_dict(rows))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for column, expected in (("a", PIXELS), ("b", 255 - PIXELS)):
        data = load("hub:owner/two", image_column=column, label_column="kind")
        assert np.array_equal(data.images.numpy(), expected)
        assert data.num_classes == 3
        assert load("hub:owner/two", image_column=column, labels=False).labels is None


def test_the_hub_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (offline)\nmore\nlines")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        FewstepError, match=r"cannot load hub:owner/name .*offline.*connection"
    ) as e:
        load("hub:owner/name")
    assert "\n" not in str(e.value)
    with pytest.raises(FewstepError, match=r"named hub:owner/name\["):
        load("hub:not a name")


# --- the shared CIFAR-10 ------------------------------------------------------------------------


def test_cifar10_test_split(cifar10: Path) -> None:
    data = load(cifar10 / "train.parquet", split="test")
    assert data.images.shape == (10_000, 3, 32, 32)
    assert data.classes[0] == "airplane"
    assert data.labels is not None
    assert torch.bincount(data.labels).tolist() == [1000] * 10
    started = time.perf_counter()
    again = load(cifar10, split="test")
    assert time.perf_counter() - started < 0.5
    assert again.fingerprint() == data.fingerprint()


@pytest.mark.slow
def test_cifar10_train_split(cifar10: Path) -> None:
    """Channel means and deviations are those that came with the files, computed elsewhere."""
    started = time.perf_counter()
    data = load(cifar10 / "train.parquet")
    assert time.perf_counter() - started < 60
    assert data.images.shape == (50_000, 3, 32, 32)
    assert data.labels is not None
    assert torch.bincount(data.labels).tolist() == [5000] * 10
    x = data.images.float() / 255
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    assert torch.allclose(mean, torch.tensor([0.4913, 0.4821, 0.4465]), atol=1e-4)
    assert torch.allclose(std, torch.tensor([0.2452, 0.2428, 0.2606]), atol=1e-4)
    assert os.path.samefile(data.source, cifar10 / "train.parquet")
