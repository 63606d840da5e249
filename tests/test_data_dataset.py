"""`Dataset`: arrays in, batches out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fewstep.data import Dataset, batch_indices
from fewstep.errors import FewstepError

RNG = np.random.default_rng(0)


def pictures(n: int = 40, c: int = 3, h: int = 6, w: int = 6) -> np.ndarray:
    return RNG.integers(0, 256, (n, c, h, w), dtype=np.uint8)


def test_import_is_cheap() -> None:
    heavy = "{'datasets', 'sklearn', 'pyarrow', 'rich', 'scipy', 'matplotlib'}"
    code = f"import sys, fewstep.data; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- arrays -------------------------------------------------------------------------------------


def test_layouts_of_bytes_agree() -> None:
    u = pictures()
    for array in (u, u.transpose(0, 2, 3, 1), torch.from_numpy(u)):
        assert torch.equal(Dataset.from_arrays(array).images, torch.from_numpy(u))
    grey = pictures(c=1)
    assert torch.equal(Dataset.from_arrays(grey[:, 0]).images, torch.from_numpy(grey))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 3, 3, 1), (1, 3, 3)),
        ((4, 1, 1, 3), (3, 1, 1)),
        ((4, 1, 3, 3), (1, 3, 3)),
        ((4, 3, 8, 3), (3, 8, 3)),
    ],
)
def test_where_both_layouts_fit_the_square_image_wins(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert Dataset.from_arrays(np.zeros(shape, np.uint8)).shape == expected


def test_a_read_only_array_is_taken_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    u = pictures()
    u.flags.writeable = False
    Dataset.from_arrays(u)
    assert not recwarn.list


def test_floats_are_kept() -> None:
    x = RNG.uniform(-1, 1, (10, 3, 4, 4))
    data = Dataset.from_arrays(x)
    batch, labels = data.batch(torch.tensor([3, 1]))
    assert labels is None
    assert batch.dtype == torch.float32
    assert torch.equal(batch, torch.from_numpy(x[[3, 1]]).float())


def test_floats_without_channels_are_grey() -> None:
    x = RNG.uniform(-1, 1, (10, 4, 6)).astype(np.float32)
    assert torch.equal(Dataset.from_arrays(x).images, torch.from_numpy(x)[:, None])


def test_points_keep_their_range_and_shape() -> None:
    z = RNG.normal(0, 50, (30, 2)).astype(np.float32)
    data = Dataset.from_arrays(z, points=True)
    assert (data.shape, len(data), data.is_images) == ((2,), 30, False)
    assert torch.equal(data.batch(torch.arange(30))[0], torch.from_numpy(z))
    assert Dataset.from_arrays(z[:, 0], points=True).shape == (1,)
    with pytest.raises(FewstepError, match="only images can be flipped"):
        data.batch(torch.arange(3), flip=True)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 2), np.float32), "points=True"),
        (np.full((4, 1, 2, 2), 0.5), r"lie in \[0, 1\].*2 \* images - 1"),
        (np.linspace(-3, 3, 16).reshape(4, 1, 2, 2), "from -3 to 3"),
        (np.zeros((4, 1, 2, 2), np.int64), "int64.*uint8"),
        (np.zeros((4, 2, 5, 5), np.uint8), r"\[4, 2, 5, 5\] are neither"),
        (np.zeros((4, 5, 5, 4), np.uint8), "neither"),
        (np.zeros((4, 5), np.uint8), "neither"),
        (np.zeros((0, 1, 2, 2), np.uint8), "empty"),
        ([["a"]], "not an array of numbers"),
    ],
)
def test_other_arrays_are_refused(array: object, message: str) -> None:
    with pytest.raises(FewstepError, match=message):
        Dataset.from_arrays(array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("points", [False, True])
def test_nan_and_infinity_are_named_by_their_index(value: float, points: bool) -> None:
    x = np.zeros((9, 1, 2, 2))
    x[[4, 7], 0, 1, 0] = value
    with pytest.raises(FewstepError, match=r"2 of 9 examples, first at index 4"):
        Dataset.from_arrays(x, points=points)


def test_labels_become_int64_and_name_their_classes() -> None:
    data = Dataset.from_arrays(pictures(4), np.array([2, 0, 1, 2], np.uint8))
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert (data.classes, data.num_classes) == (("0", "1", "2"), 3)
    named = Dataset.from_arrays(pictures(4), [0, 0, 1, 1], classes=["cat", "dog", "eel"])
    assert (named.classes, named.num_classes) == (("cat", "dog", "eel"), 3)
    assert Dataset.from_arrays(pictures(4)).num_classes == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"4 integers or names, one per example, got \[2\]"),
        ([0.0, 0.5, 0.0, 1.0], r"example 1 has label 0\.5 \(float\), which is no class"),
        ([[1, 0]] * 4, r"\[4, 2\]"),
        ([0, 1, -1, -1], "example 2 has -1"),
        ([0, 1, 2, 1], "example 2 has label 2, but there are 2 classes"),
    ],
)
def test_wrong_labels_are_refused(labels: list, message: str) -> None:
    with pytest.raises(FewstepError, match=message):
        Dataset.from_arrays(pictures(4), labels, classes=("a", "b"))


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_is_the_formula() -> None:
    u = pictures()
    data = Dataset.from_arrays(u, np.arange(40) % 7)
    indices = torch.tensor([5, 5, 39, 0])
    x, labels = data.batch(indices)
    assert np.allclose(x.numpy(), u[indices].astype(np.float64) / 127.5 - 1, atol=1e-7)
    assert x.dtype == torch.float32
    assert labels is not None
    assert labels.tolist() == [5, 5, 4, 0]


def test_the_text_is_short() -> None:
    data = Dataset.from_arrays(pictures(), np.arange(40) % 7, name="things")
    assert repr(data) == "<Dataset things: 40 images [3, 6, 6], 7 classes>"
    assert repr(Dataset.from_arrays(np.ones((3, 2)), points=True)) == (
        "<Dataset arrays: 3 points [2]>"
    )


def test_flips_are_whole_mirrored_images_half_of_the_time() -> None:
    u = pictures(2000, h=2, w=3)
    data = Dataset.from_arrays(u, np.arange(2000))
    everything = torch.arange(2000)
    plain, _ = data.batch(everything)
    x, labels = data.batch(everything, flip=True)
    flipped = (x == plain.flip(-1)).flatten(1).all(1)
    kept = (x == plain).flatten(1).all(1)
    assert bool((flipped ^ kept).all())
    assert abs(int(flipped.sum()) - 1000) < 5 * np.sqrt(500)
    assert labels is not None
    assert torch.equal(labels, everything)
    runs = float((flipped[1:] == flipped[:-1]).float().mean())
    assert abs(runs - 0.5) < 5 * 0.5 / np.sqrt(1999), "neighbours must be flipped independently"


def test_flips_follow_the_global_seed_and_their_absence_draws_nothing() -> None:
    data = Dataset.from_arrays(pictures(64))
    indices = torch.arange(64)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    data.batch(indices)
    assert torch.equal(torch.get_rng_state(), state)
    first, _ = data.batch(indices, flip=True)
    second, _ = data.batch(indices, flip=True)
    torch.manual_seed(3)
    again, _ = data.batch(indices, flip=True)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_batch_can_be_written_without_changing_the_data() -> None:
    for array in (pictures(), RNG.uniform(-1, 1, (8, 1, 2, 2))):
        data = Dataset.from_arrays(array)
        before = data.images.clone()
        data.batch(torch.arange(8))[0].zero_()
        assert torch.equal(data.images, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_on_the_gpu_is_the_batch_on_the_cpu() -> None:
    data = Dataset.from_arrays(pictures(300), np.arange(300))
    for step in range(20):
        indices = batch_indices(300, 64, step, 0)
        torch.manual_seed(step)
        expected = data.batch(indices, flip=True)
        torch.manual_seed(step)
        x, labels = data.batch(indices, "cuda", flip=True)
        assert labels is not None
        assert torch.equal(labels.cpu(), expected[1])
        assert torch.allclose(x.cpu(), expected[0], atol=1e-6)


# --- parts --------------------------------------------------------------------------------------


def test_a_subset_of_a_subset() -> None:
    u = pictures()
    data = Dataset.from_arrays(u, np.arange(40), name="things")
    part = data.subset([30, 2, 17, 2]).subset(torch.tensor([2, 0]))
    assert (len(part), part.classes, part.name) == (2, data.classes, "things")
    assert torch.equal(part.images, torch.from_numpy(u[[17, 30]]))
    x, labels = part.batch(torch.tensor([1]))
    assert labels is not None
    assert labels.tolist() == [30]
    assert torch.equal(x, data.batch(torch.tensor([30]))[0])
    assert part.stored.data_ptr() == data.stored.data_ptr()


@pytest.mark.parametrize("fraction", [0.1, 0.2, 1 / 3, 0.5, 0.77])
def test_a_stratified_split(fraction: float) -> None:
    labels = np.repeat([0, 1, 3], [57, 101, 42])  # class 2 is empty
    data = Dataset.from_arrays(pictures(200, c=1, h=2, w=2), labels, classes="abcd")
    rest, held_out = data.stratified_split(fraction, seed=5)
    assert rest.rows is not None
    assert held_out.rows is not None
    assert len(held_out) == round(200 * fraction)
    assert sorted([*rest.rows.tolist(), *held_out.rows.tolist()]) == list(range(200))
    counts = torch.bincount(held_out.labels, minlength=4)
    exact = torch.bincount(torch.from_numpy(labels), minlength=4) * fraction
    assert float((counts - exact).abs().max()) < 1
    again = data.stratified_split(fraction, seed=5)[1].rows
    other = data.stratified_split(fraction, seed=6)[1].rows
    assert torch.equal(held_out.rows, again)
    assert not torch.equal(held_out.rows, other)
    assert bool((held_out.rows.diff() > 0).all())


def test_a_split_without_labels() -> None:
    rest, held_out = Dataset.from_arrays(pictures()).stratified_split(0.25)
    assert (len(rest), len(held_out)) == (30, 10)
    assert held_out.rows is not None
    assert held_out.rows.tolist() != list(range(10))


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001, -0.5, 2.0])
def test_an_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(FewstepError, match="leaves a part empty"):
        Dataset.from_arrays(pictures()).stratified_split(fraction)


def test_the_fingerprint_is_one_of_content() -> None:
    u, labels = pictures(), np.arange(40) % 3
    data = Dataset.from_arrays(u, labels)
    renamed = Dataset.from_arrays(u.transpose(0, 2, 3, 1).copy(), labels, "abc", name="other")
    assert data.fingerprint() == renamed.fingerprint()
    assert data.fingerprint() == data.subset(range(40)).fingerprint()
    changed = u.copy()
    changed[-1, -1, -1, -1] ^= 1
    others = [
        Dataset.from_arrays(changed, labels),
        Dataset.from_arrays(u, labels[::-1].copy()),
        Dataset.from_arrays(u),
        Dataset.from_arrays(u.reshape(40, 3, 4, 9), labels),
        data.subset(range(39)),
        data.subset([1, 0, *range(2, 40)]),
    ]
    prints = {data.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(prints) == 1 + len(others)
    assert (
        data.subset([7, 8]).fingerprint()
        == Dataset.from_arrays(u[7:9], [1, 2], "012").fingerprint()
    )
