"""The data order: a stream that depends on the seed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.data import batch_indices
from fewstep.data.order import permutation
from fewstep.errors import FewstepError

sizes = st.integers(1, 60)
seeds = st.integers(-5, 2**70)


def stream(n: int, length: int, seed: int) -> torch.Tensor:
    return batch_indices(n, length, 0, seed)


@settings(deadline=None)
@given(n=sizes, epochs=st.integers(1, 5), seed=seeds)
def test_every_epoch_is_a_permutation(n: int, epochs: int, seed: int) -> None:
    for epoch in stream(n, n * epochs, seed).view(epochs, n):
        assert epoch.sort().values.tolist() == list(range(n))


@settings(deadline=None)
@given(n=sizes, batch=st.integers(1, 150), step=st.integers(0, 8), seed=seeds)
def test_a_step_is_a_slice_of_the_stream_whatever_the_batch(
    n: int, batch: int, step: int, seed: int
) -> None:
    expected = stream(n, batch * (step + 1), seed)[batch * step :]
    assert torch.equal(batch_indices(n, batch, step, seed), expected)


@settings(deadline=None)
@given(n=st.integers(20, 60), seed=st.integers(0, 10**6))
def test_epochs_and_seeds_differ(n: int, seed: int) -> None:
    first, second = stream(n, 2 * n, seed).view(2, n)
    assert not torch.equal(first, second)
    assert not torch.equal(first, stream(n, n, seed + 1))


def test_the_order_is_pinned_for_ever() -> None:
    """A run that is resumed under another version of any library must go on in the same order."""
    assert stream(8, 16, seed=7).tolist() == [4, 3, 6, 2, 1, 0, 5, 7, 7, 6, 1, 4, 3, 2, 5, 0]


def test_positions_are_uniform() -> None:
    """Each element is equally likely at each place: chi-squared over 4,000 permutations of 6."""
    table = torch.zeros(6, 6)
    for epoch in range(4000):
        table[torch.arange(6), permutation(6, 0, epoch)] += 1
    expected = 4000 / 6
    chi2 = float(((table - expected) ** 2 / expected).sum())
    assert chi2 < 52.6  # 99.9 % of chi-squared with 25 degrees of freedom


def test_a_result_can_be_written_without_changing_the_order() -> None:
    before = batch_indices(10, 10, 0, 3)
    expected = before.clone()
    before.zero_()
    assert torch.equal(batch_indices(10, 10, 0, 3), expected)


@pytest.mark.parametrize(("n", "batch", "step"), [(0, 4, 0), (4, 0, 0), (4, 4, -1)])
def test_numbers_out_of_range_are_refused(n: int, batch: int, step: int) -> None:
    with pytest.raises(FewstepError, match="n >= 1"):
        batch_indices(n, batch, step, 0)
