"""Labels of every kind: what becomes a class, and what is refused by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewstep.data import Dataset, load
from fewstep.data.labels import natural, numbered, used
from fewstep.errors import FewstepError


def test_numbers_sort_as_numbers() -> None:
    for names in (
        ["0", "1", "2", "9", "10", "11", "100"],
        ["01", "1", "02", "2", "10"],
        ["class 2", "class 10", "class 10 b", "class 10b"],
        ["1.2.9", "1.2.10", "1.10"],
        ["", "7", "A", "a", "a1", "a2b10", "a10", "é"],
    ):
        mixed = random.Random(0).sample(names, len(names))
        assert sorted(mixed, key=natural) == names
    assert sorted(["9" * 5000, "1" + "0" * 5000], key=natural)[0] == "9" * 5000


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (np.array(list("badab")), ("a", "b", "d"), [1, 0, 2, 0, 1]),
        (np.array([b"x", b"\xc3\xa9", b"x"]), ("x", "é"), [0, 1, 0]),
        (np.array(["z", "y"], dtype=object), ("y", "z"), [1, 0]),
        ([1, 2, 3, 1], ("1", "2", "3"), [0, 1, 2, 0]),
        (np.array([5, 0, 10, 9], np.uint8), ("0", "5", "9", "10"), [1, 0, 3, 2]),
        (np.array([2**64 - 1, 7], np.uint64), ("7", str(2**64 - 1)), [1, 0]),
        (np.array([[3], [1]]), ("1", "3"), [1, 0]),
        (np.array([1.0, 0.0, 1.0]), ("0", "1"), [1, 0, 1]),
        (torch.tensor([4.0, 2.0], dtype=torch.bfloat16), ("2", "4"), [1, 0]),
        (np.array([np.int64(3), 1], dtype=object), ("1", "3"), [1, 0]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
    ],
)
def test_a_class_is_called_by_its_label(labels: Any, classes: tuple, numbers: list[int]) -> None:
    found, names = numbered(labels, len(numbers))
    assert found is not None
    assert found.dtype == torch.int64
    assert (found.tolist(), names) == (numbers, classes)


def test_labels_that_count_given_classes() -> None:
    for labels in ([2, 0], np.array([2.0, 0.0]), ["eel", "cat"]):
        found, names = numbered(labels, 2, ("cat", "dog", "eel"))
        assert found is not None
        assert (found.tolist(), names) == ([2, 0], ("cat", "dog", "eel"))
        assert used(found, names)[1] == ("cat", "eel")
        assert used(found, names)[0].tolist() == [1, 0]
    with pytest.raises(FewstepError, match=r"example 1 has label 'ell', but there are 2 classes"):
        numbered(["cat", "ell"], 2, ("cat", "eel"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None], r"example 1 has no label \(None\).*--no-labels"),
        ([1.0, float("nan")], r"example 1 has no label \(nan\)"),
        (np.array(["a", ""]), r"example 1 has no label \(''\)"),
        ([0, -1], "example 1 has -1"),
        ([0.5, 1], r"example 0 has label 0\.5 \(float\)"),
        ([0.0, float("inf")], r"label inf"),
        ([b"a", b"\xff"], r"example 1 has label b'\\xff' \(bytes\)"),
        ([{}, {}], r"example 0 has label \{\} \(dict\)"),
        ([[1], [1, 2]], r"example 0 has label \[1\] \(list\)"),
        ([1j, 2], "complex"),
        (np.eye(2), r"got \[2, 2\]; give the class of a one-hot row"),
        ([1, 2, 3], r"2 integers or names, one per example, got \[3\]"),
        (7, r"one per example, got \[\]"),
    ],
)
def test_what_is_no_label_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(FewstepError, match=message):
        numbered(labels, 2)


def test_archives_of_any_labels(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    for labels, classes in (
        (np.array(["cat", "dog", "cat", "eel"]), ("cat", "dog", "eel")),
        (np.array([1, 3, 2, 1]), ("1", "2", "3")),
        (np.array([0, 5, 0, 5]), ("0", "5")),
        (np.array([True, False, True, True]), ("False", "True")),
        (np.array([[11.0], [2.0], [1.0], [2.0]]), ("1", "2", "11")),
    ):
        np.savez(tmp_path / "x.npz", images, labels)
        data = load(tmp_path / "x.npz")
        assert data.labels is not None
        assert data.classes == classes
        assert (data.labels.bincount(minlength=data.num_classes) > 0).all()
    np.savez(tmp_path / "x.npz", images, np.array([0.5, 1, 2, 3]))
    with pytest.raises(FewstepError, match=r"x\.npz: example 0 has label 0\.5"):
        load(tmp_path / "x.npz")


def test_a_part_keeps_the_classes_of_the_whole() -> None:
    data = Dataset.from_arrays(np.zeros((4, 8, 8, 3), np.uint8), list("abca"))
    assert data.subset([0, 3]).classes == ("a", "b", "c")
