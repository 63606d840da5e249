"""The consistency losses in continuous time, against closed forms and limits of differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, L1, L2, PseudoHuber
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, UNet
from fewstep.objectives.continuous import ContinuousCD, ContinuousConsistency, ContinuousCT
from fewstep.parameterization import EDM, SimpleEDM, expand
from fewstep.schedules import (
    LogNormalIndex,
    UniformIndex,
    karras_grid,
    karras_spacing,
    karras_time,
)
from fewstep.theory.mixture import ExactConsistency, ExactDenoiser, Mixture
from oracles import Exact, Gaussian

P = EDM(T=5.0)


class Decay(FlowMap):
    """``f(x, t) = exp(-a (t - eps)) x``: wrong, with one parameter, and with known moments."""

    def __init__(self, a: float = 0.4) -> None:
        super().__init__(MLP((3,), width=4, blocks=1), P, info={"kind": "consistency"})
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x: Tensor, t: Any, s: Any = None, condition: Condition = NONE) -> Tensor:
        return torch.exp(-self.a * (expand(self.time(t, x), x) - P.eps)) * x


def over_the_grid(integrand: Any) -> float:
    """``E integrand(t, tau')`` with ``t = tau(u)``, ``u ~ U[0, 1]``."""

    def at(u: float) -> float:
        t = karras_time(torch.tensor(u, dtype=torch.float64), P)
        return integrand(float(t), float(karras_spacing(t, P)))

    return quad(at, 0, 1, epsabs=1e-12)[0]


def moments(truth: Gaussian, a: float, t: float) -> tuple[float, float, float]:
    """``E g^2``, ``E x g``, each without its exponential, and that: g along the PF-ODE."""
    V = truth.v + t**2
    rate = -a + t / V  # g / exp = -a m + rate (x - m)
    return (
        (a * truth.m) ** 2 + rate**2 * V,
        -a * truth.m**2 + rate * V,
        math.exp(-2 * a * (t - P.eps)),
    )


# Grid and distances in the limit


def test_the_grid_is_the_time_at_equal_steps() -> None:
    u = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(karras_time(u, P).float(), karras_grid(33, P))
    finite = (karras_time(u + 1e-6, P) - karras_time(u - 1e-6, P)) / 2e-6
    torch.testing.assert_close(karras_spacing(karras_time(u, P), P), finite, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("times", [UniformIndex(), LogNormalIndex(P_mean=-0.6, P_std=1.4)])
def test_quantiles_are_the_limit_of_the_grid(times: Any) -> None:
    """Below ``quantile(u)`` lies the mass ``u`` of a fine grid's probabilities."""
    t = karras_grid(20_001, P).double()
    mass = times.probabilities(t, P).double().cumsum(0)
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    below = [float((mass / mass[-1])[int((t < q).sum()) - 1]) for q in times.quantile(u, P)]
    assert below == pytest.approx(u.tolist(), abs=1e-3)


@pytest.mark.parametrize("distance", [L1(), L2(), PseudoHuber(c=0.5), PseudoHuber()])
def test_nearby_is_the_leading_term_of_a_distance(distance: Any) -> None:
    y, v = torch.randn(2, 4, 5, dtype=torch.float64)
    h = 1e-5 if distance.degree == 2 else 1e-3
    torch.testing.assert_close(
        distance(y + h * v, y) / h**distance.degree, distance.nearby(y, v), rtol=1e-3, atol=1e-9
    )


def test_nearby_of_a_distance_with_a_varying_hessian() -> None:
    """``d = (sinh a - sinh b)^2`` has ``H = 2 cosh^2 y``, and is differentiable in ``y``."""

    class Curved(L2):
        nearby = DISTANCES["pseudo_huber"].nearby  # the general one

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return super().forward(a.sinh(), b.sinh())

    y, v = torch.randn(2, 6, 1, dtype=torch.float64)
    y.requires_grad_()
    found = Curved().nearby(y, v)
    torch.testing.assert_close(found, (y.cosh() * v).square()[:, 0])
    (slope,) = torch.autograd.grad(found.sum(), y)
    torch.testing.assert_close(slope, 2 * y.cosh() * y.sinh() * v**2)


# The tangent


def mlp(dropout: float = 0.0) -> FlowMap:
    return FlowMap(MLP((3,), num_classes=4, width=16, blocks=2, dropout=dropout), P)


def unet(dropout: float = 0.0) -> FlowMap:
    return FlowMap(UNet((1, 8, 8), num_classes=4, channels=16, dropout=dropout), P)


@pytest.mark.parametrize("build", [mlp, unet])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_tangent_is_the_limit_of_differences(build: Any, dropout: float) -> None:
    f = build(dropout).double().train()
    for parameter in f.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, v = torch.randn(2, 6, *f.shape, dtype=torch.float64)
    t = torch.linspace(0.1, 4, 6, dtype=torch.float64)
    label = torch.arange(6) % 4

    def at(h: float) -> Tensor:
        torch.manual_seed(3)
        return f(x + h * v, t + h, condition=Condition(label))

    torch.manual_seed(3)
    value, g = ContinuousCT(f, 1).tangent(x, t, v, Condition(label))
    torch.testing.assert_close(value, at(0.0))
    h = 1e-5
    torch.testing.assert_close(g, (at(h) - at(-h)) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_a_unet_trains_through_the_tangent(stop_gradient: bool) -> None:
    f = unet(dropout=0.1)
    o = ContinuousCD(f, 1, teacher=f.frozen_copy(), stop_gradient=stop_gradient)
    o(torch.randn(4, 1, 8, 8), 0, Condition(torch.arange(4))).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in f.parameters())
    assert all(p.grad is None for p in o.teacher.parameters())


# Values and gradients with a closed form


@pytest.mark.parametrize("distance", ["l2", "pseudo_huber(c=0.5)"])
def test_the_loss_of_a_known_map(distance: str) -> None:
    """The mean over random draws is the integral of Theorem 3."""
    truth, f = Gaussian(P), Decay()
    o = ContinuousCD(
        f, 1, teacher=Exact(truth, "diffusion"), stop_gradient=False, distance=distance
    )
    losses = o(truth.sample(400_000, 3), 0).detach()

    def integrand(t: float, spacing: float) -> float:
        square, _, exp = moments(truth, 0.4, t)
        return spacing**2 * square * exp

    H_half = 1.0 if distance == "l2" else 3 / (2 * 0.5)  # mean of 3 squares; sum / (2 c)
    error = float(losses.std()) / math.sqrt(len(losses))
    assert float(losses.mean()) == pytest.approx(H_half * over_the_grid(integrand), abs=4 * error)
    assert error < 0.01 * float(losses.mean())


@pytest.mark.parametrize("name", ["cd", "ct"])
def test_the_stopped_gradient_of_a_known_map(name: str) -> None:
    """Theorems 5 and 6: distillation and training have one gradient, ``E tau' grad f^T H g``."""
    truth, f = Gaussian(P), Decay()
    o: ContinuousConsistency = ContinuousCT(f, 1)
    if name == "cd":
        o = ContinuousCD(f, 1, teacher=Exact(truth, "diffusion"))
    slopes = []
    for _ in range(100):
        (slope,) = torch.autograd.grad(o(truth.sample(4000, 3), 0).mean(), f.a)
        slopes.append(slope)

    def integrand(t: float, spacing: float) -> float:
        _, product, exp = moments(truth, 0.4, t)
        return -2 * spacing * (t - P.eps) * product * exp

    found = torch.stack(slopes)
    error = float(found.std()) / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(over_the_grid(integrand), abs=4 * error)
    assert error < 0.03 * abs(float(found.mean()))


@pytest.mark.parametrize("distance", ["l2", "l1", "pseudo_huber(c=0.5)"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_distillation_vanishes_at_the_truth_with_its_gradient(
    distance: str, stop_gradient: bool
) -> None:
    """Data are a mixture; the consistency function is known by its quantiles."""
    data = Mixture(P)
    f = ExactConsistency(data)
    o = ContinuousCD(
        f, 1, teacher=ExactDenoiser(data), stop_gradient=stop_gradient, distance=distance
    )
    t = karras_time(torch.rand(64, dtype=torch.float64), P)
    x_t = data.quantile(torch.linspace(0.01, 0.99, 64, dtype=torch.float64)[:, None], t)
    loss = o.loss(x_t, t, data.velocity(x_t, t))
    assert float(loss.detach().max()) < 1e-10
    if o.d.degree == 2:  # the kink of l1 has no gradient at zero
        (slope,) = torch.autograd.grad(loss.mean(), f.A)
        assert abs(float(slope)) < 1e-10
    with torch.no_grad():
        f.A.fill_(0.1)
    assert float(o.loss(x_t, t, data.velocity(x_t, t)).detach().mean()) > 1e-5


def test_the_inverse_spacing_takes_the_grid_out_of_the_loss() -> None:
    """The published code's gradient, of ``f . sg(g)`` summed over times without a factor."""
    f = Decay()
    o = ContinuousCT(f, 1, weighting="inverse_spacing")
    x, z = torch.randn(2, 32, 3, dtype=torch.float64)
    t = o.times.quantile(torch.rand(32, dtype=torch.float64), P)
    x_t, v = P.diffuse(x, t, z), z
    _, g = o.tangent(x_t, t, v)
    (expected,) = torch.autograd.grad(2 * (f(x_t, t) * g.detach()).mean(1).sum(), f.a)
    (found,) = torch.autograd.grad(o.loss(x_t, t, v).sum(), f.a)
    torch.testing.assert_close(found, expected)


def test_training_has_no_gradient_at_the_truth_on_average_alone() -> None:
    """The tangent along one image and one noise does not vanish, but its mean does."""
    truth = Gaussian(P)

    class Tilted(Exact):
        """``f* + A (t - eps) sin(x)``."""

        A = torch.zeros((), dtype=torch.float64, requires_grad=True)

        def forward(self, x: Tensor, t: Any, s: Any = None, condition: Condition = NONE) -> Tensor:
            exact = super().forward(x, t, s)
            return exact + self.A * expand(self.time(t, x) - P.eps, x) * x.sin()

    f = Tilted(truth, "consistency")
    o, slopes = ContinuousCT(f, 1), []
    for _ in range(100):
        losses = o(truth.sample(2000, 3), 0)
        slopes.append(torch.autograd.grad(losses.mean(), f.A)[0])
    assert float(losses.detach().mean()) > 0.1
    found = torch.stack(slopes)
    assert abs(float(found.mean())) < 4 * float(found.std()) / 10
    assert float(found.std()) > 0


class Shrink(FlowMap):
    """``((eps^2 + v) / (t^2 + v))^(a/2) x``, for data ``N(0, v I)``.

    At ``a = 2`` it is the denoiser, up to ``eps``, and at ``a = 1`` the consistency function.
    """

    def __init__(self, v: float) -> None:
        super().__init__(MLP((3,), width=4, blocks=1), P, info={"kind": "consistency"})
        self.v, self.a = v, nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor, t: Any, s: Any = None, condition: Condition = NONE) -> Tensor:
        ratio = (P.eps**2 + self.v) / (self.time(t, x) ** 2 + self.v)
        return expand(ratio, x) ** (self.a / 2) * x


@pytest.mark.parametrize(("name", "stop_gradient"), [("cd", True), ("cd", False), ("ct", True)])
def test_training_turns_the_denoiser_into_the_consistency_function(
    name: str, stop_gradient: bool
) -> None:
    truth = Gaussian(P, m=0.0, v=0.5)
    f = Shrink(truth.v)
    o: ContinuousConsistency = ContinuousCT(f, 1)
    if name == "cd":
        teacher = Exact(truth, "diffusion")
        o = ContinuousCD(f, 1, teacher=teacher, stop_gradient=stop_gradient)
    optimizer = torch.optim.Adam([f.a], lr=0.03)
    for k in range(200):
        o(truth.sample(512, 3), k).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(f.a.detach()) == pytest.approx(1.0, abs=0.03)


# A user's mistakes


def test_what_has_no_limit_is_refused() -> None:
    f = mlp()
    with pytest.raises(FewstepError, match="inverse_gap"):
        ContinuousCT(f, 1, weighting="inverse_gap")
    with pytest.raises(FewstepError, match="l1"):
        ContinuousCT(f, 1, distance="l1")
    simple = FlowMap(MLP((3,), width=4, blocks=1), SimpleEDM())
    with pytest.raises(FewstepError, match="edm_simple"):
        ContinuousCD(simple, 1, teacher=simple)
