"""The group norm for channels_last maps on a GPU, and what compiles around it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor.decomposition import select_decomp_table
from torch.nn import functional

from fewstep.networks import UNet, norm
from fewstep.networks.layers import doubled
from fewstep.networks.norm import FusedNorm, RelaidNorm, group_norm

LAST = torch.channels_last


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "loses_layout", lambda x: x.is_contiguous(memory_format=LAST))


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 0.01)]
)
@pytest.mark.parametrize("kind", [RelaidNorm, FusedNorm])
def test_norms_of_channels_last_maps_are_torchs(
    kind: Any, dtype: torch.dtype, error: float
) -> None:
    """Values and gradients beside float64, far from zero; and the layout stays."""
    torch.manual_seed(0)
    x = (2 * torch.randn(3, 24, 6, 5) + 3).to(dtype, memory_format=LAST).requires_grad_()
    weight, bias = (torch.randn(24, dtype=dtype).requires_grad_() for _ in range(2))
    g = torch.randn(3, 24, 6, 5).to(dtype, memory_format=LAST)
    y = kind.apply(x, weight, bias, 6, 1e-6)[0]
    found = [y.detach(), *torch.autograd.grad(y, (x, weight, bias), g)]
    assert all(map_.is_contiguous(memory_format=LAST) for map_ in found[:2])
    assert all(value.dtype == dtype for value in found)
    exact = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    expected = functional.group_norm(exact[0], 6, *exact[1:], eps=1e-6)
    for a, b in zip(
        found, [expected, *torch.autograd.grad(expected, exact, g.double())], strict=True
    ):
        assert float((a - b).detach().norm() / b.detach().norm()) < error


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_network_computes_the_same_with_the_norm_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    F = UNet((3, 8, 8), channels=8, multipliers=(1, 2), blocks=1, dropout=0.0)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, c_noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    there = F(x, c_noise)
    monkeypatch.undo()
    torch.testing.assert_close(there, F(x, c_noise), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("half", [False, True])
def test_the_norm_of_gpus_has_every_derivative(half: bool) -> None:
    """Inside functorch's transforms and with autocast as well."""
    n = group_norm(12)
    x = torch.randn(2, 12, 4, 4).to(torch.bfloat16 if half else torch.float32, memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        gradient = torch.func.grad(lambda x: (n(x) ** 3).sum())(x)
        again = x.clone().requires_grad_()
        (n(again) ** 3).sum().backward()
        assert torch.equal(gradient, again.grad if again.grad is not None else again)
        torch.func.jvp(n, (x,), (torch.randn_like(x),))


def test_doubling_compiles_to_the_same_values_and_gradients() -> None:
    x = torch.randn(2, 8, 3, 5).to(memory_format=LAST).requires_grad_()
    g = torch.randn(2, 8, 6, 10)
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")
    (a,), (b,) = (torch.autograd.grad(f(x), x, g) for f in (compiled, doubled))
    assert torch.equal(compiled(x), doubled(x))
    torch.testing.assert_close(a, b)
    assert compiled(x).is_contiguous(memory_format=LAST)


@pytest.mark.slow
@pytest.mark.usefixtures("as_on_a_gpu")
def test_no_convolution_of_a_compiled_network_gets_a_map_of_another_layout() -> None:
    """It would copy the map; the image's own layout is the last gradient's."""
    F = UNet((3, 8, 8), channels=8, multipliers=(1, 1), blocks=1, attention=(), dropout=0.1)
    F = F.to(memory_format=LAST)
    seen: Counter[str] = Counter()

    def look(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        for node in graph.graph.nodes:
            name = str(node.target)
            seen["scatter"] += "index_put" in name
            if node.op == "call_function" and "convolution" in name:
                maps = node.args[: 2 if "backward" in name else 1]
                values = [m.meta["val"] for m in maps]
                moved = sum(not v.is_contiguous(memory_format=LAST) for v in values)
                seen[f"{name} moved"] += moved
                seen[name] += 1
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=look, bw_compiler=look, decompositions=select_decomp_table())
    x, c_noise = torch.randn(2, 3, 8, 8), torch.randn(2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(F, fullgraph=True, backend=backend)(x, c_noise).sum().backward()
    assert seen["aten.convolution.default"] == seen["aten.convolution_backward.default"] > 10
    assert seen["aten.convolution.default moved"] == seen["scatter"] == 0
    assert seen["aten.convolution_backward.default moved"] <= 1
