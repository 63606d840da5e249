"""A class is a name: who has the same names agrees, whatever the numbers; who has not is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewstep import EDM, MLP, FlowMap
from fewstep.classes import Agreement, find_class, names_for
from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.recipes import RECIPES
from fewstep.runs.directory import RunDirectory
from fewstep.runs.images import with_known_classes

TEN = tuple("0123456789")
WORDS = ("zero", "one", "two")


@pytest.mark.parametrize(
    ("theirs", "ours", "numbers"),
    [
        (("0", "1", "10", "11", "2"), tuple(map(str, range(12))), (0, 1, 10, 11, 2)),
        (("5", "6", "7"), TEN, (5, 6, 7)),
        (("07", "5"), TEN, (7, 5)),
        (("cat", "dog"), ("dog", "zebra"), (-1, 0)),
        (("cat", "dog"), ("dog", "cat"), (1, 0)),
        (("caf\u00e9",), ("tea", "cafe\u0301"), (1,)),
        (("0", "1"), WORDS, (0, 1)),
        (("2",), WORDS, (2,)),
        (WORDS, ("0", "2"), (0, -1, 1)),
        (("1", "2", "3"), WORDS, (-1, -1, -1)),
        (("7", "07"), ("07", "7"), (1, 0)),
        ((), WORDS, ()),
    ],
)
def test_equal_names_are_the_same_class(
    theirs: tuple[str, ...], ours: tuple[str, ...], numbers: tuple[int, ...]
) -> None:
    found = Agreement(theirs, ours)
    assert found.numbers == numbers
    labels = torch.arange(len(theirs)).repeat(2)
    assert found.translated(labels).tolist() == list(numbers) * 2
    assert found.missing == tuple(t for t, n in zip(theirs, numbers, strict=True) if n < 0)


def test_numbers_against_names_are_places_and_that_is_said() -> None:
    for sides in ((("0", "2"), WORDS), (WORDS, ("0", "2"))):
        assert "0 for zero" in Agreement(*sides).note
    assert Agreement(("1", "0"), TEN).note == ""
    assert Agreement(("0", "1"), ("0", "dog")).note == ""  # a name among numbers: by name


@pytest.mark.parametrize(
    ("names", "label", "number"),
    [
        (WORDS, "one", 1),
        (WORDS, "2", 2),
        (WORDS, 2, 2),
        (("5", "6", "7"), "7", 2),
        (("5", "6", "7"), 5, 0),
        (("00", "01"), 1, 1),
        (("1", "0"), "0", 1),
    ],
)
def test_a_class_by_name_or_number(names: tuple[str, ...], label: str | int, number: int) -> None:
    assert find_class(names, label) == number


@pytest.mark.parametrize("label", ["0", "-1", "9" * 5000, "٧", "", True, "7.0"])
def test_a_class_that_is_not_there(label: str | int) -> None:
    """Among the classes 5 to 7 the number 0 is no class, least of all 5."""
    with pytest.raises(FewstepError, match="unknown class"):
        find_class(("5", "6", "7"), label)


@pytest.mark.parametrize("stored", [None, 5, [], ["a"], ["a", "a"], ["a", 1], "ab", {"a": 1}])
def test_names_that_a_file_does_not_have_are_numbers(stored: object) -> None:
    assert names_for(2, stored) == ("0", "1")
    assert names_for(2, ["a", "b"]) == ("a", "b")


def images(*labels: int, classes: tuple[str, ...]) -> Dataset:
    pixels = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    return Dataset.from_arrays(pixels, torch.tensor(labels), classes)


def model(*classes: str) -> FlowMap:
    F = MLP((1, 4, 4), num_classes=len(classes), width=4, blocks=1)
    return FlowMap(F, EDM(), info={"kind": "diffusion", "classes": list(classes)})


def test_a_student_counts_classes_as_its_teacher(tmp_path: Path) -> None:
    run, home = RECIPES["digits/cd"](teacher="runs/t"), RunDirectory(tmp_path / "run")
    data = images(0, 1, 1, classes=("cat", "dog"))
    same = with_known_classes(run, data, home, model("dog", "cat"))
    assert (same.classes, same.labels.tolist()) == (("dog", "cat"), [1, 0, 0])  # type: ignore[union-attr]
    for other in (("dog", "zebra"), ("cat", "dog", "eel"), ("cat",)):
        with pytest.raises(FewstepError, match="runs/t has the classes"):
            with_known_classes(run, data, home, model(*other))
    with pytest.warns(FewstepWarning, match="0 for cat"):
        named = with_known_classes(run, data, home, model("0", "1"))
    assert named.classes == ("cat", "dog")
    with pytest.warns(FewstepWarning, match="0 for dog"):
        named = with_known_classes(run, images(0, 1, classes=("0", "1")), home, model("dog", "cat"))
    assert named.classes == ("dog", "cat")


def test_a_run_goes_on_with_the_class_numbers_that_it_began_with(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run/checkpoints/step-00000010"
    checkpoint.mkdir(parents=True)
    model("0", "1", "10", "2").save(checkpoint / "f.safetensors")
    run, home = RECIPES["digits/edm"](), RunDirectory(tmp_path / "run")
    data = images(0, 1, 2, 3, classes=("0", "1", "2", "10"))
    found = with_known_classes(run, data, home, None)
    assert found.labels.tolist() == [0, 1, 3, 2]  # type: ignore[union-attr]
    assert found.classes == ("0", "1", "10", "2")
    with pytest.raises(FewstepError, match="classes agree by name"):
        with_known_classes(run, images(0, classes=("eel",)), home, None)


def test_images_without_labels_have_no_classes_to_agree(tmp_path: Path) -> None:
    run, home = RECIPES["digits/cd"](teacher="runs/t"), RunDirectory(tmp_path)
    data = images(0, 1, classes=("a", "b")).without_labels()
    assert with_known_classes(run, data, home, model("c", "d")) is data
