"""The U-Net: EDM's architecture to the parameter, its options, conditions and derivatives."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.networks import from_config
from fewstep.networks.dropout import dropout
from fewstep.networks.layers import Attention, Resample
from fewstep.networks.norm import group_norm
from fewstep.networks.unet import DDPMPP, NCSNPP, UNet

SMALL: dict[str, Any] = {
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (4,),
    "dropout": 0.0,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ddpm++": DDPMPP,
    "ncsn++": NCSNPP,
    "output skips": {**NCSNPP, "decoder": "skip"},
    "ddpm resampling": {"resample": "conv"},
    "filtered, by convolution": {"resample": "conv", "resample_filter": (1, 3, 3, 1)},
    "two heads": {"head_channels": 8},
    "no attention but in the middle": {"attention": ()},
    "double norm": {"double_norm": True},
}
options = pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))


def small(**arguments: Any) -> UNet:
    return UNet(**{"shape": (3, 8, 8), **SMALL, **arguments})


def awake(net: UNet) -> UNet:
    """The network with random weights, also where it starts at zero; float64, in evaluation."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.double().eval()


def inputs(net: UNet, batch: int = 4) -> tuple[Tensor, Tensor]:
    dtype = next(net.parameters()).dtype
    return torch.randn(batch, *net.shape, dtype=dtype), torch.randn(batch, dtype=dtype)


# The architecture


def block_size(inputs: int, outputs: int, e: int, *, resampled: bool, attention: bool) -> int:
    """Parameters of a residual block, from its definition in EDM's appendix and code."""
    norms = 2 * inputs + 2 * outputs
    convolutions = (9 * inputs + 1) * outputs + (9 * outputs + 1) * outputs
    affine = (e + 1) * outputs
    skip = (inputs + 1) * outputs if resampled or inputs != outputs else 0
    attended = 2 * outputs + (outputs + 1) * 3 * outputs + (outputs + 1) * outputs
    return norms + convolutions + affine + skip + attention * attended


def test_edm_cifar10_has_its_55_7_million_parameters() -> None:
    """EDM's unconditional DDPM++ for CIFAR-10, whose published count is 55.7 million.

    128 channels, multipliers 2, 2, 2, 4 blocks, attention at 16x16, condition of 4 x 128. The
    biases, norms and both layers of the condition count; the positional frequencies are not
    trained. EDM's own checkpoints have 9 x 128 weights more, for the labels of its augmentation.
    """
    c, w, e, blocks = 128, 256, 512, 4

    def size(inputs: int, *, resampled: bool = False, attention: bool = False) -> int:
        return block_size(inputs, w, e, resampled=resampled, attention=attention)

    condition = (c + 1) * e + (e + 1) * e
    plain, attended, resampled = size(w), size(w, attention=True), size(w, resampled=True)
    down_32 = (9 * 3 + 1) * c + size(c) + (blocks - 1) * plain
    down_16 = resampled + blocks * attended
    down_8 = resampled + blocks * plain
    middle = attended + plain
    up_8 = (blocks + 1) * size(2 * w)
    up_16 = resampled + blocks * size(2 * w) + size(2 * w, attention=True)
    up_32 = resampled + blocks * size(2 * w) + size(w + c)  # the last skip is the first map
    write = 2 * w + (9 * w + 1) * 3
    count = condition + down_32 + down_16 + down_8 + middle + up_8 + up_16 + up_32 + write

    assert sum(p.numel() for p in UNet((3, 32, 32)).parameters()) == count == 55_732_739
    assert count + 9 * c == 55_733_891
    assert round(count / 1e6, 1) == 55.7


@pytest.mark.parametrize(
    ("size", "attended"), [(32, [16]), (64, [16]), (28, [14]), (8, []), (48, [12])]
)
def test_attention_is_by_default_at_about_16_pixels(size: int, attended: list[int]) -> None:
    levels = {32: 3, 64: 4}.get(size, 3)
    net = UNet((3, size, size), channels=8, multipliers=(1,) * levels, blocks=1)
    heights = [
        size >> level
        for level, blocks in enumerate(net.encoder.levels)
        if isinstance(blocks[0].attention, Attention)
    ]
    assert heights == attended


def test_resampling_by_convolution_replaces_a_block_by_one_layer() -> None:
    def size(resample: str) -> int:
        net = small(resample=resample, multipliers=(1, 2, 2), attention=())
        return sum(p.numel() for p in net.parameters())

    def saved(width: int) -> int:
        block = block_size(width, width, 32, resampled=True, attention=False)
        return block - (9 * width + 1) * width

    assert size("block") - size("conv") == saved(8) + 3 * saved(16)  # 2 downs, 2 ups


# What every option must do


@options
def test_a_new_network_is_zero_and_its_gradients_reach_the_output_layer(
    option: dict[str, Any],
) -> None:
    net = small(**option)
    y = net(*inputs(net))
    assert y.shape == (4, 3, 8, 8)
    assert y.is_contiguous()
    assert torch.equal(y, torch.zeros_like(y))
    y.sum().backward()
    assert all(w[-1].bias.grad.abs().min() > 0 for w in net.decoder.write)


@options
def test_every_parameter_matters(option: dict[str, Any]) -> None:
    net = awake(small(num_classes=3, two_time=True, **option))
    x, c = inputs(net)
    net(x, c, torch.tensor([0, 1, 2, 0]), c - 1).square().sum().backward()
    idle = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


@options
def test_examples_of_a_batch_do_not_see_each_other(option: dict[str, Any]) -> None:
    net = awake(small(num_classes=3, **option))
    (x, c), labels = inputs(net), torch.tensor([2, 0, 1, 1])
    together = net(x, c, labels)
    for i in range(4):
        alone = net(x[i : i + 1], c[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(alone[0], together[i])


@options
def test_forward_mode_derivative_is_the_limit_of_differences(option: dict[str, Any]) -> None:
    net = awake(small(**option))
    x, c = inputs(net)
    v, u = torch.randn_like(x), torch.randn_like(c)
    _, derivative = torch.func.jvp(lambda x, c: net(x, c), (x, c), (v, u))
    h = 1e-5
    difference = (net(x + h * v, c + h * u) - net(x - h * v, c - h * u)) / (2 * h)
    torch.testing.assert_close(derivative, difference, rtol=1e-5, atol=1e-5)


@options
def test_a_stored_network_is_rebuilt(option: dict[str, Any]) -> None:
    net = awake(small(num_classes=2, **option))
    again = from_config(json.loads(json.dumps(net.config))).double().eval()
    again.load_state_dict(net.state_dict())
    x, c = inputs(net)
    assert torch.equal(net(x, c), again(x, c))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (4, 8, 16)])
def test_shapes(shape: tuple[int, int, int]) -> None:
    net = awake(small(shape=shape, multipliers=(1, 1, 1), attention=(shape[1] // 2,)))
    y = net(*inputs(net, 2))
    assert y.shape == (2, *shape)
    assert y.isfinite().all()
    assert y.std() > 0


def test_dtypes() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        net = awake(small(num_classes=2)).to(dtype)
        y = net(torch.randn(2, 3, 8, 8, dtype=dtype), torch.randn(2), torch.tensor([0, 1]))
        assert y.dtype == dtype


# Conditions


def test_labels() -> None:
    net = awake(small(num_classes=3))
    (x, c), zeros = inputs(net), torch.zeros(4, dtype=torch.int64)
    unknown, known = net(x, c), net(x, c, zeros)
    assert not torch.allclose(known, unknown)
    assert not torch.allclose(known, net(x, c, zeros + 1))
    for wrong in (zeros + 4, zeros - 1, zeros[:2], zeros.float()):
        with pytest.raises(FewstepError, match="label"):
            net(x, c, wrong)
    with pytest.raises(FewstepError, match="num_classes=0"):
        small()(x.float(), c.float(), zeros)


def test_two_times_start_as_one_time() -> None:
    """The weights of a one-time network give the same network until the second map learns."""
    one, two = awake(small()), awake(small(two_time=True))
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert missing == ["condition.map_s.weight"]
    assert not unexpected
    x, c = inputs(two)
    assert not torch.allclose(two(x, c, None, c), two(x, c, None, c - 1))
    nn.init.zeros_(two.condition.map_s.weight)
    torch.testing.assert_close(two(x, c, None, c - 1), one(x, c))
    with pytest.raises(FewstepError, match="c_noise_s"):
        two(x, c)


def test_dropout_acts_in_training_only() -> None:
    net = awake(small(dropout=0.5))
    x, c = inputs(net)
    assert torch.equal(net(x, c), net(x, c))
    net.train()
    assert not torch.equal(net(x, c), net(x, c))


# The layers, against their definitions


def test_attention_is_its_definition() -> None:
    layer = Attention(16, heads=2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    tokens = layer.norm(x).flatten(2)  # [B, C, P]
    q, k, v = (
        (torch.einsum("oc,bcp->bop", w, tokens) + b[:, None]).unflatten(1, (2, 8))
        for w, b in zip(layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True)
    )
    weights = (torch.einsum("bhdp,bhdr->bhpr", q, k) / 8**0.5).softmax(-1)
    a = torch.einsum("bhpr,bhdr->bhdp", weights, v).flatten(1, 2)
    a = torch.einsum("oc,bcp->bop", layer.proj.weight, a) + layer.proj.bias[:, None]
    expected = (x + a.view_as(x)) / 2**0.5
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0), (2.0, 6.0, 6.0, 2.0)])
def test_resampling_is_its_definition(taps: tuple[float, ...]) -> None:
    """Constants stay constant away from the border, and up is 4 times the adjoint of down."""
    ones = torch.ones(1, 2, 8, 8)
    down, up = Resample("down", taps), Resample("up", taps)
    assert down(ones).shape == (1, 2, 4, 4)
    assert up(ones).shape == (1, 2, 16, 16)
    torch.testing.assert_close(down(ones)[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    torch.testing.assert_close(up(ones)[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    x, y = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(4 * (down(x) * y).sum(), (x * up(y)).sum())
    f = torch.tensor(taps) / sum(taps)
    pad = len(taps) // 2 - 1
    padded = functional.pad(x, (pad,) * 4)
    expected = sum(
        f[i] * f[j] * padded[..., 2 * 1 + i, 2 * 2 + j]
        for i in range(len(taps))
        for j in range(len(taps))
    )
    torch.testing.assert_close(down(x)[..., 1, 2], expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9999999])
def test_dropout_is_its_definition(p: float, layout: torch.memory_format) -> None:
    x = torch.randn(8, 16, 16, 17).contiguous(memory_format=layout).requires_grad_()
    y = dropout(x, p, training=True)
    dropped = y == 0
    n = x.numel()
    assert float(dropped.double().mean()) == pytest.approx(p, abs=4 * (p / n) ** 0.5 + 2e-5)
    if p < 0.9:
        torch.testing.assert_close(y[~dropped], x[~dropped] / (1 - p), rtol=1e-4, atol=0)
        # Neighbours in memory, which share a random number, fall independently.
        flat = dropped.permute(0, 2, 3, 1).flatten() if layout == torch.channels_last else dropped
        pairs = flat.flatten().double().view(-1, 2)
        assert float(pairs.prod(1).mean()) == pytest.approx(p**2, abs=0.02)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (~dropped) * (y / x).detach())
    torch.manual_seed(3)
    a = dropout(x, p, training=True)
    torch.manual_seed(3)
    assert torch.equal(a, dropout(x, p, training=True))
    assert dropout(x, p, training=False) is x


def test_group_norm_is_the_same_in_forward_mode() -> None:
    norm = group_norm(12)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 12, 4, 4)
    forward, _ = torch.func.jvp(norm, (x,), (torch.randn_like(x),))
    torch.testing.assert_close(forward, norm(x))


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (12, 3), (64, 16), (128, 32), (192, 32)])
def test_groups_have_at_least_4_channels_and_are_at_most_32(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


# What is refused


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"shape": (3, 3, 8), "multipliers": (1, 1, 1)}, "8x3 is smaller"),
        ({"shape": (8, 8)}, r"\(C, H, W\)"),
        ({"attention": (16,)}, r"attention at 16 never occurs.*\[8, 4\]"),
        ({"channels": 6}, "multiple of 4"),
        ({"multipliers": ()}, "multipliers"),
        ({"blocks": 0}, "blocks"),
        ({"dropout": 1.0}, "dropout"),
        ({"head_channels": 3}, "head_channels=3"),
        ({"resample_filter": (1, 2, 1)}, "even number"),
        ({"embedding": "fourrier"}, "fourier"),
        ({"decoder": "skp"}, "skip"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        small(**arguments)


def test_another_image_size_is_refused() -> None:
    with pytest.raises(FewstepError, match="16"):
        small()(torch.zeros(1, 3, 16, 16), torch.zeros(1))
