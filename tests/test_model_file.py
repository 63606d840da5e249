"""Model files: every type of weights, networks that torch has wrapped, and hostile headers."""

from __future__ import annotations

import copy
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.model_file import HEADER
from fewstep.models import load_model
from fewstep.networks import (
    ADM,
    MLP,
    NETWORKS,
    ConvAutoencoder,
    DiT,
    FourierOperator,
    MLPAutoencoder,
    Network,
    UNet,
)
from fewstep.networks.unet import NCSNPP
from fewstep.parameterization import EDM, DiscreteVP
from fewstep.sampling import ODE, Multistep, NoiseStreams, sample
from fewstep.trained import CONSISTENCY

CONV = {"channels": 16, "multipliers": (1, 2), "blocks": 1}
MAKE: dict[str, Callable[[], Network]] = {
    "mlp": lambda: MLP((1, 8, 8), num_classes=3, width=32, two_time=True),
    "unet": lambda: UNet((3, 16, 16), num_classes=3, **CONV),
    "unet-1-channel": lambda: UNet((1, 16, 16), **CONV),
    "ncsnpp": lambda: UNet((1, 16, 16), **CONV, **NCSNPP),
    "adm": lambda: ADM((3, 16, 16), **{**CONV, "channels": 32}, head_channels=32, attention=(8,)),
    "adm-1-channel": lambda: ADM((1, 8, 8), **{**CONV, "channels": 32}, head_channels=32),
    "dit": lambda: DiT((4, 8, 16), num_classes=3, width=32, blocks=1, heads=2, positions="rope"),
    "dfno": lambda: FourierOperator((1, 8, 8), base="mlp(width=32)"),
    "conv_autoencoder": lambda: ConvAutoencoder((1, 8, 8), channels=8, multipliers=(1, 2)),
}
HALF = (torch.float16, torch.bfloat16)


def make(name: str = "mlp", **info: Any) -> Any:
    F = MAKE[name]()
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.1)
    if "autoencoder" in name:
        return AutoencoderModel(F, info=info).eval()
    return FlowMap(F, EDM(), info={"kind": "consistency", **info}).eval()


def stored(f: Any, path: Path) -> Any:
    f.save(path / "f.safetensors")
    return load_model(path / "f.safetensors")


@pytest.mark.parametrize("name", MAKE)
def test_what_is_loaded_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    f = make(name)
    state = torch.random.get_rng_state()
    g = stored(f, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)  # loading draws nothing
    for n in (1, 5):
        assert torch.equal(sample(f, n), sample(g, n))
    assert not g.training
    assert [p.requires_grad for p in g.parameters()] == [p.requires_grad for p in f.parameters()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_models_of_every_type(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    f = make(name)
    few = None if "autoencoder" in name else Multistep((1.0,))
    exact = sample(f, 3, few, seed=1)
    f = f.to(dtype)
    g = stored(f, tmp_path)
    assert (g.dtype, f.dtype) == (dtype, dtype)
    x = sample(g, 3, few, seed=1)
    # Half a network has about 3 or 2 digits; times, noise and sums do not lose more.
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-5}[dtype]
    torch.testing.assert_close(x.double(), exact.double(), rtol=0, atol=tolerance)
    assert x.dtype == (torch.float32 if dtype in HALF else torch.float64)
    assert torch.equal(x, sample(f, 3, few, seed=1))


def test_half_models_are_taught_times_in_full() -> None:
    f = make("ncsnpp").half()
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([0.1, 20.0])
    seen: list[Tensor] = []
    f.F.register_forward_pre_hook(lambda module, args: seen.extend(args[:2]))
    assert f(x, t).dtype == torch.float32
    assert (seen[0].dtype, seen[1].dtype) == (torch.float16, torch.float32)
    frequencies = f.get_buffer("F.condition.embed.w")
    assert frequencies.dtype == torch.float32  # in float16, 100 radians are off by 0.03
    assert f(x.half(), t).dtype == torch.float16
    torch.testing.assert_close(f(x.half(), 0.002), x.half())


def test_double_models_walk_in_double_precision() -> None:
    f = make()
    exact = FlowMap(copy.deepcopy(f.F), DiscreteVP(), info={"kind": "diffusion"}).double()
    noise = [NoiseStreams(0, range(3), f.shape) for _ in range(2)]
    assert torch.equal(noise[0].normal().double(), noise[1].normal(dtype=torch.float64))
    label = torch.arange(3)
    x, y = sample(exact, 3, ODE(6), labels=label), sample(exact.float(), 3, ODE(6), labels=label)
    assert (x.dtype, y.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(x.float(), y, rtol=1e-3, atol=1e-4)


def test_a_model_of_latents_may_have_an_autoencoder_of_another_type(tmp_path: Path) -> None:
    latents = Latents(MLPAutoencoder((1, 8, 8), latents=4, width=16).half())
    f = FlowMap(MLP((4,), width=16), EDM(sigma_data=1.0), trained=CONSISTENCY, latents=latents)
    g = stored(f, tmp_path)
    assert g.latents is not None
    assert (g.dtype, next(g.latents.parameters()).dtype) == (torch.float32, torch.float16)
    assert sample(g, 2).dtype == torch.float32
    assert latents.encode(torch.zeros(2, 1, 8, 8)).dtype == torch.float32


def compiled(F: nn.Module) -> nn.Module:
    return torch.compile(F)


def compiled_part(F: nn.Module) -> nn.Module:
    F.blocks[0] = torch.compile(F.blocks[0])
    return F


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "a part compiled": compiled_part,
    "parallel": nn.DataParallel,
    "parallel and compiled": lambda F: nn.DataParallel(compiled(F)),
    "compiled and parallel": lambda F: compiled(nn.DataParallel(F)),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_wrapped_networks_are_stored_as_they_are_inside(how: str, tmp_path: Path) -> None:
    f = make()
    want, names = sample(f, 2), set(f.F.state_dict())
    f.F = WRAPPED[how](f.F)
    assert (f.shape, f.num_classes) == ((1, 8, 8), 3)
    assert torch.equal(sample(stored(f, tmp_path), 2), want)
    assert set(load_file(tmp_path / "f.safetensors")) == names
    f.load_weights(make().tensors(), "another")  # and its weights are found again
    f.take_network(make(), "another")
    # files that were written with the wrappers' names
    wrapped = f.F.state_dict()
    save_file(wrapped, tmp_path / "g.safetensors", metadata=f.header())
    assert FlowMap.load(tmp_path / "g.safetensors").tensors().keys() == names


def test_a_wrapper_of_something_else_is_named() -> None:
    with pytest.raises(FewstepError, match="Linear is not a network"):
        FlowMap(nn.Linear(3, 3), EDM())  # type: ignore[arg-type]


def test_a_loaded_model_does_not_hang_on_its_file(tmp_path: Path) -> None:
    f = make()
    f.save(tmp_path / "f.safetensors")
    g = FlowMap.load(tmp_path / "f.safetensors")
    (tmp_path / "f.safetensors").write_bytes(b"\0" * 100)  # in place
    assert torch.equal(sample(f, 2), sample(g, 2))


def test_a_network_whose_constructor_computes_something(tmp_path: Path) -> None:
    class Own(MLP):
        def __init__(self, shape: tuple[int, ...], scale: float = 1.0) -> None:
            super().__init__(shape, width=8)
            self.scale = scale * torch.ones(3)
            self.register_buffer("places", torch.arange(3.0) + scale, persistent=False)

    NETWORKS.register("own")(Own)
    try:
        f = FlowMap(Own((3,), 0.25), EDM(), trained=CONSISTENCY)
        g = stored(f, tmp_path)
    finally:
        del NETWORKS._classes["own"]
    assert torch.equal(g.F.places, f.F.places)
    assert torch.equal(g.F.scale, f.F.scale)
    assert torch.equal(sample(f, 2), sample(g, 2))


def test_a_map_exports_with_any_batch() -> None:
    f, label = make(), torch.zeros(4, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=2, max=64)
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4) + 0.5

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = f

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return self.f(x, t, condition=Condition(label))

    shapes = {"x": {0: batch}, "t": {0: batch}, "label": {0: batch}}
    exported = torch.export.export(Call(), (x, t, label), dynamic_shapes=shapes).module()
    more = (x.repeat(3, 1, 1, 1), t.repeat(3), label.repeat(3))
    torch.testing.assert_close(exported(*more), f(more[0], more[1], condition=Condition(more[2])))


# Hostile files

HUGE = 10**7
HOSTILE = [
    ("network", "width", HUGE),
    ("network", "blocks", HUGE),
    ("network", "num_classes", HUGE),
    ("network", "frequencies", 10**9),
    ("network", "shape", [10**9]),
    ("network", "shape", "abc"),
    ("network", "shape", {"1": 8}),
    ("network", "width", "256"),
    ("network", "width", 10**400),
    ("network", "name", ["mlp"]),
    ("network", "two_time", False),
    ("parameterization", "sigma_data", 1e308),
    ("parameterization", "sigma_data", float("nan")),
    ("parameterization", "T", "80"),
    ("parameterization", "eps", None),
    ("parameterization", "name", "elsewhere"),
    ("info", "taus", 5),
    ("info", "taus", []),
    ("info", "taus", {"2": 5}),
    ("info", "taus", {"2": ["x"]}),
    ("info", "taus", {"2": [0.8, 0.2]}),
    ("info", "taus", {"2": [float("inf")]}),
    ("info", "taus", {"two": [0.8]}),
    ("info", "classes", 5),
    ("info", "classes", [1, 2, 3]),
    ("info", "classes", ["a"]),
    ("info", "sampling_steps", "x"),
    ("info", "sampling_steps", 2.5),
    ("info", "kind", "something"),
    ("info", "kind", ["diffusion"]),
    ("info", "kind", "autoencoder"),
    ("info", "teacher", "runs/edm"),
    ("info", None, "x"),
    ("network", None, []),
    ("latents", None, "x"),
    ("latents", None, {"name": "mlp_autoencoder", "shape": [1, 8, 8], "blocks": HUGE}),
    ("network", None, {"name": "unet", "shape": [1, 8, 8], "channels": 100_000}),
    ("network", None, {"name": "unet", "shape": [1, 8, 8], "multipliers": [1] * 10_000}),
    ("network", None, {"name": "unet", "shape": [1, 8, 8], "resample_filter": [1] * 20_000}),
    ("network", None, {"name": "dfno", "shape": [1, 8, 8], "base": f"mlp(blocks={HUGE})"}),
    ("parameterization", None, {"name": "vp_discrete", "N": 10**10}),
    ("parameterization", None, {"name": "vp", "prediction": 5}),
]


@pytest.mark.parametrize(
    ("part", "key", "value"), HOSTILE, ids=[f"{p}.{k}={v!r:.30}" for p, k, v in HOSTILE]
)
def test_a_header_allocates_nothing_and_is_refused_in_one_line(
    part: str, key: str | None, value: Any, tmp_path: Path
) -> None:
    f = make()
    header = json.loads(f.header()[HEADER])
    if key is None:
        header[part] = value
    else:
        header[part][key] = value
    path = tmp_path / "f.safetensors"
    tensors = f.tensors() | ({"latents.m": torch.zeros(1)} if part == "latents" else {})
    save_file(tensors, path, metadata={HEADER: json.dumps(header)})
    seconds, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FewstepError, match=r"f\.safetensors") as caught:
        FlowMap.load(path)
    assert time.process_time() - seconds < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100 * 1024
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"format": ' + "9" * 6000 + "}", "", "null", "[1]"]
)
def test_headers_that_are_no_table(text: str, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file(make().tensors(), path, metadata={HEADER: text})
    with pytest.raises(FewstepError, match=r"the header of .*f\.safetensors does not describe"):
        FlowMap.load(path)


def test_weights_of_other_types_or_of_several_are_refused(tmp_path: Path) -> None:
    f, path = make(), tmp_path / "f.safetensors"
    whole = {name: x.to(torch.int32) for name, x in f.tensors().items()}
    save_file(whole, path, metadata=f.header())
    with pytest.raises(FewstepError, match="is I32: weights are F16"):
        FlowMap.load(path)
    mixed = f.tensors() | {"write.bias": f.tensors()["write.bias"].half()}
    save_file(mixed, path, metadata=f.header())
    with pytest.raises(FewstepError, match="several types, float16 and float32"):
        FlowMap.load(path)


def test_info_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    f = make(note=torch.zeros(1))
    with pytest.raises(FewstepError, match="plain JSON"):
        f.save(tmp_path / "f.safetensors")
    assert not list(tmp_path.iterdir())


OTHER_FILES: dict[bytes, str] = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "git lfs pull",
    b"PK\x03\x04" + b"\0" * 100: "zip archive",
    b"\x80\x02}q\x00": "pickle",
    b"<!DOCTYPE html><html>": "HTML",
    b"\x89PNG\r\n\x1a\n" + b"\0" * 50: "PNG",
    b"\x93NUMPY\x01\x00": "numpy",
    b"\0" * 300: "cannot read the model",
}


@pytest.mark.parametrize("content", OTHER_FILES, ids=OTHER_FILES.values())
def test_other_files_are_named_for_what_they_are(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    with pytest.raises(FewstepError, match=OTHER_FILES[content]) as caught:
        FlowMap.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    f, path = make(), tmp_path / "f.safetensors"
    f.save(path)
    whole = path.read_bytes()
    for length in (1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FewstepError, match=r"f\.safetensors"):
            FlowMap.load(path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match="is a folder"):
        FlowMap.load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "f.safetensors")
        with pytest.raises(FewstepError, match="is a pipe"):
            FlowMap.load(tmp_path / "f.safetensors")
