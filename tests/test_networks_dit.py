"""The diffusion transformer: the papers' sizes, a peer's arithmetic, conditions, derivatives."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.networks import from_config
from fewstep.networks.dit import SIZES, DiT, patchify, rotary, rotated, sincos, unpatchify
from fewstep.runs.activations import activations

SMALL: dict[str, Any] = {"width": 16, "blocks": 2, "heads": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "sines": {},
    "rotary": {"positions": "rope"},
    "rotary, normalised": {"positions": "rope", "qk_norm": True},
    "pixels as patches": {"patch": 1, "qk_norm": True, "hidden": 24},
}
options = pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))


def small(**arguments: Any) -> DiT:
    return DiT(**{"shape": (3, 4, 8), **SMALL, **arguments})


def awake(net: DiT) -> DiT:
    """The network with random weights, also where it starts at zero; float64, in evaluation."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.double().eval()


def inputs(net: DiT, batch: int = 4) -> tuple[Tensor, Tensor]:
    dtype = next(net.parameters()).dtype
    return torch.randn(batch, *net.shape, dtype=dtype), torch.randn(batch, dtype=dtype)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("size", "published"), [("s", 33), ("b", 130), ("l", 458), ("xl", 675)])
def test_published_sizes(size: str, published: float) -> None:
    """Peebles & Xie 2023, Table 1, in millions, counted from the paper's design.

    Their counts have the fixed positions of 256 tokens, a row for the null class, and twice the
    outputs, for a variance that is learned.
    """
    with torch.device("meta"):
        net = DiT((4, 32, 32), num_classes=1000, **SIZES[size])
    E, blocks = (SIZES[size][key] for key in ("width", "blocks"))
    block = 3 * E * (E + 1) + E * (E + 1) + 4 * E * (E + 1) + E * (4 * E + 1) + 6 * E * (E + 1)
    ends = (16 + 1) * E + 2 * E * (E + 1) + 16 * (E + 1)
    condition = (256 + 1) * E + (E + 1) * E + 1000 * E
    assert count(net) == blocks * block + ends + condition
    theirs = count(net) + E + 256 * E + 16 * (E + 1)
    assert theirs / 1e6 == pytest.approx(published, rel=0.01)


def test_what_a_dry_run_counts_is_the_papers_operations() -> None:
    """DiT-B/2 on 32x32 latents: 23 billion multiplications and additions (Table 1 has 23.0)."""
    found = activations("dit", {"shape": [4, 32, 32], **SIZES["b"]})
    assert found.flops / 2e9 == pytest.approx(23.0, rel=0.01)
    # A block keeps both norms' results before and after the condition, q, k and v, attention's
    # result three times, the hidden units twice at 4 widths, and its own.
    vectors = 4 + 3 + 3 + 2 * 4 + 3
    assert found.per_image / (4 * 12 * 256 * 768) == pytest.approx(vectors, rel=0.05)


# Against another implementation


def test_it_is_the_network_of_diffusers() -> None:
    """With the same weights, and its null class; see benchmarks/dit_step.py."""
    pytest.importorskip("diffusers")
    where = Path(__file__).parents[1] / "benchmarks/dit_step.py"
    pair = runpy.run_path(str(where))["pair"]
    mine, theirs = (F.double() for F in pair(8, channels=3, classes=5, **SMALL))
    x, t, label = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 25, 99]), torch.arange(2, 6)
    with torch.no_grad():
        expected = theirs(x, t, label).sample
        torch.testing.assert_close(mine(x, t.double(), label), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1


# What every option must do


@options
def test_a_new_network_is_zero_and_every_parameter_matters_when_awake(
    option: dict[str, Any],
) -> None:
    net = small(num_classes=3, two_time=True, guidance_embedding=True, **option)
    x, c = inputs(net)
    labels, w = torch.tensor([0, 1, 2, 0]), torch.linspace(1, 4, 4)
    y = net(x, c, labels, c, w)
    assert torch.equal(y, torch.zeros_like(x))
    assert y.is_contiguous()
    y.sum().backward()
    assert net.write.bias.grad.abs().min() > 0
    awake(net)
    x, c = x.double(), c.double()
    net(x, c, labels, c - 0.1, w).square().sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
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
def test_forward_mode_is_the_same_network_and_the_limit_of_differences(
    option: dict[str, Any],
) -> None:
    net = awake(small(two_time=True, **option))
    x, c = inputs(net)
    v, u, s = torch.randn_like(x), torch.randn_like(c), c - 0.3

    def at(h: float) -> Tensor:
        return net(x + h * v, c + h * u, None, s)

    y, derivative = torch.func.jvp(lambda x, c: net(x, c, None, s), (x, c), (v, u))
    torch.testing.assert_close(y, at(0.0))
    h = 1e-5
    difference = (at(h) - at(-h)) / (2 * h)
    torch.testing.assert_close(derivative, difference, rtol=1e-5, atol=1e-5)


@options
def test_a_stored_network_is_rebuilt(option: dict[str, Any]) -> None:
    net = awake(small(num_classes=2, **option))
    again = from_config(json.loads(json.dumps(net.config))).double().eval()
    again.load_state_dict(net.state_dict())
    x, c = inputs(net)
    assert torch.equal(net(x, c), again(x, c))


@options
def test_a_loss_through_it_is_one_graph(option: dict[str, Any]) -> None:
    net = small(num_classes=2, dropout=0.1, **option)
    torch._dynamo.reset()
    graph = torch.compile(net, fullgraph=True, backend="eager")
    x, c = inputs(net)
    graph(x, c, torch.tensor([0, 1, 2, 0])).sum().backward()


# Patches and positions


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches_are_tokens_row_by_row(patch: int) -> None:
    x = torch.randn(2, 3, 6, 12)
    tokens = patchify(x, patch)
    assert tokens.shape == (2, 6 * 12 // patch**2, 3 * patch**2)
    assert torch.equal(unpatchify(tokens, patch, (3, 6, 12)), x)
    columns = 12 // patch
    corner = x[:, :, patch : 2 * patch, :patch]  # the first of the second row
    assert torch.equal(tokens[:, columns], corner.flatten(1))


def test_sines_tell_every_patch_from_every_other() -> None:
    w = sincos(5, 7, 32).w
    assert w.shape == (35, 32)
    apart = torch.cdist(w, w) + torch.eye(35)
    assert apart.min() > 0.3
    # The first half is of columns, the second of rows.
    by_row = w.view(5, 7, 32)
    assert torch.equal(by_row[0, :, :16], by_row[4, :, :16])
    assert torch.equal(by_row[:, 0, 16:], by_row[:, 6, 16:])


def test_what_rotary_positions_show_is_how_far_patches_are_apart() -> None:
    turn, q, k = rotary(5, 7, 16).w.double(), *torch.randn(2, 16).double()
    q, k = (rotated(x.expand(35, 16), turn).view(5, 7, 16) for x in (q, k))

    def product(a: tuple[int, int], b: tuple[int, int]) -> Tensor:
        return q[a] @ k[b]

    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(product((1, 2), (3, 1)), product((2, 5), (4, 4)), **near)
    torch.testing.assert_close(product((0, 0), (0, 0)), product((4, 6), (4, 6)), **near)
    assert not torch.allclose(product((1, 2), (3, 1)), product((1, 2), (3, 2)), **near)
    assert not torch.allclose(product((1, 2), (3, 1)), product((1, 2), (2, 1)), **near)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (4, 8, 16)])
def test_shapes(shape: tuple[int, int, int]) -> None:
    net = awake(small(shape=shape))
    y = net(*inputs(net, 2))
    assert y.shape == (2, *shape)
    assert y.std() > 0
    moved = net(*(a.roll(2, -1) if a.ndim == 4 else a for a in inputs(net, 2)))
    assert moved.isfinite().all()


# Conditions and refusals


def test_two_times_start_as_one_time() -> None:
    one, two = awake(small()), small(two_time=True).double().eval()
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert (missing, unexpected) == (["embed_s.weight"], [])
    x, c = inputs(two)
    assert torch.equal(two(x, c, None, c - 0.1), one(x, c))
    with pytest.raises(FewstepError, match="c_noise_s"):
        two(x, c)


def test_dropout_acts_in_training_only() -> None:
    net = awake(small(dropout=0.5))
    x, c = inputs(net)
    assert torch.equal(net(x, c), net(x, c))
    net.train()
    assert not torch.equal(net(x, c), net(x, c))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"shape": (8, 8)}, r"\(C, H, W\)"),
        ({"shape": (3, 1, 8)}, "pixels, and 8x1 is smaller"),
        ({"patch": 0}, "patch of the DiT must be at least 1; got 0"),
        ({"width": 18}, "18"),
        ({"blocks": 0}, "blocks"),
        ({"hidden": 0}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"time_scale": 0.0}, "time_scale"),
        ({"num_classes": -1}, "num_classes"),
        ({"heads": 3}, "heads=3.*16"),
        ({"positions": "rop"}, "rope"),
        ({"positions": "rope", "heads": 8}, "2 channels"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        small(**arguments)


def test_inputs_that_do_not_fit_are_named() -> None:
    net = small(num_classes=3)
    x, c = inputs(net)
    with pytest.raises(FewstepError, match="label"):
        net(x, c, torch.tensor([0, 1, 2, 4]))
    with pytest.raises(FewstepError, match="unconditional"):
        small()(x, c, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(FewstepError, match="without guidance_embedding"):
        net(x, c, w=c)
    with pytest.raises(FewstepError, match="16"):
        net(torch.zeros(1, 3, 16, 16), c[:1])
