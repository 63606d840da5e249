"""The map: boundary conditions, conversions, storage."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.condition import Condition
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, NETWORKS
from fewstep.parameterization import EDM, PARAMETERIZATIONS, SimpleEDM
from oracles import Exact, Gaussian


def make(p: object = None, **kwargs: object) -> FlowMap:
    """A small map whose network is not zero."""
    f = FlowMap(MLP((3,), width=8, blocks=1, **kwargs), p or EDM())
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return f


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_f_at_eps_is_the_identity(name: str) -> None:
    settable = "eps" in inspect.signature(PARAMETERIZATIONS[name]).parameters
    p = PARAMETERIZATIONS[name](**({"eps": 0.01} if settable else {}))
    x, eps = torch.randn(5, 3), p.eps
    torch.testing.assert_close(make(p)(x, eps), x, rtol=0, atol=1e-6)
    if name != "edm_simple":  # whose map jumps at eps
        assert (make(p)(x, eps + 1e-3) - x).abs().max() < 0.3


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_any_map_from_t_to_t_is_the_identity(name: str) -> None:
    f, x = make(PARAMETERIZATIONS[name]()), torch.randn(4, 3)
    t = torch.tensor([0.1, 0.5, 0.9, 0.99])
    torch.testing.assert_close(f(x, t, t), x, rtol=0, atol=1e-6)


def test_the_formula() -> None:
    f, x, t = make(), torch.randn(4, 3), torch.tensor([0.1, 1.0, 5.0, 80.0])
    c_skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
    c_out = 0.5 * (t - 0.002) / (t**2 + 0.25).sqrt()
    F_x = f.F(x / (t**2 + 0.25).sqrt()[:, None], t.log() / 4)
    torch.testing.assert_close(f(x, t), c_skip[:, None] * x + c_out[:, None] * F_x)


def test_the_simple_boundary_condition_is_the_network() -> None:
    f, x = make(SimpleEDM()), torch.randn(4, 3)
    F_x = f.F(f.p.c_in(torch.tensor(2.0)) * x, torch.full((4,), 2.0).log() / 4)
    torch.testing.assert_close(f(x, 2.0), F_x)
    torch.testing.assert_close(f(x, 0.002), x)


def test_score_and_velocity_of_gaussian_data() -> None:
    truth = Gaussian(EDM())
    f, x, t = Exact(truth, "diffusion"), torch.randn(6, 3).double(), torch.rand(6).double() * 5
    variance = (truth.v + t**2)[:, None]
    torch.testing.assert_close(f.score(x, t), -(x - truth.m) / variance)
    torch.testing.assert_close(f.velocity(x, t), t[:, None] * (x - truth.m) / variance)


def test_a_number_is_a_time_for_every_example() -> None:
    f, x = make(), torch.randn(4, 3)
    torch.testing.assert_close(f(x, 1.5), f(x, torch.full((4,), 1.5)))


def test_two_time_networks_see_the_end() -> None:
    f, x = make(two_time=True), torch.randn(4, 3)
    assert not torch.allclose(
        f.F(x, x[:, 0], c_noise_s=x[:, 1]), f.F(x, x[:, 0], c_noise_s=x[:, 2])
    )
    assert f(x, 2.0, 1.0).isfinite().all()


@pytest.mark.parametrize(
    "spec",
    [
        "mlp(width=16)",
        "unet(channels=8, multipliers=(1, 2), blocks=1)",
        "adm(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8)",
        "edm2(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8)",
        "dit(width=16, blocks=2, heads=2)",
    ],
)
@pytest.mark.parametrize("process", ["edm(eps=0.0)", "vp", "rectified_flow(second='gap')"])
def test_a_two_time_network_begins_as_its_one_time_teacher(spec: str, process: str) -> None:
    """To the bit, whatever it knew before; and the note says what is new."""
    p = PARAMETERIZATIONS.build(process)
    teacher, f = (
        FlowMap(NETWORKS.build(spec, shape=(3, 8, 8), num_classes=4, two_time=two), p).eval()
        for two in (False, True)
    )
    for g in (teacher, f):
        for parameter in g.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    with pytest.warns(FewstepWarning, match="the network of a teacher is not told the end"):
        f.take_network(teacher, "a teacher")
    x, t, s = torch.randn(2, 3, 8, 8), torch.full((2,), 0.8 * p.T), torch.full((2,), 0.3 * p.T)
    condition = Condition(torch.arange(2))
    with torch.no_grad():
        assert torch.equal(f(x, t, s, condition), teacher(x, t, s, condition))
        assert torch.equal(f(x, t, condition=condition), teacher(x, t, condition=condition))
        torch.testing.assert_close(f.D(x, t, condition), teacher.D(x, t, condition))
    loss = f(x, t, s, condition).square().mean()
    loss.backward()  # and it learns
    learned = dict(f.network.named_parameters())[f.network.added["the end of a map"][0]].grad
    assert learned is not None
    assert bool((learned != 0).any())
    with pytest.raises(FewstepError, match="do not fit"):
        teacher.take_network(f, "a two-time model")


def test_under_autocast_times_and_skip_stay_exact() -> None:
    f, x = make(), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = f(x, 80.0)
        assert torch.equal(f(x, f.p.eps), x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, f(x, 80.0), rtol=0.1, atol=0.1)


NETWORK_SPECS = [
    "mlp(width=16, blocks=1, two_time=True)",
    "unet(channels=8, multipliers=(1, 2), blocks=1)",
    "unet(channels=8, multipliers=(1, 2), blocks=1, encoder='residual', "
    "resample_filter=(1, 3, 3, 1), embedding='fourier')",
    "adm(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8)",
    "dit(width=16, blocks=2, heads=2)",
    "dit(width=16, blocks=2, heads=2, positions='rope', qk_norm=True)",
    "dfno(base='mlp(width=16, blocks=1)')",
]


@pytest.mark.parametrize("spec", NETWORK_SPECS)
@pytest.mark.parametrize(("precision", "digits"), [("bf16", 0.02), ("fp16", 0.003)])
def test_a_network_in_half_precision(spec: str, precision: Any, digits: float) -> None:
    """Only ``F`` is rounded: what comes out is float32 and near that of float32."""
    F = NETWORKS.build(spec, shape=(3, 8, 8), num_classes=4)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    f, x, t = FlowMap(F, EDM()).eval(), torch.randn(4, 3, 8, 8), torch.tensor([0.01, 0.5, 3.0, 80])
    x = x * t[:, None, None, None]
    with torch.no_grad():
        exact = f(x, t, condition=Condition(torch.arange(4)))
        rounded = f.in_precision(precision)(x, t, condition=Condition(torch.arange(4)))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert float((rounded - exact).norm() / exact.norm()) < digits
    assert all(buffer.dtype == torch.float32 for buffer in F.buffers())


def test_average() -> None:
    f, g = make(), make()
    expected = [0.9 * a + 0.1 * b for a, b in zip(g.parameters(), f.parameters(), strict=True)]
    g = g.frozen_copy()
    g.average_(f, 0.9)
    for mine, truth in zip(g.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, truth)
        assert not mine.requires_grad


def test_storage_round_trip(tmp_path: Path) -> None:
    f = make(EDM(T=20.0, sigma_data=0.7), num_classes=4)
    f.info = {"kind": "consistency", "classes": ["a", "b", "c", "d"], "taus": {"2": [0.8]}}
    f.save(tmp_path / "f.safetensors")
    g = FlowMap.load(tmp_path / "f.safetensors")
    assert (g.p, g.trained, g.info) == (f.p, f.trained, f.info)
    assert g.F.config == {**f.F.config, "shape": [3]}
    x, condition = torch.randn(4, 3), Condition(torch.arange(4))
    assert torch.equal(f(x, 3.0, None, condition), g(x, 3.0, None, condition))


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with pytest.raises(FewstepError, match="no model file"):
        FlowMap.load(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(FewstepError, match=r"f\.safetensors"):
        FlowMap.load(path)
    f = make()
    f.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FewstepError, match=r"f\.safetensors"):
        FlowMap.load(path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(FewstepError, match="not a fewstep model"):
        FlowMap.load(path)


def test_weights_that_do_not_fit_are_named() -> None:
    wide = FlowMap(MLP((3,), width=16, blocks=1), EDM())
    with pytest.raises(FewstepError, match=r"embed_t\.weight|blocks"):
        make().load_weights(wide.F.state_dict(), "wide")
