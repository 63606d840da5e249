"""What a network is conditioned on, as one value."""

from __future__ import annotations

import pytest
import torch

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError


def condition() -> Condition:
    return Condition(
        label=torch.arange(4), w=torch.linspace(1, 4, 4), embedding=torch.ones(4, 2, 3)
    )


def test_rows_and_filling_act_on_every_field_that_is_given() -> None:
    some = condition().rows(slice(1, 3)).filled(3)
    assert some.label is not None
    assert some.label.tolist() == [1, 2, 0]
    assert some.w is not None
    assert some.w.tolist() == [2, 3, 0]
    assert some.embedding is not None
    assert some.embedding.sum((1, 2)).tolist() == [6, 6, 0]
    assert some.augment is None


def test_of_none_every_part_is_none() -> None:
    for same in (NONE.rows([0]), NONE.filled(8), NONE.to("cpu"), NONE.null()):
        assert same.of(()) == {}


def test_the_null_condition_leaves_out_what_is_wanted_alone() -> None:
    assert list(condition().null().of(("w",))) == ["w"]


def test_a_field_that_the_network_does_not_take_is_named() -> None:
    assert list(condition().of(("label", "w", "embedding"))) == ["label", "w", "embedding"]
    with pytest.raises(FewstepError, match="takes no embedding, but label, w"):
        condition().of(("label", "w"))
