"""Samplers: the algorithms written out, seeds, and distributions on closed-form data."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.editing import variation
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.likelihood import Likelihood
from fewstep.networks import (
    MLP,
    ConvAutoencoder,
    DiT,
    EDM2UNet,
    FourierOperator,
    MLPAutoencoder,
    UNet,
)
from fewstep.parameterization import EDM, PARAMETERIZATIONS
from fewstep.sampling import (
    ODE,
    Multistep,
    NoiseStreams,
    Walk,
    check_labels,
    default_batch,
    default_taus,
    sample,
    sampler_for,
)
from fewstep.sampling.rows import alike, parts
from fewstep.trained import CONSISTENCY, DIFFUSION
from oracles import Exact, Gaussian, network_map


class Counter:
    """Counts network evaluations."""

    def __init__(self, f: FlowMap) -> None:
        self.calls = 0
        f.F.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        ("consistency", Multistep()),
        ("consistency", Multistep((3.0, 0.5))),
        ("diffusion", ODE(1)),
        ("diffusion", ODE(5, "euler")),
        ("diffusion", ODE(5, "heun")),
    ],
)
def test_evaluations_are_counted(kind: str, sampler: Any) -> None:
    f = network_map(kind)
    counter = Counter(f)
    sample(f, 3, sampler)
    assert counter.calls == sampler.nfe


def test_nfe_of_edm() -> None:
    assert ODE(18).nfe == 35  # Karras et al. 2022: 18 Heun steps, CIFAR-10


def test_multistep_is_algorithm_1() -> None:
    f, taus = network_map(), (5.0, 0.5)
    got = Multistep(taus)(f, NoiseStreams(3, range(4), f.shape))
    noise = NoiseStreams(3, range(4), f.shape)
    x = f(20.0 * noise.normal(), 20.0)
    for tau in taus:
        x = f(x + (tau**2 - 0.002**2) ** 0.5 * noise.normal(), tau)
    torch.testing.assert_close(got, x)


@pytest.mark.parametrize("batch", [1, 3, 17, 100])
@pytest.mark.parametrize("sampler", [Multistep((2.0,)), ODE(3)], ids=str)
def test_without_convolutions_samples_are_the_same_bits_in_any_batch(
    batch: int, sampler: Any
) -> None:
    f = FlowMap(MLP((1, 8, 8), num_classes=10, width=256, blocks=2), EDM(T=20.0))
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    whole = sample(f, 37, sampler, seed=1)
    assert torch.equal(sample(f, 37, sampler, seed=1, batch=batch), whole)
    assert torch.equal(sample(f, 37, sampler, seed=1, indices=[3, 30]), whole[[3, 30]])
    label = torch.arange(37) % 10
    assert torch.equal(sample(f, 5, sampler, seed=1, label=label[:5]), whole[:5])


def test_convolutions_are_filled_up_where_it_is_cheap() -> None:
    f = FlowMap(UNet((1, 8, 8), num_classes=0, channels=8, multipliers=(1,), blocks=1), EDM(T=20.0))
    rows = {n: [rows for _, rows in parts(f, n, 32)] for n in (1, 7, 8, 37, 100)}
    assert rows == {1: [1], 7: [7], 8: [8], 37: [32, 8], 100: [32, 32, 32, 8]}
    assert [rows for _, rows in parts(network_map(), 37, 32)] == [32, 16]


SMALL: dict[str, Any] = {"channels": 8, "multipliers": (1,), "blocks": 1}
CONVOLVED = "unet(channels=8, multipliers=(1,), blocks=1)"
PRICED = [
    pytest.param(lambda: DiT((1, 8, 8), patch=4, width=16, blocks=1, heads=2), id="dit"),
    pytest.param(lambda: EDM2UNet((1, 8, 8), **SMALL, head_channels=8), id="edm2"),
    pytest.param(lambda: FourierOperator((1, 8, 8), base=CONVOLVED, times=2), id="dfno"),
]


@pytest.mark.parametrize("network", PRICED)
def test_rows_that_have_their_price_are_not_added(network: Any) -> None:
    """Matrix products and attention over patches take their time for each image, too."""
    f = FlowMap(network(), EDM(T=20.0))
    assert not f.free_rows
    assert default_batch(f) == 32
    assert [rows for _, rows in parts(f, 1, 32)] == [1]
    assert [rows for _, rows in alike(f, 3, 64)] == [1, 1, 1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_more_rows_than_the_batch_are_evaluated(device: str) -> None:
    f = SimpleNamespace(device=torch.device(device))  # a model of a callable's
    for batch in range(1, 20):
        made = list(parts(f, 1000, batch))
        assert max(rows for _, rows in made) <= batch
        assert [i for part, _ in made for i in range(1000)[part]] == list(range(1000))
    assert [rows for _, rows in parts(f, 1, 4)] == [1]


def test_a_decoder_of_convolutions_is_not_given_more_rows() -> None:
    autoencoder = ConvAutoencoder((1, 8, 8), latents=1, channels=4, multipliers=(1, 1))
    latents = Latents(autoencoder)
    f = FlowMap(MLP(latents.shape, width=8, blocks=1), EDM(T=20.0), latents=latents)
    assert not f.free_rows
    assert FlowMap(FourierOperator((2, 3), base="mlp(width=8)", times=2), EDM()).free_rows
    assert AutoencoderModel(MLPAutoencoder((2, 3), latents=2, width=8)).free_rows


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
@pytest.mark.parametrize("sampler", [Multistep((1.0,)), ODE(4)])
def test_samples_do_not_depend_on_the_batch(batch: int, sampler: Any) -> None:
    f = network_map("diffusion" if isinstance(sampler, Walk) else "consistency", num_classes=3)
    whole = sample(f, 10, sampler, seed=1, batch=10)
    torch.testing.assert_close(
        sample(f, 10, sampler, seed=1, batch=batch), whole, rtol=0, atol=1e-5
    )


def test_a_share_of_the_samples_is_the_same_samples() -> None:
    f = network_map(num_classes=3)
    whole = sample(f, 10, Multistep((1.0,)), seed=1)
    for rank in range(3):
        part = sample(f, 10, Multistep((1.0,)), seed=1, indices=range(rank, 10, 3))
        torch.testing.assert_close(part, whole[rank::3], rtol=0, atol=1e-5)


def test_seeds_and_samples_differ_and_are_normal() -> None:
    z = torch.stack([NoiseStreams(seed, range(50), (40,)).normal() for seed in range(50)])
    assert len(z.flatten(0, 1).unique(dim=0)) == 2500
    assert float(z.mean()) == pytest.approx(0, abs=0.02)
    assert float(z.std()) == pytest.approx(1, abs=0.02)
    correlation = torch.corrcoef(z[0])
    assert float((correlation - torch.eye(50)).abs().mean()) < 0.16  # 1/sqrt(40)


def test_models_share_the_noise_of_a_seed() -> None:
    """The first draw is x_T, whatever the sampler: grids of two models can be compared."""
    seen: list[Tensor] = []
    for f in (network_map("consistency"), network_map("diffusion")):
        f.forward = lambda x, *_, **__: (seen.append(x), x)[1]
        sample(f, 2, seed=4)
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize("name", [n for n in PARAMETERIZATIONS if n != "edm_simple"])
def test_the_ode_sampler_draws_the_data_distribution(name: str) -> None:
    """With the exact denoiser of N(m, v), samples have its mean and variance."""
    truth = Gaussian(PARAMETERIZATIONS[name](), m=0.3, v=0.25)
    f = Exact(truth, "diffusion", dim=20)
    x = ODE(40)(f, NoiseStreams(0, range(2000), f.shape))
    assert float(x.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x.var()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("taus", [(), (1.0,), (5.0, 1.0, 0.2)])
def test_multistep_with_the_exact_map_draws_the_data_distribution(taus: tuple[float, ...]) -> None:
    truth = Gaussian(EDM(), m=0.3, v=0.25)
    f = Exact(truth, "consistency", dim=20)
    x = Multistep(taus)(f, NoiseStreams(0, range(2000), f.shape))
    assert float(x.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x.var()) == pytest.approx(0.25, abs=0.02)


def test_the_ode_sampler_follows_the_flow() -> None:
    truth = Gaussian(EDM(T=5.0))
    f = Exact(truth, "diffusion")
    noise = NoiseStreams(0, range(8), f.shape)
    x = ODE(200)(f, noise)
    x_T = 5.0 * NoiseStreams(0, range(8), f.shape).normal().double()
    exact = truth.flow(x_T, torch.full((8,), 5.0).double(), torch.zeros(8).double())
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=2e-3)


def test_defaults() -> None:
    f = network_map()
    assert default_taus(f, 2) == pytest.approx((0.81,), abs=0.02)
    f.trained = replace(f.trained, taus={"2": (0.7,)})
    assert default_taus(f, 2) == (0.7,)
    assert sampler_for(f, 3).nfe == 3
    assert sampler_for(network_map("diffusion"), 3).nfe == 5


@pytest.mark.parametrize(
    ("kind", "arguments", "hint"),
    [
        ("consistency", {"steps": 0}, "at least 1"),
        ("consistency", {"steps": 3, "taus": (1.0,)}, "2 time points"),
        ("diffusion", {"steps": 3, "taus": (1.0, 0.5)}, "consistency"),
        ("diffusion", {"steps": 3, "solver": "huen"}, "'heun'"),
    ],
)
def test_wrong_samplers_are_refused(kind: str, arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        sampler_for(network_map(kind), **arguments)


@pytest.mark.parametrize("taus", [(0.5, 1.0), (30.0,), (0.001,), (1.0, 1.0)])
def test_time_points_must_decrease_inside_the_range(taus: tuple[float, ...]) -> None:
    with pytest.raises(FewstepError, match="decrease"):
        sample(network_map(), 1, Multistep(taus))


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(FewstepError, match="unconditional"):
        check_labels(network_map(), torch.zeros(3), 3)
    for labels in (torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0])):
        with pytest.raises(FewstepError, match=r"0\.\.2"):
            check_labels(network_map(num_classes=3), labels, 2)
    assert check_labels(network_map(num_classes=3), None, 5).tolist() == [0, 1, 2, 0, 1]


PETS = ("cat", "dog", "9")


@pytest.mark.parametrize(
    ("label", "numbers"),
    [
        (1, [1, 1, 1]),
        ("dog", [1, 1, 1]),
        ("1", [1, 1, 1]),
        ("9", [2, 2, 2]),
        (9, [2, 2, 2]),
        (2.0, [2, 2, 2]),
        (np.int64(1), [1, 1, 1]),
        (torch.tensor(1), [1, 1, 1]),
        ([0, 1, 2], [0, 1, 2]),
        (("dog", "9", 0), [1, 2, 0]),
        (np.array([2, 1, 0]), [2, 1, 0]),
        (np.array(["cat", "cat", "dog"]), [0, 0, 1]),
        ([np.float32(2), torch.tensor(1), "cat"], [2, 1, 0]),
        (torch.tensor([2, 2, 0], dtype=torch.uint8), [2, 2, 0]),
    ],
)
def test_a_label_is_a_name_or_a_number_for_all_or_for_each(label: Any, numbers: list[int]) -> None:
    f = network_map(num_classes=3)
    f.trained = replace(f.trained, classes=PETS)
    assert check_labels(f, label, 3).tolist() == numbers
    x = sample(f, 3, steps=2, label=label, seed=5)
    assert torch.equal(x, sample(f, 3, sampler_for(f, 2), labels=torch.tensor(numbers), seed=5))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("dgo", "unknown class 'dgo'. Did you mean 'dog'"),
        (3, "unknown class '3'"),
        (-1, "unknown class '-1'"),
        (1.5, "a label is a class's name or its number, got 1.5"),
        (True, "got True"),
        (float("nan"), "got nan"),
        ([0, 1], "3 labels, got [2]"),
        ([], "3 labels, got [0]"),
        ([[0, 1, 2]], "3 labels, got [1, 3]"),
        ([0, 1, 3], "label 2 is 3, but the model's classes are 0..2: cat, dog, 9"),
        ([0, "dgo", 2], "unknown class 'dgo'"),
        ([0, None, 2], "got None"),
        (torch.tensor([0.5, 1, 2]), "got 0.5"),
        ({"cat": 1}, "got {'cat': 1}"),
    ],
)
def test_a_label_that_is_none_is_refused_by_name(label: Any, expected: str) -> None:
    f = network_map(num_classes=3)
    f.trained = replace(f.trained, classes=PETS)
    with pytest.raises(FewstepError, match=re.escape(expected)):
        sample(f, 3, label=label)


def test_steps_and_a_sampler_exclude_each_other() -> None:
    f = network_map()
    with pytest.raises(FewstepError, match="unconditional"):
        sample(f, 1, label=0)
    with pytest.raises(FewstepError, match="sampler or steps"):
        sample(f, 1, Multistep(), steps=1)
    with pytest.raises(FewstepError, match="label or labels"):
        sample(network_map(num_classes=3), 1, label=0, labels=[0])
    counter = Counter(f)
    sample(f, 1, steps=3)
    assert counter.calls == 3
    with pytest.raises(FewstepError, match="at most 100000"):
        sample(f, 1, steps=2**62)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"n": 2.0}, "the number of samples must be a whole number, got 2.0"),
        ({"n": "2"}, "got '2'"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"seed": None}, "a seed must be a whole number, got None"),
        ({"seed": 0.5}, "a seed must be a whole number"),
        ({"batch": 1.5}, "the batch must be a whole number"),
        ({"indices": [0, 2]}, "numbered 0..1, and 2 is none"),
        ({"indices": [-1]}, "-1 is none"),
        ({"sampler": "heun"}, "the sampler is walk(solver=heun)"),
        ({"sampler": 2}, "given as steps"),
        ({"f": "runs/cd"}, "open_model"),
    ],
)
def test_arguments_of_another_type_are_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(FewstepError, match=re.escape(expected)):
        sample(**{"f": network_map(), "n": 2, **arguments})


def test_whole_numbers_of_every_type_are_taken() -> None:
    f = network_map()
    x = sample(f, 3, steps=2, seed=5)
    numbers = {"steps": torch.tensor(2), "seed": np.uint8(5), "batch": np.int64(2)}
    assert torch.equal(sample(f, np.int32(3), **numbers), x)  # type: ignore[arg-type]
    for indices in (torch.tensor([2, 0]), np.array([2, 0])):
        assert torch.equal(sample(f, 3, steps=2, seed=5, indices=indices), x[[2, 0]])


@pytest.mark.parametrize("what", ["sample", "variations", "likelihood"])
def test_a_model_in_training_goes_on_as_it_was(what: str) -> None:
    """And is evaluated without dropout, all of it that was in training and no more."""
    f = FlowMap(MLP((2, 3), width=16, blocks=2, dropout=0.5), EDM(T=20.0)).train()
    frozen = f.network.get_submodule("blocks.0").eval()
    modes = [m.training for m in f.modules()]
    seen: list[bool] = []
    f.network.register_forward_pre_hook(lambda m, _: seen.append(m.training))
    x = torch.zeros(2, *f.shape)
    if what == "likelihood":
        f.trained = DIFFUSION
        Likelihood(solver="heun", N=2).log_density(f, x, NoiseStreams(0, range(2), f.shape))
    elif what == "variations":
        f.trained = CONSISTENCY
        variation(f, x[0], strength=0.5)
    else:
        f.trained = DIFFUSION
        sample(f, 2, steps=2)
    assert seen
    assert not any(seen)
    assert not frozen.training
    assert [m.training for m in f.modules()] == modes
