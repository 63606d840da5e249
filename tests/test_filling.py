"""Images whose sides a network cannot halve, or cut into patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fewstep.errors import FewstepError
from fewstep.networks import from_config
from fewstep.networks.filling import filled, filled_shape, without_filling

LEVELS: dict[str, Any] = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": LEVELS,
    "adm": LEVELS | {"head_channels": 4, "attention": [4]},
    "edm2": LEVELS | {"head_channels": 4},
    "dit": {"patch": 4, "width": 16, "blocks": 1, "heads": 2},
}


def network(name: str, *size: int) -> Any:
    torch.manual_seed(0)
    F = from_config({"name": name, "shape": (3, *size), **NETWORKS[name]})
    for weight in F.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return F.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_any_size_comes_back_as_it_came(name: str) -> None:
    """It is the network of the filled size, on images that lie in zeros."""
    F, c_noise = network(name, 6, 9), torch.zeros(2)
    assert F.computed == (3, 8, 12)
    x = torch.randn(2, 3, 6, 9)
    out = F(x, c_noise)
    assert out.shape == x.shape
    large = network(name, 8, 12)
    large.load_state_dict(F.state_dict(), strict=False)
    beyond = large(filled(x, (3, 8, 12)), c_noise)
    assert torch.allclose(out, without_filling(beyond, (3, 6, 9)), atol=1e-5)
    assert large.computed == large.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_the_tangent_of_a_filled_network(name: str) -> None:
    F = network(name, 5, 6).double()
    (x, v), t = torch.randn(2, 1, 3, 5, 6).double(), torch.zeros(1).double()
    _, forward = torch.func.jvp(lambda x: F(x, t), (x,), (v,))
    h = 1e-6
    with torch.no_grad():
        difference = (F(x + h * v, t) - F(x - h * v, t)) / (2 * h)
    assert torch.allclose(forward, difference, atol=1e-5 * float(difference.abs().max()) + 1e-7)


def test_the_filling_is_even_and_cut_off_again() -> None:
    x = torch.ones(1, 1, 5, 8)
    inside = filled(x, (1, 8, 8))
    assert inside[0, 0, :, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert torch.equal(without_filling(inside, (1, 5, 8)), x)
    assert filled(x, (1, 5, 8)) is x
    assert filled_shape((3, 30, 22), 8, "it") == (3, 32, 24)
    with pytest.raises(FewstepError, match=r"8, 2 x 8, .* pixels, and 9x7 is smaller"):
        filled_shape((3, 7, 9), 8, "it")
