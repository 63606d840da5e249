"""Operators of the user's own, and mixtures of latents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fewstep.editing import Inpaint, Linear, Matrix, edit, mix, slerp
from fewstep.editing.operators import rotation
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM

SHAPE = (1, 4, 4)


@pytest.fixture
def f() -> FlowMap:
    return FlowMap(MLP(SHAPE, width=16, blocks=1), EDM(), info={"kind": "consistency"})


def test_a_matrix_keeps_its_known_coordinates(f: FlowMap) -> None:
    Q, y = rotation(torch.ones(16)), torch.rand(3, *SHAPE) * 2 - 1
    Omega = torch.arange(16) > 3
    x = edit(f, y, Matrix(Q, SHAPE, Omega), steps=3)
    u, v = x.flatten(1) @ Q.T, y.flatten(1) @ Q.T
    torch.testing.assert_close(u[:, :4], v[:, :4], atol=1e-5, rtol=0)
    assert (u - v)[:, 4:].abs().max() > 0.1


def test_functions_give_what_the_named_operator_gives(f: FlowMap) -> None:
    y, keep = torch.rand(2, *SHAPE), torch.rand(SHAPE) > 0.5

    def same(x: Tensor) -> Tensor:
        return x

    mine = edit(f, y, Linear(same, same, ~keep), steps=2, seed=3)
    assert torch.equal(mine, edit(f, y, Inpaint(keep), steps=2, seed=3))


def test_a_mask_or_matrix_that_does_not_fit_is_refused(f: FlowMap) -> None:
    with pytest.raises(FewstepError, match="Omega"):
        edit(f, torch.zeros(1, *SHAPE), Matrix(torch.eye(16), SHAPE, torch.ones(9)))
    with pytest.raises(FewstepError, match="16x16"):
        Matrix(torch.eye(9), SHAPE, torch.ones(9))
    with pytest.raises(FewstepError, match="not invertible"):
        Matrix(torch.ones(16, 16), SHAPE, torch.ones(16))


def test_a_mixture_is_as_long_as_noise_and_agrees_with_slerp() -> None:
    z = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    z = z * 8 / z.flatten(1).norm(dim=1)[:, None, None, None]
    mixed = mix(z, [[1, 1, 0], [0, 0, 2], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(mixed[0], slerp(z[0], z[1], 0.5))
    torch.testing.assert_close(mixed[1], z[2])
    assert float(mixed[2].norm()) == pytest.approx(8)
    assert mix(z, [1, 1, 1]).shape == (1, 8, 8)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(FewstepError, match="2 weights"):
        mix(torch.randn(2, 1, 8, 8), weights)


def test_latents_that_cancel_are_refused() -> None:
    z = torch.randn(1, 1, 8, 8)
    with pytest.raises(FewstepError, match="cancel"):
        mix(torch.cat([z, -z]), [1, 1])
