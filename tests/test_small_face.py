"""What is asked of a model to be sampled: a few names, which any callable can be given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep
from fewstep.condition import NONE, Condition
from fewstep.data import load, to_uint8
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator
from fewstep.evaluation.features import FeatureNetwork, Features
from fewstep.parameterization import EDM, VP, RectifiedFlow
from fewstep.sampling import Jumps, NoiseStreams, sampler_for
from fewstep.trained import DIFFUSION, Trained
from oracles import Gaussian, network_map

CPU = torch.device("cpu")
SAMPLERS = ["walk(steps=40)", "walk(solver=dpm3, nfe=60)", "walk(solver=churn, steps=40)"]


@pytest.mark.parametrize("spec", SAMPLERS)
@pytest.mark.parametrize("p", [EDM(), VP(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_a_denoiser_from_elsewhere_is_sampled(p: Any, spec: str) -> None:
    model = fewstep.as_model(p, (20,), D=Gaussian(p, m=0.3, v=0.04).denoise)
    x = fewstep.sample(model, 1000, spec)
    assert float(x.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x.std()) == pytest.approx(0.2, rel=0.1)


def test_samples_are_those_of_the_model_that_was_wrapped() -> None:
    """To the bit on as many rows, which are as many as the samples of a callable."""
    f = network_map("diffusion")
    model = fewstep.as_model(f.p, f.shape, D=f.D)
    assert torch.equal(fewstep.sample(model, 16, steps=4), fewstep.sample(f, 16, steps=4))
    f = network_map()
    model = fewstep.as_model(f.p, f.shape, f=f)
    taus = "jumps(times=(2.0,))"
    assert torch.equal(fewstep.sample(model, 16, taus), fewstep.sample(f, 16, taus))


def test_a_map_from_elsewhere_jumps() -> None:
    truth = Gaussian(EDM(), m=0.3, v=0.01)
    model = fewstep.as_model(truth.p, (3,), X=truth.flow)
    assert sampler_for(model, 3) == Jumps(0.0, times=sampler_for(model, 3).times)
    x = fewstep.sample(model, 4, steps=3)
    torch.testing.assert_close(x, fewstep.sample(model, 4, steps=1), rtol=0, atol=1e-5)
    with pytest.raises(FewstepError, match="this model has no D, only X"):
        fewstep.sample(model, 1, "walk")
    both = fewstep.as_model(truth.p, (3,), X=truth.flow, D=truth.denoise)
    y = fewstep.sample(both, 4, "walk(steps=100)")
    torch.testing.assert_close(y, x, rtol=0, atol=1e-2)


def test_the_classes_are_the_third_argument() -> None:
    seen: list[Tensor] = []

    def D(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return label[:, None].to(x.dtype).expand_as(x) / 4

    model = fewstep.as_model(EDM(), (2,), D=D, classes=("cat", "dog"))
    x = fewstep.sample(model, 4, steps=2)
    assert x[:, 0].tolist() == [0, 0.25, 0, 0.25]
    assert fewstep.sample(model, 1, steps=2, label="dog")[0, 0] == 0.25
    assert all(label.dtype == torch.int64 for label in seen)
    with pytest.raises(FewstepError, match="unknown class 'dgo'"):
        fewstep.sample(model, 1, label="dgo")


def test_a_module_keeps_its_weights_and_its_place() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = nn.Linear(2, 2), nn.Dropout(0.5)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.drop(self.linear(x))

    net = Net().double()
    model = fewstep.as_model(EDM(), (2,), D=net, dtype=torch.float64)
    assert model.device == net.linear.weight.device
    x = fewstep.sample(model, 3)
    assert x.dtype == torch.float64
    assert torch.equal(x, fewstep.sample(model, 3))
    assert net.drop.training, "sampling leaves its mode"


def test_what_it_makes_of_noise_is_scored() -> None:
    digits = load("digits")
    real = digits.images[:200].float() / 127.5 - 1
    mean, std = real.mean(0), real.std(0).clamp(min=0.05)

    def D(x: Tensor, t: Tensor) -> Tensor:
        now = t[:, None, None, None]
        return (std**2 * x + now**2 * mean) / (std**2 + now**2)

    model = fewstep.as_model(EDM(), (1, 8, 8), D=D)
    evaluator = Evaluator.of(Pixels(), digits.images[:200], metrics=("fd",), replicates=0)
    scores = [
        evaluator.score(to_uint8(fewstep.sample(model, 200, "walk(steps=10)"))).fd,
        evaluator.score(to_uint8(torch.zeros(200, 1, 8, 8))).fd,
    ]
    assert scores[0] < scores[1] / 2


class Pixels(FeatureNetwork):
    name, shape, num_features, num_classes = "pixels", (1, 8, 8), 64, 0

    def forward(self, images: Tensor) -> Features:
        return Features(images.float().flatten(1) / 255, None)


@dataclass
class Handmade:
    """No module, and no more than the names that samplers ask for."""

    p: EDM
    trained: Trained = DIFFUSION
    shape: tuple[int, ...] = (2,)
    image_shape: tuple[int, ...] = (2,)
    latents: None = None
    num_classes: int = 0
    classes: tuple[str, ...] = ()
    device: torch.device = CPU
    x_dtype: torch.dtype = torch.float32

    def D(self, x: Tensor, t: Tensor, condition: Condition = NONE) -> Tensor:
        return torch.full_like(x, 0.5)

    def __call__(self, x: Tensor, t: Tensor, s: Any = None, condition: Condition = NONE) -> Tensor:
        raise AssertionError("a walk asks for the denoiser")

    def image(self, x: Tensor) -> Tensor:
        return x


def test_no_module_is_needed() -> None:
    model = Handmade(EDM())
    assert fewstep.sample(model, 3).tolist() == [[0.5, 0.5]] * 3
    assert fewstep.Walk(4)(model, NoiseStreams(0, range(2), (2,))).tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "got none of them"),
        ({"D": len, "f": len}, "got D and f"),
        ({"D": "runs/edm"}, "D of a model must be callable, got 'runs/edm'"),
        ({"D": lambda x, t: x[:, :1]}, r"D of a model must return \[1, 2\], got \[1, 1\]"),
        ({"D": lambda x, t: None}, r"D of a model must return \[1, 2\], got NoneType"),
        ({"f": lambda x, t: x * float("nan")}, "NaN"),
    ],
)
def test_what_is_no_model_is_said(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(FewstepError, match=expected):
        fewstep.sample(fewstep.as_model(EDM(), (2,), **arguments), 1)


def test_the_example_of_the_documentation_runs() -> None:
    page = (Path(__file__).parents[1] / "docs/samplers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["x"].shape == (4, 3, 32, 32)
    assert names["x"].isfinite().all()
