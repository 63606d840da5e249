"""The process and the coefficients against closed forms, for every parameterization."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import (
    EDM,
    PARAMETERIZATIONS,
    PREDICTIONS,
    VE,
    VP,
    CosineVP,
    DiscreteVP,
    Parameterization,
    RectifiedFlow,
    SimpleEDM,
    SubVP,
    TrigFlow,
    convert,
    from_config,
    match,
)
from oracles import Exact, Gaussian, mixture_denoise, mixture_log_density

ALL = [PARAMETERIZATIONS[name]() for name in PARAMETERIZATIONS]
each = pytest.mark.parametrize("p", ALL, ids=lambda p: type(p).__name__)


def times(p: Parameterization, n: int = 7) -> torch.Tensor:
    """Times strictly inside (0, T), none of them on the grid of a discrete process."""
    return torch.linspace(max(p.eps, 0.0203), 0.8993 * p.T, n, dtype=torch.float64)


@each
def test_the_map_is_the_identity_where_the_times_agree(p: Parameterization) -> None:
    t = times(p)
    torch.testing.assert_close(p.c_skip(t, t), torch.ones_like(t))
    torch.testing.assert_close(p.c_out(t, t), torch.zeros_like(t))


@each
def test_derivatives_of_alpha_and_sigma(p: Parameterization) -> None:
    for value, derivative in ((p.alpha, p.alpha_dot), (p.sigma, p.sigma_dot)):
        t = times(p).requires_grad_()
        total = value(t).sum()
        by_autograd = (
            torch.autograd.grad(total, t)[0] if total.requires_grad else torch.zeros_like(t)
        )
        torch.testing.assert_close(derivative(t.detach()), by_autograd)


@each
def test_score_from_the_denoiser_is_the_gradient_of_the_log_density(p: Parameterization) -> None:
    t = times(p)
    x = torch.linspace(-2, 2, len(t), dtype=torch.float64)[:, None].requires_grad_()
    (truth,) = torch.autograd.grad(mixture_log_density(x, t, p).sum(), x)
    x = x.detach()
    torch.testing.assert_close(p.score(x, mixture_denoise(x, t, p), t), truth)


@each
def test_velocity_is_the_derivative_of_the_exact_flow(p: Parameterization) -> None:
    truth, t = Gaussian(p), times(p)
    x = torch.randn(len(t), 2, dtype=torch.float64)
    h = 1e-6 * p.T
    difference = (truth.flow(x, t, t + h) - truth.flow(x, t, t - h)) / (2 * h)
    velocity = p.velocity(x, truth.denoise(x, t), t)
    torch.testing.assert_close(velocity, difference, rtol=1e-5, atol=1e-6)


@each
def test_renoising_keeps_the_marginal(p: Parameterization) -> None:
    """Noise from 0 to s and on to t has the moments of noise from 0 to t."""
    s, t = times(p)[2], times(p)[5]
    x = torch.full((200_000, 1), 0.7, dtype=torch.float64)
    z = torch.randn(2, *x.shape, dtype=torch.float64)
    y = p.renoise(p.diffuse(x, s, z[0]), s, t, z[1])
    torch.testing.assert_close(y.mean(), 0.7 * p.alpha(t), rtol=0, atol=4 * float(p.sigma(t)) / 447)
    torch.testing.assert_close(y.std(), p.sigma(t), rtol=0.01, atol=0)


@given(st.floats(0.002, 80), st.floats(0.002, 80), st.floats(0.1, 3))
def test_edm_shifts_its_own_coefficients(t: float, s: float, sigma_data: float) -> None:
    p, d = EDM(sigma_data=sigma_data), sigma_data
    t_, s_ = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    assert float(p.c_skip(t_, s_)) == pytest.approx(d**2 / ((t - s) ** 2 + d**2))
    assert float(p.c_out(t_, s_)) == pytest.approx(d * (t - s) / (t**2 + d**2) ** 0.5)
    assert float(p.c_in(t_)) == pytest.approx(1 / (t**2 + d**2) ** 0.5)
    zero = torch.zeros_like(t_)  # s = 0: EDM's own (Karras et al. 2022, Table 1)
    assert float(p.c_skip(t_, zero)) == pytest.approx(d**2 / (t**2 + d**2))
    assert float(p.c_out(t_, zero)) == pytest.approx(t * d / (t**2 + d**2) ** 0.5)


def test_simple_boundary_condition() -> None:
    p = SimpleEDM()
    t, s = torch.tensor([0.002, 0.5, 80.0]), torch.tensor(0.002)
    assert p.c_skip(t, s).tolist() == [1, 0, 0]
    assert p.c_out(t, s).tolist() == [0, 1, 1]


def test_skip_coefficients_match_the_denoisers_target_variance() -> None:
    """c_out makes the network's target have unit variance: Karras et al. 2022, Appendix B.6."""
    p = EDM(sigma_data=0.7)
    x = 0.7 * torch.randn(400_000, dtype=torch.float64)
    for t in (0.05, 0.7, 5.0):
        t_ = torch.tensor(t, dtype=torch.float64)
        zero = torch.zeros_like(t_)
        x_t = p.diffuse(x, t_, torch.randn_like(x))
        target = (x - p.c_skip(t_, zero) * x_t) / p.c_out(t_, zero)
        assert float(target.std()) == pytest.approx(1, abs=0.01)
        assert float((p.c_in(t_) * x_t).std()) == pytest.approx(1, abs=0.01)


@each
def test_config_round_trip(p: Parameterization) -> None:
    assert from_config(p.config) == p


@pytest.mark.parametrize("wrong", [{"eps": -1.0}, {"eps": 90.0}, {"sigma_data": 0.0}])
def test_wrong_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(FewstepError, match=next(iter(wrong))):
        EDM(**wrong)


@each
def test_log_snr_and_its_inverse(p: Parameterization) -> None:
    t = torch.cat([times(p), torch.tensor([p.t_min, 1.3 * p.t_min, 0.99 * p.T])])
    log_snr = p.log_snr(t)
    assert bool((log_snr[:-3].diff() < 0).all())
    torch.testing.assert_close(p.time_of_log_snr(log_snr), t, rtol=1e-9, atol=1e-12)


@each
def test_forward_sde_has_the_marginals(p: Parameterization) -> None:
    """``d alpha/dt = drift alpha`` and ``d sigma^2/dt = 2 drift sigma^2 + g^2``."""
    t = times(p)
    drift, g = p.drift(t), p.diffusion(t)
    torch.testing.assert_close(p.alpha_dot(t), drift * p.alpha(t))
    variance_dot = 2 * p.sigma(t) * p.sigma_dot(t)
    torch.testing.assert_close(variance_dot, 2 * drift * p.sigma(t) ** 2 + g**2)


@each
def test_reverse_sde_and_pf_ode_agree(p: Parameterization) -> None:
    """Half the reverse SDE's score term away is the PF-ODE: Song et al. 2021, Eq. 13."""
    t, x = times(p), torch.randn(7, 2, dtype=torch.float64)
    D = Gaussian(p).denoise(x, t)
    half = (p.diffusion(t) ** 2)[:, None] * p.score(x, D, t) / 2
    torch.testing.assert_close(p.reverse_drift(x, D, t) + half, p.velocity(x, D, t))


@pytest.mark.parametrize("p", [VP(), SubVP()], ids=lambda p: type(p).__name__)
def test_vp_has_the_papers_betas(p: VP) -> None:
    """Score SDE, Eqs. 11 and 12: drift ``-beta/2``; ``g^2 = beta``, for sub-VP less."""
    t = times(p)
    beta = 0.1 + t * 19.9
    less = 1 if type(p) is VP else 1 - (-2 * (0.1 * t + 19.9 * t**2 / 2)).exp()
    torch.testing.assert_close(p.drift(t), -beta / 2)
    torch.testing.assert_close(p.diffusion(t) ** 2, beta * less)


def test_ddpm_has_the_papers_chain() -> None:
    """``alpha-bar_n`` is the product of the ``1 - beta_i``, and ``c_noise`` the index."""
    p = DiscreteVP()
    product, n = 1.0, 0
    for n in range(1, 701):
        product *= 1 - (1e-4 + (n - 1) / 999 * (0.02 - 1e-4))
    t = torch.tensor(n / 1000, dtype=torch.float64)
    assert float(p.alpha(t)) ** 2 == pytest.approx(product, rel=1e-12)
    assert float(p.c_noise(t)) == pytest.approx(699)


def test_discrete_cosine_follows_the_continuous() -> None:
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(
        DiscreteVP(betas="cosine").alpha(t), CosineVP().alpha(t), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("N", [2, 3, 1000])
def test_the_chain_between_its_steps(betas: str, N: int) -> None:
    """A falling curve through the steps, with its derivative and its inverse."""
    p = DiscreteVP(N=N, betas=betas)
    t = torch.linspace(0, 1, 7 * N + 1, dtype=torch.float64)
    value, slope = torch.func.jvp(p.process.log_alpha, (t,), (torch.ones_like(t),))
    assert bool((value.diff() < 0).all())
    torch.testing.assert_close(p.process.log_alpha_dot(t), slope)
    torch.testing.assert_close(p.process.time_of_log_alpha(value), t)


def test_the_tables_of_a_chain_are_copied_once_and_outlive_where_they_were_made() -> None:
    """Not inside a transform, whose tensors end with it; and a pickle has no copies."""
    p, t = DiscreteVP(), torch.rand(5)
    by_hand = (1 - torch.linspace(1e-4, 0.02, 1000).double()).log().cumsum(0)[499] / 2
    torch.func.jvp(p.alpha, (t,), (torch.ones_like(t),))
    with torch.inference_mode():
        p.alpha(t)
    torch.testing.assert_close(p.alpha(torch.tensor(0.5)).double(), by_hand.exp())
    tables = p.process._cubics
    assert tables.of(t.dtype, t.device) is tables.of(t.dtype, t.device)
    assert not tables.of(t.dtype, t.device).is_inference()
    assert not pickle.loads(pickle.dumps(p)).process._cubics._copies
    again = copy.deepcopy(p)
    assert (again, hash(again)) == (p, hash(p))
    assert torch.equal(again.alpha(t), p.alpha(t))


def test_linear_betas_leave_the_straight_line_by_next_to_nothing() -> None:
    """Lu et al. 2022, Appendix D.2, interpolate ln alpha linearly between DDPM's steps."""
    p, t = DiscreteVP(), torch.linspace(0, 1, 7001, dtype=torch.float64)
    knots = np.cumsum([0, *np.log1p(-np.linspace(1e-4, 0.02, 1000)) / 2])
    line = np.interp(t.numpy() * 1000, range(1001), knots)
    assert np.abs(p.process.log_alpha(t).numpy() - line).max() < 1.3e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_map_to_its_own_time_has_no_network_in_it(dtype: torch.dtype) -> None:
    for p in (VP(), SubVP(), CosineVP(), DiscreteVP(), TrigFlow(), RectifiedFlow(), EDM()):
        t = torch.full((17,), p.t_min, dtype=dtype)  # 17: vectorised, and a rest that is not
        assert bool((p.c_out(t, t) == 0).all())
        assert bool((p.c_skip(t, t) == 1).all())


def test_ddpm_tends_to_the_continuous_process() -> None:
    """N steps of betas ``beta(n/N)/N``: Score SDE, Appendix B."""
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    gaps = [
        float((DiscreteVP(N=N, beta_1=0.1 / N, beta_N=20 / N).alpha(t) - VP().alpha(t)).abs().max())
        for N in (200, 400, 800)
    ]
    assert gaps[2] < gaps[1] < gaps[0] < 0.05
    assert gaps[0] / gaps[2] == pytest.approx(4, rel=0.1)


@each
@pytest.mark.parametrize(("source", "target"), list(itertools.product(PREDICTIONS, repeat=2)))
def test_predictions_convert(p: Parameterization, source: str, target: str) -> None:
    """Each type is computed from its definition with the true ``x_0`` and ``epsilon``."""
    t = times(p)
    x_0, epsilon = torch.randn(2, len(t), 3, dtype=torch.float64)
    a, s, a_dot, s_dot = (g(t)[:, None] for g in (p.alpha, p.sigma, p.alpha_dot, p.sigma_dot))
    truth = {
        "epsilon": epsilon,
        "x0": x_0,
        "v": a * epsilon - s * x_0,
        "score": -epsilon / s,
        "velocity": a_dot * x_0 + s_dot * epsilon,
    }
    assert truth.keys() == set(PREDICTIONS)
    y = convert(truth[source], a * x_0 + s * epsilon, t, p, source=source, target=target)
    torch.testing.assert_close(y, truth[target], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("prediction", list(PREDICTIONS))
@pytest.mark.parametrize("make", [VP, SubVP, CosineVP, DiscreteVP])
def test_a_network_of_any_prediction_denoises(make: type[VP], prediction: str) -> None:
    """The coefficients at ``s = 0`` turn the true prediction into the true ``x_0``."""
    p = make(prediction=prediction)
    t = times(p)
    x_0, epsilon = torch.randn(2, len(t), 1, dtype=torch.float64)
    x = p.diffuse(x_0, t, epsilon)
    F = convert(x_0, x, t, p, source="x0", target=prediction)
    zero = torch.zeros_like(t)
    D = p.c_skip(t, zero)[:, None] * x + p.c_out(t, zero)[:, None] * F
    torch.testing.assert_close(D, x_0)


PROCESSES = [EDM(), VE(), VP(), SubVP(), CosineVP(), DiscreteVP(), TrigFlow(), RectifiedFlow()]


@pytest.mark.parametrize("source", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("target", PROCESSES, ids=lambda p: type(p).__name__)
def test_a_denoiser_of_one_process_is_usable_in_another(
    source: Parameterization, target: Parameterization
) -> None:
    """Whatever the network, the matched model is the source's at the matched point; where the
    source's is the true denoiser of a Gaussian, that is the true one of the target.
    """
    f = FlowMap(MLP((3,), width=8, blocks=1), source).double().eval()
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    g = f.in_process(target)
    t = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64) * g.p.T
    u = source.time_of_log_snr(target.log_snr(t))
    x = torch.randn(3, 3, dtype=torch.float64)
    k = (source.alpha(u) / target.alpha(t))[:, None]
    torch.testing.assert_close(g.D(x, t), f.D(k * x, u), rtol=1e-6, atol=1e-8)
    truth = Gaussian(target).denoise(x, t)
    torch.testing.assert_close(Gaussian(source).denoise(k * x, u), truth, rtol=1e-6, atol=1e-8)


def test_a_model_there_and_back_is_itself() -> None:
    f = FlowMap(MLP((3,), width=8, blocks=1), EDM())
    assert f.in_process(VP()).in_process(EDM()).p == f.p
    assert f.in_process(VP()).F is f.F


def test_matching_keeps_a_consistency_functions_end() -> None:
    """The exact flow of one process is that of the other, from every time to the matched end."""
    source, target = TrigFlow(eps=0.01), RectifiedFlow()
    p = match(source, target)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x = torch.randn(3, 2, dtype=torch.float64)
    end = torch.full_like(t, p.eps)
    k, k_end = p.k(t)[:, None], p.k(end)[:, None]
    there = Exact(Gaussian(source), "consistency")(k * x, p.u(t), p.u(end)) / k_end
    torch.testing.assert_close(there, Gaussian(target).flow(x, t, end))
    torch.testing.assert_close(p.u(end), torch.full_like(t, 0.01))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VP(beta_min=3, beta_max=1),
        lambda: CosineVP(T=1.0),
        lambda: DiscreteVP(betas="square"),
        lambda: DiscreteVP(N=1),
        lambda: VP(prediction="noise"),
        lambda: PARAMETERIZATIONS.build("matched(source=3)"),
    ],
)
def test_wrong_processes_are_refused(make: Callable[[], Parameterization]) -> None:
    with pytest.raises(FewstepError):
        make()
