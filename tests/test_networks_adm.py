"""ADM's U-Net: the published parameter counts, conditions, derivatives, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.networks import ADM, EDM2UNet, Network, from_config
from fewstep.networks.adm import IMAGENET64, LSUN256

SMALL: dict[str, Any] = {
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (4,),
    "head_channels": 8,
}
OPTIONS: list[dict[str, Any]] = [{}, {"scale_shift": False}, {"double_norm": True}]
each = pytest.mark.parametrize("option", OPTIONS, ids=["film", "shift", "double norm"])


def small(**arguments: Any) -> ADM:
    return ADM(**{"shape": (3, 8, 8), **SMALL, **arguments})


def awake(net: ADM) -> ADM:
    """The network with random weights, also where it starts at zero; float64, in evaluation."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.double().eval()


def inputs(net: ADM, batch: int = 4) -> tuple[Tensor, Tensor]:
    dtype = next(net.parameters()).dtype
    return torch.randn(batch, *net.shape, dtype=dtype), 0.01 * torch.randn(batch, dtype=dtype)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_published_sizes() -> None:
    """295.9 million for ImageNet 64, as published; 552.8 million for ADM's LSUN network.

    Song et al. 2023 trained LSUN without scale-shift norms: each of the 42 blocks there saves
    ``(4 c + 1)`` parameters an output channel.
    """
    with torch.device("meta"):
        imagenet = ADM((3, 64, 64), num_classes=1000, **IMAGENET64)
        lsun = ADM((3, 256, 256), **LSUN256)
        theirs = ADM((3, 256, 256), **{**LSUN256, "scale_shift": True})
    assert count(imagenet) == 295_899_267
    assert count(imagenet.embed_label) == 1000 * 768
    assert count(theirs) == 552_807_171
    assert count(lsun) == 526_304_771
    widths = [256 * m for m in LSUN256["multipliers"]]
    down = [w for w in widths for _ in range(2)] + widths[:-1]
    up = [w for w in widths for _ in range(3)] + widths[1:]
    saved = (4 * 256 + 1) * sum([*down, *up, widths[-1], widths[-1]])
    assert count(theirs) - count(lsun) == saved


@each
def test_a_new_network_is_zero_and_every_parameter_matters_when_awake(
    option: dict[str, Any],
) -> None:
    net = small(num_classes=3, two_time=True, **option)
    x, c = inputs(net)
    labels = torch.tensor([0, 1, 2, 0])
    y = net(x, c, labels, c)
    assert torch.equal(y, torch.zeros_like(x))
    assert y.is_contiguous()
    awake(net)
    x, c = x.double(), c.double()
    net(x, c, labels, c - 0.003).square().sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@each
def test_examples_of_a_batch_do_not_see_each_other(option: dict[str, Any]) -> None:
    net = awake(small(num_classes=3, **option))
    (x, c), labels = inputs(net), torch.tensor([2, 0, 1, 1])
    together = net(x, c, labels)
    for i in range(4):
        alone = net(x[i : i + 1], c[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(alone[0], together[i])


@each
def test_forward_mode_derivative_is_the_limit_of_differences(option: dict[str, Any]) -> None:
    net = awake(small(**option))
    x, c = inputs(net)
    v = torch.randn_like(x)
    _, derivative = torch.func.jvp(lambda x: net(x, c), (x,), (v,))
    h = 1e-5
    difference = (net(x + h * v, c) - net(x - h * v, c)) / (2 * h)
    torch.testing.assert_close(derivative, difference, rtol=1e-5, atol=1e-5)


def test_a_stored_network_is_rebuilt() -> None:
    net = awake(small(num_classes=2, scale_shift=False))
    again = from_config(json.loads(json.dumps(net.config))).double().eval()
    again.load_state_dict(net.state_dict())
    x, c = inputs(net)
    assert torch.equal(net(x, c), again(x, c))


U_NETS: list[tuple[type[Network], tuple[int, ...]]] = [(ADM, (32, 16, 8)), (EDM2UNet, (16, 8))]
BARE: dict[str, Any] = {"channels": 4, "multipliers": (1, 1, 1, 1), "blocks": 1, "head_channels": 4}


@pytest.mark.parametrize(("U", "former"), U_NETS)
def test_attention_is_by_default_at_small_maps_of_any_size(
    U: type[Any], former: tuple[int, ...]
) -> None:
    for size in (32, 64):
        net = U((3, size, size), **BARE)
        assert set(net.attention) == set(former) & {size >> level for level in range(4)}
        assert "attention" not in net.config  # as earlier versions wrote it
    net = U((3, 48, 48), **BARE)
    assert net.attention == ((24, 12, 6) if U is ADM else (12, 6))
    assert from_config(json.loads(json.dumps(net.config))).state_dict().keys() == (
        net.state_dict().keys()
    )
    with pytest.raises(FewstepError, match=r"attention at 100 never occurs.*\[48, 24, 12, 6\]"):
        U((3, 48, 48), attention=(100,), **BARE)


@pytest.mark.parametrize(("U", "former"), U_NETS)
def test_stored_networks_keep_the_attention_that_they_had(
    U: type[Any], former: tuple[int, ...]
) -> None:
    """Earlier versions took heights that no map has, which were without effect."""
    without = U((3, 48, 48), attention=(), **BARE)
    config = {k: v for k, v in without.config.items() if k != "attention"}
    for old in (config, {**config, "attention": former}):
        F = from_config(old)
        assert F.state_dict().keys() == without.state_dict().keys()
        assert from_config(F.config).state_dict().keys() == without.state_dict().keys()


def test_two_times_start_as_one_time() -> None:
    one, two = awake(small()), small(two_time=True).double().eval()
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert missing == ["embed_s.weight"]
    assert not unexpected
    x, c = inputs(two)
    torch.testing.assert_close(two(x, c, None, c - 0.1), one(x, c))
    with pytest.raises(FewstepError, match="c_noise_s"):
        two(x, c)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"shape": (8, 8)}, r"\(C, H, W\)"),
        ({"shape": (3, 1, 8)}, "sides of 2, .*8x1 is smaller"),
        ({"channels": 6}, "6"),
        ({"blocks": 0}, "blocks"),
        ({"dropout": 1.0}, "dropout"),
        ({"head_channels": 3}, "head_channels=3"),
        ({"double_norm": True, "scale_shift": False}, "scale_shift=True"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        small(**arguments)


def test_labels_that_do_not_fit_are_named() -> None:
    net = small(num_classes=3)
    x, c = inputs(net)
    with pytest.raises(FewstepError, match="label"):
        net(x, c, torch.tensor([0, 1, 2, 4]))
    with pytest.raises(FewstepError, match="unconditional"):
        small()(x, c, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(FewstepError, match="16"):
        net(torch.zeros(1, 3, 16, 16), c[:1])
