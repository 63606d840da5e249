"""What a network is conditioned on, as one value."""

from __future__ import annotations

import pytest
import torch

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM


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


def test_a_class_may_be_given_by_itself_and_is_never_taken_for_a_time() -> None:
    f = FlowMap(MLP((3,), num_classes=4, width=16, blocks=1), EDM())
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, y = torch.randn(2, 3), torch.tensor([1, 3])
    for call in (f, f.D, f.score, f.velocity):
        assert torch.equal(call(x, 1.0, label=y), call(x, 1.0, condition=Condition(label=y)))
        assert not torch.equal(call(x, 1.0, label=y), call(x, 1.0))
    with pytest.raises(FewstepError, match="label="):
        f(x, 1.0, y)
    with pytest.raises(FewstepError, match="label="):
        f.D(x, 1.0, y)  # type: ignore[arg-type]
