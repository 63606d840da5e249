"""Jumps of a map: one formula from multistep sampling to the flow, in every process."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from fewstep.errors import FewstepError
from fewstep.parameterization import EDM, PARAMETERIZATIONS, RectifiedFlow, TrigFlow
from fewstep.sampling import Jumps, Multistep, NoiseStreams, default_taus, sample, sampler_for
from fewstep.sampling.jumps import landing
from fewstep.schedules import karras_grid
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, Trained
from oracles import Exact, Gaussian, network_map

GAMMAS = [0, 0.3, 0.7, 1]


def flow_map(p: Any, dim: int = 20, trained: Trained = FLOW_MAP) -> Exact:
    """The exact map between any two times, for data N(0.3, 0.25)."""
    f = Exact(Gaussian(p, m=0.3, v=0.25), "consistency", dim)
    f.trained = trained
    return f


def times_of(p: Any, steps: int) -> tuple[float, ...]:
    """Times of falling noise, in any process."""
    return default_taus(flow_map(p), steps)


def test_all_new_noise_is_multistep_sampling_to_the_bit() -> None:
    f, taus = network_map(), (5.0, 0.5)
    got = Jumps(gamma=1.0, times=taus)(f, NoiseStreams(3, range(4), f.shape))
    noise = NoiseStreams(3, range(4), f.shape)
    x = f(f.p.prior(noise.normal()), f.p.T)
    eps = f.time(f.p.eps, x)
    for tau in taus:
        t = f.time(tau, x)
        x = f(f.p.renoise(x, eps, t, noise.normal()), t)
    assert torch.equal(got, x)
    assert Multistep(taus) == Jumps(times=taus)


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_without_new_noise_the_flow_is_the_same_in_any_number_of_jumps(name: str) -> None:
    p = PARAMETERIZATIONS[name]()
    f = flow_map(p, 3)
    ends = []
    for steps in (1, 2, 5):
        sampler = Jumps(0.0, times=times_of(p, steps))
        ends.append(sampler(f, NoiseStreams(0, range(8), f.shape)))
        assert sampler.nfe == steps
    for x in ends[1:]:
        torch.testing.assert_close(x, ends[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_the_samples_are_of_the_data_for_every_share_of_new_noise(name: str, gamma: float) -> None:
    p = PARAMETERIZATIONS[name]()
    f = flow_map(p)
    x = Jumps(gamma, times=times_of(p, 4))(f, NoiseStreams(0, range(2000), f.shape))
    assert float(x.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x.var()) == pytest.approx(0.25, abs=0.015)


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_the_noise_is_new_by_its_share_of_the_variance(name: str) -> None:
    """The kept part of the noise at ``t`` has ``1 - gamma^2`` of its variance."""
    p = PARAMETERIZATIONS[name]()
    t = times_of(p, 3)[0]
    for gamma in (0.2, 0.6, 0.9):
        s = landing(p, t, gamma)
        now, below = torch.tensor([t, s], dtype=torch.float64)[:, None]
        kept = p.alpha(now) / p.alpha(below) * p.sigma(below)
        assert float((kept / p.sigma(now)) ** 2) == pytest.approx(1 - gamma**2, abs=2e-3)
    assert landing(p, t, 0) == t
    assert landing(p, t, 1) == p.eps


def test_in_the_time_of_edm_it_is_gamma_sampling() -> None:
    f, gamma, t = flow_map(EDM(T=20.0), 3), 0.6, 2.0
    got = Jumps(gamma, times=(t,))(f, NoiseStreams(1, range(4), f.shape))
    noise = NoiseStreams(1, range(4), f.shape)
    x = f(20 * noise.normal(dtype=torch.float64), 20.0, math.sqrt(1 - gamma**2) * t)
    x = f(x + gamma * t * noise.normal(dtype=torch.float64), t)
    torch.testing.assert_close(got, x, rtol=1e-6, atol=1e-6)


def test_a_landing_never_lies_below_eps() -> None:
    assert landing(EDM(eps=0.5), 0.6, 0.9) == 0.5


def test_default_times_suit_the_process() -> None:
    """Even ones where the flow is straight, and Karras' where time is the noise level."""
    of = {p: partial(default_taus, flow_map(p, 3, CONSISTENCY)) for p in (RectifiedFlow(), EDM())}
    assert of[RectifiedFlow()](4) == pytest.approx((0.75, 0.5, 0.25))
    karras = karras_grid(5, EDM(), dtype=torch.float64).flip(0)[1:-1]
    assert of[EDM()](4) == pytest.approx(karras.tolist(), rel=1e-13)
    assert default_taus(flow_map(TrigFlow(), 3, CONSISTENCY), 2)[0] == pytest.approx(
        0.785, abs=2e-3
    )


@pytest.mark.parametrize("trained", [CONSISTENCY, FLOW_MAP])
@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_default_times_are_of_noise_that_decides_an_image(name: str, trained: Trained) -> None:
    p = PARAMETERIZATIONS[name]()
    f = flow_map(p, 3, trained)
    assert default_taus(f, 1) == ()
    (tau,) = default_taus(f, 2)
    assert 0.1 < float(p.noise_level(torch.tensor([tau], dtype=torch.float64))) < 4
    times = [p.T, *default_taus(f, 6), p.eps]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 7


@pytest.mark.parametrize(
    ("trained", "spec", "expected"),
    [
        (CONSISTENCY, "jumps(gamma=0, steps=2)", "take gamma=1"),
        (CONSISTENCY, "jumps(gamma=0.99, times=(1.0,))", "take gamma=1"),
        (DIFFUSION, "jumps(steps=2)", "diffusion model"),
        (FLOW_MAP, "jumps(gamma=1.5)", "gamma from 0 to 1"),
        (FLOW_MAP, "jumps(gamma=-0.1)", "gamma from 0 to 1"),
        (FLOW_MAP, "jumps(steps=0)", "at least 1 step"),
        (FLOW_MAP, "jumps(steps=2, times=(1.0, 0.5))", "1 time points, got 2"),
        (FLOW_MAP, "jumps(times=(0.5, 1.0))", "must decrease"),
        (FLOW_MAP, "jumps(times=(1000.0,))", "must decrease"),
        (FLOW_MAP, "jumps(times=1)", "times of the sampler 'jumps' must be a tuple"),
        (FLOW_MAP, "jumps(tau=1)", "'tau'"),
    ],
)
def test_jumps_that_a_model_does_not_admit_are_refused(
    trained: Trained, spec: str, expected: str
) -> None:
    with pytest.raises(FewstepError, match=expected):
        sample(flow_map(EDM(), 3, trained), 1, spec)


def test_one_jump_is_the_same_for_every_gamma() -> None:
    f = flow_map(EDM(), 3, CONSISTENCY)
    assert torch.equal(sample(f, 2, "jumps(gamma=0)"), sample(f, 2, "jumps"))


def test_the_own_sampler_of_a_flow_map_adds_no_noise() -> None:
    f = flow_map(RectifiedFlow())
    assert sampler_for(f, 2) == Jumps(0.0, times=(0.5,))
    assert sampler_for(f, taus=(0.7, 0.2)).spec == "jumps(gamma=0.0, times=(0.7, 0.2))"
    assert (
        sampler_for(f, sampler="jumps(gamma=0.5)", nfe=2).spec == "jumps(gamma=0.5, times=(0.5,))"
    )
