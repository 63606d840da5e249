"""Norms, and what stands around the convolutions of a U-Net, computed as on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fewstep.networks import ADM, NETWORKS, UNet, convolution, layers
from fewstep.networks.convolution import WideConv
from fewstep.networks.forward_mode import Conv2d, Linear, attend
from fewstep.networks.layers import doubled
from fewstep.networks.norm import film_of, group_norm

LAST = torch.channels_last


def test_doubling_compiles_to_the_same_values_and_gradients() -> None:
    x = torch.randn(2, 8, 3, 5).to(memory_format=LAST).requires_grad_()
    g = torch.randn(2, 8, 6, 10)
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    (a,), (b,) = (torch.autograd.grad(f(x), x, g) for f in (compiled, doubled))
    assert torch.equal(compiled(x), doubled(x))
    torch.testing.assert_close(a, b)
    assert compiled(x).is_contiguous(memory_format=LAST)


def test_the_gradient_of_weights_in_parts_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution, "WIDEST", 4)
    x = torch.randn(3, 10, 6, 5, dtype=torch.double).to(memory_format=LAST).requires_grad_()
    w = torch.randn(7, 10, 3, 3, dtype=torch.double, requires_grad=True)
    y = functional.conv2d(x, w, padding=1)
    g = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, w), g)
    compiled = torch.compile(WideConv.apply, fullgraph=True, backend="aot_eager")
    for conv in (WideConv.apply, compiled):
        found = conv(x, w, (1, 1))
        torch.testing.assert_close(found, y)
        torch.testing.assert_close(torch.autograd.grad(found, (x, w), g), expected)


def _plain_sum(a: Tensor, b: Tensor, bias: Tensor | None, gain: float) -> Tensor:
    return (a + b if bias is None else a + b + bias[:, None, None]) * gain


@pytest.mark.parametrize("kind", [UNet, ADM])
def test_biases_that_are_added_with_the_branches_sum_are_those_of_the_convolutions(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    F = kind((3, 8, 8), channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.1)
    F, x, c_noise = F.double(), torch.randn(2, 3, 8, 8, dtype=torch.double), torch.randn(2)
    y = F(x, c_noise.double())
    expected = torch.autograd.grad(y.sin().sum(), list(F.parameters()), allow_unused=True)
    monkeypatch.setattr(layers, "fused", lambda x: True)
    monkeypatch.setattr(layers, "_summed", _plain_sum)
    again = F(x, c_noise.double())
    torch.testing.assert_close(again, y)
    found = torch.autograd.grad(again.sin().sum(), list(F.parameters()), allow_unused=True)
    torch.testing.assert_close(found, expected)


# Forward mode, of every network


SPECS = {
    "mlp": "mlp(width=16, blocks=2)",
    "unet": "unet(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0)",
    "adm": "adm(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8, "
    "time_scale=1)",
    "edm2": "edm2(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8)",
    "dit": "dit(width=16, blocks=2, heads=2, positions='rope', qk_norm=True)",
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_gradient_of_a_forward_mode_derivative(spec: str) -> None:
    """It is that of a difference: a loss of a tangent moves the weights as it should."""
    F = NETWORKS.build(spec, shape=(3, 8, 8), two_time=True).double().eval()
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, v = torch.randn(2, 2, 3, 8, 8, dtype=torch.double)
    c, s, u = torch.randn(3, 2, dtype=torch.double)

    def at(h: float) -> Tensor:
        y: Tensor = F(x + h * v, c + h * u, None, s)
        return y

    _, exact = torch.func.jvp(lambda x, c: F(x, c, None, s), (x, c), (v, u))
    near = (at(1e-5) - at(-1e-5)) / 2e-5
    torch.testing.assert_close(exact, near, rtol=1e-5, atol=1e-5)
    mine, theirs = (
        torch.autograd.grad(d.square().mean(), list(F.parameters()), materialize_grads=True)
        for d in (exact, near)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


SLOW = ("adm", "edm2")  # to compile, and much like the U-Net
GRAPHS = [
    pytest.param(spec, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name, spec in SPECS.items()
]


@pytest.mark.parametrize("spec", GRAPHS)
def test_a_pass_and_a_derivative_are_one_graph(spec: str) -> None:
    """The one without a tangent, as of a teacher, comes before that of the map in training."""
    F = NETWORKS.build(spec, shape=(3, 8, 8)).double().eval()
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, c = torch.randn(2, 3, 8, 8, dtype=torch.double), torch.randn(2, dtype=torch.double)

    def loss(x: Tensor, c: Tensor) -> Tensor:
        v = F(x, c).detach()
        y, dy = torch.func.jvp(lambda x, c: F(x, c), (x, c), (v, torch.ones_like(c)))
        return (y + dy).square().mean()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, c), loss(x, c))
    compiled(x, c).backward()


def test_a_derivative_costs_two_products_a_layer() -> None:
    """Of the input and of its tangent; torch's own has a third, by the tangent of the weights."""
    layer, conv = Linear(8, 16), Conv2d(4, 4, 3, padding=1)
    x, v = torch.randn(2, 5, 8)
    maps, ways = torch.randn(2, 2, 4, 6, 6)
    for mine, theirs, at, along in (
        (layer, nn.Linear(8, 16), x, v),
        (conv, nn.Conv2d(4, 4, 3, padding=1), maps, ways),
    ):
        theirs.load_state_dict(mine.state_dict())
        plain, found, expected = (
            FlopCounterMode(display=False),
            FlopCounterMode(display=False),
            None,
        )
        with plain:
            mine(at)
        with found:
            y = torch.func.jvp(mine, (at,), (along,))
        assert found.get_total_flops() == 2 * plain.get_total_flops()
        expected = torch.func.jvp(theirs, (at,), (along,))
        torch.testing.assert_close(y, expected)
        # The weights may move as well.
        w = {name: torch.randn_like(p) for name, p in mine.named_parameters()}
        moved = [
            torch.func.jvp(
                lambda w, x, F=F: torch.func.functional_call(F, w, (x,)),
                (dict(F.named_parameters()), at),
                (w, along),
            )
            for F in (mine, theirs)
        ]
        torch.testing.assert_close(*moved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_in_forward_mode_is_that_of_the_kernel(dtype: torch.dtype) -> None:
    parts = torch.randn(6, 2, 3, 7, 4, dtype=torch.float64)
    q, k, v = (x.to(dtype) for x in parts[:3])
    along = tuple(x.to(dtype) for x in parts[3:])
    y, dy = torch.func.jvp(attend, (q, k, v), along)
    near = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert y.dtype == dy.dtype == dtype
    torch.testing.assert_close(y, attend(q, k, v), atol=near, rtol=near)
    ahead, behind = (attend(*(parts[:3] + h * parts[3:])) for h in (1e-5, -1e-5))
    expected = ((ahead - behind) / 2e-5).to(dtype)
    torch.testing.assert_close(dy, expected, atol=max(near, 1e-8) * 10, rtol=max(near, 1e-8))
    # Keys and values that stay where they are.
    _, alone = torch.func.jvp(lambda q: attend(q, k, v), (q,), along[:1])
    still = (torch.zeros_like(k), torch.zeros_like(v))
    expected = torch.func.jvp(attend, (q, k, v), (along[0], *still))[1]
    torch.testing.assert_close(alone, expected, atol=near, rtol=near)


def test_double_normalisation_is_its_definition() -> None:
    """``norm(x) pnorm(s) + pnorm(b)`` (Lu & Song 2024, Section 4.1), whatever the condition."""
    norm, (x, e) = group_norm(8), (torch.randn(2, 8, 3, 3), 100 * torch.randn(2, 16))
    s, b = 1 + e[:, :8], e[:, 8:]
    s, b = (a / a.square().mean(1, keepdim=True).sqrt() for a in (s, b))
    expected = norm(x) * s[:, :, None, None] + b[:, :, None, None]
    found = norm.silu(x, film=film_of(e, double_norm=True))
    torch.testing.assert_close(found, functional.silu(expected), atol=1e-4, rtol=1e-4)
    scale, offset = film_of(torch.zeros(1, 16), double_norm=True)
    assert (scale.abs().max() < 1e-6, offset.abs().max() == 0) == (True, True)


def test_a_norm_in_half_precision_has_the_gradients_of_a_whole_one() -> None:
    norm = group_norm(16)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    last = torch.channels_last
    x, along = (torch.randn(3, 16, 6, 4).contiguous(memory_format=last) for _ in range(2))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        at = x.detach().to(dtype, copy=True).requires_grad_()
        norm.zero_grad()
        y = norm(at)
        (y.float() * along).sum().backward()
        assert at.grad is not None
        assert y.dtype == at.grad.dtype == dtype
        assert y.is_contiguous(memory_format=last)
        found.append([y, at.grad, norm.weight.grad, norm.bias.grad])
    for whole, half in zip(*found, strict=True):
        assert (half.float() - whole).norm() < 0.01 * whole.norm()
