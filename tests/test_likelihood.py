"""Log-densities against closed forms; bits per dimension; the command."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from fewstep.cli.likelihood import images_for
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.likelihood import Likelihood, with_divergence
from fewstep.networks import MLP, UNet
from fewstep.parameterization import EDM, PARAMETERIZATIONS, Parameterization
from fewstep.runs.run import Data
from fewstep.sampling import NoiseStreams
from fewstep.trained import DIFFUSION
from oracles import Exact, Gaussian, mixture_denoise, mixture_log_density

PROCESSES = ["edm", "vp", "sub_vp", "vp_discrete", "trigflow", "rectified_flow"]


class Mixture:
    """The two-component mixture of the oracles, in one dimension."""

    def __init__(self, p: Parameterization) -> None:
        self.p = p

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return mixture_denoise(x, t, self.p)


def streams(f: FlowMap, n: int) -> NoiseStreams:
    return NoiseStreams(0, range(n), f.shape)


def end(p: Parameterization) -> Tensor:
    return torch.tensor(p.t_min, dtype=torch.float64)


@pytest.mark.parametrize("solver", ["rk45(rtol=1e-7, atol=1e-7)", "rk4", "heun"])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_log_density_of_a_gaussian(process: str, solver: str) -> None:
    p = PARAMETERIZATIONS[process]()
    law = Gaussian(p, m=0.0, v=0.25)
    f = Exact(law, "diffusion", dim=4)
    alpha, sigma = p.alpha(end(p)), p.sigma(end(p))
    x = 0.5 * torch.randn(20, 4, dtype=torch.float64)
    truth = Normal(0.0, (alpha**2 * law.v + sigma**2).sqrt()).log_prob(x).sum(1)
    got, evaluations = Likelihood(solver=solver, N=400).log_density(f, x, streams(f, 20))
    torch.testing.assert_close(got, truth, rtol=0, atol=4e-3)
    assert evaluations == {"rk4": 1600, "heun": 800}.get(solver, evaluations)


@pytest.mark.parametrize("process", ["edm", "vp", "sub_vp", "rectified_flow"])
def test_the_log_density_of_a_mixture(process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    f = Exact(Mixture(p), "diffusion", dim=1)  # type: ignore[arg-type]
    x = torch.linspace(-1.8, 1.8, 25, dtype=torch.float64)[:, None]
    truth = mixture_log_density(x, end(p).expand(25), p)
    got, _ = Likelihood(solver="rk45(rtol=1e-8, atol=1e-8)").log_density(f, x, streams(f, 25))
    torch.testing.assert_close(got, truth, rtol=0, atol=0.02)


def test_the_density_integrates_to_one() -> None:
    p = EDM(T=80.0)
    f = Exact(Mixture(p), "diffusion", dim=1)  # type: ignore[arg-type]
    x = torch.linspace(-2.5, 2.5, 401, dtype=torch.float64)[:, None]
    log_p, _ = Likelihood(solver="rk45(rtol=1e-7, atol=1e-7)").log_density(f, x, streams(f, 401))
    assert float(torch.trapezoid(log_p.exp(), x[:, 0])) == pytest.approx(1, abs=1e-3)


def test_the_divergence_of_a_known_field() -> None:
    """``v_i = x_i^3 + sum_j A_ij x_j`` has ``div v = 3 |x|^2 + tr A``."""
    A, x = torch.randn(5, 5).double(), torch.randn(7, 5).double()
    truth = 3 * x.square().sum(1) + A.trace()

    def v(x: Tensor, t: Tensor) -> Tensor:
        return x**3 + x @ A.T

    t = torch.ones(7)
    value, exact = with_divergence(v, x, t)
    torch.testing.assert_close(value, v(x, t))
    torch.testing.assert_close(exact, truth)
    signs = [torch.randn_like(x).sign() for _ in range(4000)]
    _, estimate = with_divergence(v, x, t, signs)
    torch.testing.assert_close(estimate, truth, rtol=0, atol=0.3)


def test_random_directions_are_exact_for_independent_coordinates() -> None:
    """With random signs ``z . J z`` is the trace itself where J is diagonal."""
    law = Gaussian(EDM(), m=0.0)
    f = Exact(law, "diffusion", dim=100)
    x = torch.randn(5, 100, dtype=torch.float64)
    estimate, _ = Likelihood(probes=1).log_density(f, x, streams(f, 5))
    exact, _ = Likelihood(probes=0).log_density(f, x, streams(f, 5))
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-3)
    assert (Likelihood().directions(f), Likelihood(probes=0).directions(f)) == (1, 0)
    assert Likelihood().directions(Exact(law, "diffusion", dim=64)) == 0


def flat_model() -> Exact:
    """An exact model of ``N(0, 1/3)``, with the mean and variance of uniform noise in [-1, 1]."""
    return Exact(Gaussian(EDM(), m=0.0, v=1 / 3), "diffusion", dim=6)


def test_bits_per_dimension_of_a_gaussian_model() -> None:
    """Against the discrete probabilities: each bin's mass under the normal distribution."""
    f = flat_model()
    images = torch.randint(0, 256, (300, 6), dtype=torch.uint8)
    got, _ = Likelihood(solver="rk45(rtol=1e-4, atol=1e-4)").bits_per_dim(f, images)
    law = Normal(0.0, math.sqrt(1 / 3 + 0.002**2))
    edges = [(images.double() + half) / 127.5 - 1 for half in (-0.5, 0.5)]
    truth = -(law.cdf(edges[1]) - law.cdf(edges[0])).log2().mean(1)
    torch.testing.assert_close(got, truth, rtol=0, atol=0.01)
    assert float(got.mean()) == pytest.approx(8.2, abs=0.15)  # 8 + the cost of not being uniform


def test_bits_depend_on_seed_and_index_alone() -> None:
    F = MLP((1, 8, 8), width=16, blocks=1)
    f = FlowMap(F, EDM(T=5.0), info={"kind": "diffusion"})
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    method = Likelihood(probes=1, solver="rk4", N=6)
    whole, _ = method.bits_per_dim(f, images, seed=3)
    part, _ = method.bits_per_dim(f, images[2:4], indices=[2, 3], seed=3)
    torch.testing.assert_close(part, whole[2:4], rtol=0, atol=1e-4)
    other, _ = method.bits_per_dim(f, images, seed=4)
    assert float((other - whole).abs().max()) > 1e-4


def test_a_convolutional_network_has_a_likelihood() -> None:
    F = UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,))
    f = FlowMap(F, EDM(T=5.0), info={"kind": "diffusion"})
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        estimate, evaluations = Likelihood(probes=1, solver="rk4", N=3).bits_per_dim(f, images)
    assert estimate.shape == (2,)
    assert estimate.isfinite().all()
    assert evaluations == 12


def test_classes_are_read_where_the_model_has_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures, floats = rng.integers(0, 256, (9, 4, 4), np.uint8), rng.random((9, 2))
    kind = np.array(["a", "b", "c"] * 3)
    np.savez(tmp_path / "t.npz", other=pictures, pictures=pictures, labels=floats, kind=kind)
    how = Data(data=str(tmp_path / "t.npz"), image_column="pictures")
    model = tmp_path / "model.safetensors"
    for n in (0, 3):
        network = MLP((1, 4, 4), num_classes=n, width=4, blocks=1)
        trained = replace(DIFFUSION, classes=("c", "b", "a")[:n])
        f = FlowMap(network, EDM(), trained=trained)
        if n:
            with pytest.raises(FewstepError, match="labels"):
                images_for(f, model, how, "train")
            how = replace(how, label_column="kind")
        found = images_for(f, model, how, "train")
        assert found.shape == (1, 4, 4)
        assert (found.labels is None) == (n == 0)
    assert found.labels is not None
    assert found.labels.tolist() == [2, 1, 0] * 3


def test_mistakes_are_named() -> None:
    f = flat_model()
    images = torch.zeros(2, 6, dtype=torch.uint8)
    with pytest.raises(FewstepError, match="8-bit images"):
        Likelihood().bits_per_dim(f, images.float())
    with pytest.raises(FewstepError, match=r"\[B, 6\]"):
        Likelihood().bits_per_dim(f, images[:, :5])
    with pytest.raises(FewstepError, match="consistency"):
        Likelihood().bits_per_dim(Exact(Gaussian(EDM()), "consistency", dim=6), images)
    with pytest.raises(FewstepError, match="not pc"):
        Likelihood(solver="pc")
    with pytest.raises(FewstepError, match="probes"):
        Likelihood(probes=-1)
    conditional = FlowMap(MLP((6,), num_classes=3, width=4), EDM(), info={"kind": "diffusion"})
    with pytest.raises(FewstepError, match="each image's class"):
        Likelihood().bits_per_dim(conditional, images)
