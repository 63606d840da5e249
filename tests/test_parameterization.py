"""The process and the coefficients against closed forms, for every parameterization."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.errors import FewstepError
from fewstep.parameterization import (
    EDM,
    PARAMETERIZATIONS,
    Parameterization,
    SimpleEDM,
    from_config,
)
from oracles import Gaussian, mixture_denoise, mixture_log_density

ALL = [PARAMETERIZATIONS[name]() for name in PARAMETERIZATIONS]
each = pytest.mark.parametrize("p", ALL, ids=lambda p: type(p).__name__)


def times(p: Parameterization, n: int = 7) -> torch.Tensor:
    """Times strictly inside (0, T)."""
    return torch.linspace(max(p.eps, 0.02), 0.9 * p.T, n, dtype=torch.float64)


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
