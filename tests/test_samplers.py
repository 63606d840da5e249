"""Every solver of a diffusion model: order, distribution, cost and identities, on known data."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import (
    PARAMETERIZATIONS,
    VP,
    DiscreteVP,
    Parameterization,
    TrigFlow,
)
from fewstep.sampling import ODE, NoiseStreams, Walk, sample, sampler_for
from fewstep.schedules import TIME_GRIDS
from fewstep.solvers import PHI, SOLVERS, Denoiser, Integrator, rk45
from fewstep.solvers.exponential import DPMSolver
from oracles import Exact, Gaussian, mixture_denoise, slope

PROCESSES = [n for n in PARAMETERIZATIONS if n not in ("edm_simple", "matched")]
DETERMINISTIC = [
    *(n for n in SOLVERS if SOLVERS.build(n).convergence is not None and n not in ("rk45",)),
    *(f"deis(order={k})" for k in range(3)),
    *(f"deis(order={k}, staged=True)" for k in range(1, 4)),
]
STOCHASTIC = [
    "ddim(eta=0.5)",
    "ddim(eta=1)",
    "ancestral",
    "euler_maruyama",
    "pc(snr=0.05)",
    "churn",
]
EVERY = [*DETERMINISTIC, *STOCHASTIC]


def mixture(p: Parameterization) -> Denoiser:
    return Denoiser(p, lambda x, t: mixture_denoise(x, t, p))


def no_noise() -> Tensor:
    raise AssertionError("a deterministic solver drew noise")


def walked(solver: Integrator, f: Denoiser, x: Tensor, t: list[float]) -> Tensor:
    n = len(t) - 1
    spend = (solver.cost,) * n if solver.to_zero else solver.evaluations(n)
    return list(solver.walk(f, x, t, spend, no_noise))[-1]


def ends(p: Parameterization) -> tuple[float, float]:
    """Times of sigma/alpha = 3 and 0.2: where the mixture's flow bends."""
    lmb = torch.tensor([-math.log(3.0), -math.log(0.2)], dtype=torch.float64)
    start, end = p.time_of_log_snr(lmb).tolist()
    return start, end


def truth(p: Parameterization, x: Tensor, start: float, end: float) -> Tensor:
    """The PF-ODE by scipy's method of order 8 at 1e-12."""

    def v(t: float, x: np.ndarray) -> np.ndarray:
        return mixture(p).velocity(torch.from_numpy(x)[:, None], t)[:, 0].numpy()

    done = solve_ivp(v, (start, end), x[:, 0].numpy(), method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(done.y[:, -1])[:, None]


# Order of convergence


@pytest.mark.parametrize("process", ["edm", "vp", "sub_vp", "vp_cosine", "trigflow"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_convergence(name: str, process: str) -> None:
    """Slope of log error against log step on a mixture, within 0.25."""
    p, solver = PARAMETERIZATIONS[process](), SOLVERS.build(name)
    exact = truth(p, bent(p), *ends(p))
    counts = [32, 64, 128, 256]
    if name.startswith("deis"):  # its error is small before it is asymptotic
        counts = [256, 512, 1024]
    order = measured_order(solver, p, counts, exact)
    if name in ("deis", "deis(order=2)"):  # the start costs the order only in the end
        assert order > solver.convergence - 0.25
    else:
        assert order == pytest.approx(solver.convergence, abs=0.25)


def bent(p: Parameterization) -> Tensor:
    """Points at the start of `ends`, in double precision [8, 1]."""
    start = torch.tensor(ends(p)[0], dtype=torch.float64)
    return 3 * p.alpha(start) * torch.linspace(-1.5, 1.5, 8).double()[:, None]


def measured_order(
    solver: Integrator, p: Parameterization, counts: list[int], exact: Tensor
) -> float:
    """Slope of log error against log step on even grids between `ends`."""
    grids = [np.linspace(*ends(p), n + 1).tolist() for n in counts]
    errors = [float((walked(solver, mixture(p), bent(p), t) - exact).abs().max()) for t in grids]
    return slope([1 / n for n in counts], errors)


@pytest.mark.parametrize("name", ["deis", "deis(order=2)"])
def test_a_start_of_low_order_costs_deis_its_order(name: str) -> None:
    """On an ever finer grid the first step's error of h^2 is all that is left of VP's."""
    p = VP()
    exact = truth(p, bent(p), *ends(p))
    order = measured_order(SOLVERS.build(name), p, [512, 1024], exact)
    assert order == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize(("order", "nfe"), [(1, 4), (2, 9), (3, 10), (3, 20)])
def test_a_staged_start_spends_what_it_says(order: int, nfe: int) -> None:
    walk = Walk(solver=f"deis(order={order}, staged=True)", budget=nfe)
    law, seen = Gaussian(VP()), []
    model = Denoiser(law.p, lambda x, t: (seen.append(t), law.denoise(x, t))[1])
    t = walk.times(law.p)
    list(walk._solver.walk(model, torch.randn(2, 3).double(), t, walk._spend, no_noise))
    assert len(seen) == walk.nfe == nfe


def test_the_discrete_chain_is_as_smooth_to_integrate_as_its_limit() -> None:
    """RK45 takes the very number of evaluations of VP, and RK4 keeps its order."""
    p = DiscreteVP()
    spent = [rk45(mixture(q).velocity, bent(p), 1.0, 1e-3)[1].tolist() for q in (p, VP())]
    assert spent[0] == spent[1]
    exact, _ = rk45(mixture(p).velocity, bent(p), *ends(p), 1e-12, 1e-12)
    order = measured_order(SOLVERS.build("rk4"), p, [16, 32, 64], exact)
    assert order == pytest.approx(4, abs=0.25)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_whole_walk_follows_the_flow(name: str, process: str) -> None:
    """From T to the data of a Gaussian, with the solver's own grid, on every process."""
    p = PARAMETERIZATIONS[process]()
    law = Gaussian(p, m=0.3, v=0.25)
    f = Exact(law, "diffusion")
    walk = Walk(200, name)
    x = walk(f, NoiseStreams(0, range(8), f.shape))
    start, low, *_ = [walk.times(p)[0], walk.times(p)[-1]]
    times = (torch.full((8,), time, dtype=torch.float64) for time in (start, low))
    z = NoiseStreams(0, range(8), f.shape).normal().double()
    x_T = p.prior(z) if start == p.T else p.sigma(torch.tensor(start).double()) * z
    error = (x.double() - law.flow(x_T, *times)).abs().max()
    assert float(error) < (0.05 if SOLVERS.build(name).convergence == 1 else 0.01)


# Distribution


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_draw_the_data_distribution(name: str, process: str) -> None:
    """Mean and variance of 60,000 coordinates; the Monte-Carlo errors are 0.002 each."""
    f = Exact(Gaussian(PARAMETERIZATIONS[process](), m=0.3, v=0.25), "diffusion", dim=2000)
    x = Walk(300, name, "log_snr")(f, NoiseStreams(0, range(30), f.shape))
    assert float(x.mean()) == pytest.approx(0.3, abs=0.012)
    assert float(x.var()) == pytest.approx(0.25, abs=0.012)


@pytest.mark.parametrize("process", ["edm", "vp"])
@pytest.mark.parametrize("name", ["ancestral", "ddim(eta=0.5)", "euler_maruyama", "pc(snr=0.05)"])
def test_the_bias_shrinks_with_the_steps(name: str, process: str) -> None:
    f = Exact(Gaussian(PARAMETERIZATIONS[process](), m=0.3, v=0.25), "diffusion", dim=2000)

    def bias(N: int) -> float:
        x = Walk(N, name, "log_snr")(f, NoiseStreams(0, range(30), f.shape))
        return abs(float(x.var()) - 0.25)

    few, many = bias(10), bias(80)
    assert few > 0.015
    assert many < few / 3


# Identities


@pytest.mark.parametrize("process", ["edm", "vp", "rectified_flow"])
@pytest.mark.parametrize("name", ["dpm1", "deis(order=0)"])
def test_order_one_is_ddim(name: str, process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    t = np.linspace(*ends(p), 6).tolist()
    x = torch.randn(5, 1, dtype=torch.float64)
    ddim = walked(SOLVERS.build("ddim"), mixture(p), x, t)
    torch.testing.assert_close(walked(SOLVERS.build(name), mixture(p), x, t), ddim)


@pytest.mark.parametrize("process", ["edm", "rectified_flow"])
def test_ddim_is_euler_where_time_is_the_noise_level(process: str) -> None:
    f = Exact(Gaussian(PARAMETERIZATIONS[process]()), "diffusion")
    ddim, euler = (
        Walk(7, s, "karras")(f, NoiseStreams(0, range(4), f.shape)) for s in ("ddim", "euler")
    )
    torch.testing.assert_close(ddim, euler, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("process", ["edm", "vp", "vp_discrete"])
def test_ddim_with_all_noise_is_ancestral(process: str) -> None:
    f = Exact(Gaussian(PARAMETERIZATIONS[process]()), "diffusion")
    ddim, ancestral = (
        Walk(7, s)(f, NoiseStreams(0, range(4), f.shape)) for s in ("ddim(eta=1)", "ancestral")
    )
    torch.testing.assert_close(ddim, ancestral, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("process", ["edm", "vp", "rectified_flow"])
def test_no_churn_is_heun(process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    t = [*np.linspace(*ends(p), 6).tolist(), 0.0]
    x = torch.randn(5, 1, dtype=torch.float64)
    spend = (2,) * 5 + (1,)
    a, b = (
        list(SOLVERS.build(s).walk(mixture(p), x, t, spend, no_noise))
        for s in ("churn(S_churn=0)", "heun")
    )
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_ancestral_sampling_is_ddpm_written_out() -> None:
    """Ho et al. 2020, Algorithm 2, on their chain of 1000 betas."""
    p = PARAMETERIZATIONS["vp_discrete"]()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = (1 - betas).cumprod(0)
    f = Exact(Gaussian(p, m=0.3, v=0.25), "diffusion")
    got = Walk(1000, "ancestral")(f, NoiseStreams(0, range(3), f.shape))
    noise = NoiseStreams(0, range(3), f.shape)
    x = noise.normal().double() * (1 - bars[-1]).sqrt()
    for n in range(999, -1, -1):
        D = f.D(x, (n + 1) / 1000)
        epsilon = (x - bars[n].sqrt() * D) / (1 - bars[n]).sqrt()
        x = (x - betas[n] / (1 - bars[n]).sqrt() * epsilon) / (1 - betas[n]).sqrt()
        if n:
            variance = (1 - bars[n - 1]) / (1 - bars[n]) * betas[n]
            x = x + variance.sqrt() * noise.normal()
    torch.testing.assert_close(got.double(), x, rtol=0, atol=1e-4)


def test_churn_is_algorithm_2_written_out() -> None:
    f = Exact(Gaussian(PARAMETERIZATIONS["edm"]()), "diffusion")
    walk = Walk(6, "churn(S_churn=2, S_min=0.05, S_max=50, S_noise=1.003)")
    got = walk(f, NoiseStreams(0, range(3), f.shape))
    noise = NoiseStreams(0, range(3), f.shape)
    x = 80 * noise.normal(dtype=torch.float64)
    for t, s in pairwise(walk.times(f.p)):
        gamma = min(2 / 6, math.sqrt(2) - 1) if 0.05 <= t <= 50 else 0.0
        t_hat = t * (1 + gamma)
        if gamma:
            x = x + math.sqrt(t_hat**2 - t**2) * 1.003 * noise.normal(dtype=torch.float64)
        d = (x - f.D(x, t_hat)) / t_hat
        after = x + (s - t_hat) * d
        if s:
            after = x + (s - t_hat) * (d + (after - f.D(after, s)) / s) / 2
        x = after
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


def test_the_predictor_corrector_is_score_sde_written_out() -> None:
    """Its VE form: Langevin, then x + (s_t^2 - s_s^2) score + noise; Algorithms 2 and 4."""
    f = Exact(Gaussian(PARAMETERIZATIONS["ve"]()), "diffusion", dim=40)
    walk = Walk(8, "pc(snr=0.1)")
    got = walk(f, NoiseStreams(0, range(3), f.shape))
    noise = NoiseStreams(0, range(3), f.shape)
    x = 80 * noise.normal(dtype=torch.float64)
    for t, s in pairwise(walk.times(f.p)):
        score, z = f.score(x, t), noise.normal(dtype=torch.float64)
        e = 2 * (0.1 * z.norm(dim=1) / score.norm(dim=1))[:, None] ** 2
        x = x + e * score + (2 * e).sqrt() * z
        x = x + (t**2 - s**2) * f.score(x, t)
        if s:
            x = x + math.sqrt(t**2 - s**2) * noise.normal(dtype=torch.float64)
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


# Evaluations


def network_map(num_classes: int = 0, process: str = "edm") -> FlowMap:
    F = MLP((2, 3), num_classes=num_classes, width=16, blocks=1)
    f = FlowMap(F, PARAMETERIZATIONS[process](), info={"kind": "diffusion"})
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return f


class Counter:
    """Counts network evaluations."""

    def __init__(self, f: FlowMap) -> None:
        self.calls = 0
        f.F.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1


@pytest.mark.parametrize("nfe", [1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 25, 33])
@pytest.mark.parametrize("name", [*EVERY, "dpm3(denoise=True)", "pc(correctors=2)"])
def test_a_budget_is_spent_exactly_or_refused(name: str, nfe: int) -> None:
    f, solver = network_map(), SOLVERS.build(name)
    flexible = isinstance(solver, DPMSolver)
    if not flexible and nfe not in [sum(solver.evaluations(N)) for N in range(1, 34)]:
        with pytest.raises(FewstepError, match=f"cannot spend exactly {nfe} network eval") as wrong:
            sampler_for(f, solver=name, nfe=nfe)
        near = [int(n) for n in re.findall(r"\d+", str(wrong.value).partition(":")[2])]
        assert near
        assert all(sampler_for(f, solver=name, nfe=count).nfe == count for count in near)
        return
    counter, sampler = Counter(f), sampler_for(f, solver=name, nfe=nfe)
    sample(f, 2, sampler)
    assert counter.calls == sampler.nfe == nfe


@pytest.mark.parametrize("name", EVERY)
def test_the_evaluations_of_steps_are_counted(name: str) -> None:
    f = network_map()
    for N in (1, 2, 5):
        counter, sampler = Counter(f), Walk(N, name)
        x = list(sampler.steps(f, NoiseStreams(0, range(2), f.shape)))
        assert counter.calls == sampler.nfe
        assert len(x) == N
        assert x[-1].isfinite().all()


@pytest.mark.parametrize(
    ("name", "nfe", "orders"),
    [
        ("dpm3", 10, (3, 3, 3, 1)),
        ("dpm3", 11, (3, 3, 3, 2)),
        ("dpm3", 12, (3, 3, 3, 2, 1)),
        ("dpm3", 3, (2, 1)),
        ("dpm2", 12, (2,) * 6),
        ("dpm2", 5, (2, 2, 1)),
        ("dpm1", 4, (1,) * 4),
        ("dpm3(denoise=True)", 1, (1,)),
        ("dpm3(denoise=True)", 13, (3, 3, 3, 2, 1, 1)),
        ("heun", 35, (2,) * 17 + (1,)),
        ("pc", 2000, (2,) * 1000),
    ],
)
def test_how_a_budget_is_split(name: str, nfe: int, orders: tuple[int, ...]) -> None:
    assert SOLVERS.build(name).split(nfe) == orders


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"solver": "heun", "nfe": 12}, "heun cannot spend exactly 12 .* 11 or 13"),
        ({"solver": "rk4", "nfe": 12}, "9 or 13"),
        ({"solver": "pc", "nfe": 1}, "2 is least"),
        ({"solver": "rk45", "nfe": 12}, "rk45 chooses its own steps: set rtol"),
        ({"solver": "rk45", "steps": 12}, "rk45 chooses its own steps: set rtol"),
        ({"solver": "rk45", "grid": "straight"}, "set rtol and atol instead of grid"),
        ({"sampler": "walk(solver=rk45, grid=straight)"}, "instead of grid"),
        ({"sampler": "walk(grid=straight)", "solver": "rk45"}, "instead of grid"),
        ({"sampler": "walk(steps=5)", "solver": "rk45"}, "instead of steps"),
        ({"sampler": "walk(solver=heun)", "solver": "euler"}, "solver is given twice, in the"),
        ({"solver": "heun", "nfe": 11, "steps": 6}, "not both"),
        ({"nfe": 0}, "nfe=0"),
        ({"solver": "heum"}, "'heun'"),
        ({"solver": "ddim(eta=2)"}, "eta"),
        ({"solver": "deis(order=5)"}, "order"),
        ({"solver": "pc(snr=-1)"}, "snr"),
        ({"solver": "churn(S_churn=-1)"}, "S_churn"),
        ({"solver": "rk45(rtol=0)"}, "rtol"),
        ({"solver": "ddim(rtol=0)"}, "eta"),
        ({"grid": "karas"}, "'karras'"),
        ({"grid": "karras(rho=0)"}, "rho"),
    ],
)
def test_wrong_solvers_are_refused(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        sampler_for(network_map(), **arguments)


def test_an_ode_sampler_draws_no_noise() -> None:
    assert ODE(5, "ddim").nfe == 5
    with pytest.raises(FewstepError, match="draws noise"):
        ODE(5, "ddim(eta=0.5)")


# Samples depend on seed and index alone


@pytest.mark.parametrize("name", [*EVERY, "rk45"])
def test_samples_do_not_depend_on_the_batch(name: str) -> None:
    f = network_map(num_classes=3)
    sampler = Walk(4, name)
    whole = sample(f, 7, sampler, seed=1)
    parts = sample(f, 7, sampler, seed=1, batch=3)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


def test_the_registries_agree() -> None:
    assert all(SOLVERS[name] is PHI[name] for name in PHI)


# RK45


@pytest.mark.parametrize("process", ["edm", "vp", "trigflow"])
def test_rk45_takes_the_steps_of_scipy(process: str) -> None:
    """Each sample alone: the same result and the same number of evaluations."""
    p = PARAMETERIZATIONS[process]()
    start, end = ends(p)
    x = torch.linspace(-4, 4, 6, dtype=torch.float64)[:, None]
    got, evaluations = rk45(mixture(p).velocity, x, start, end, rtol=1e-6, atol=1e-7)

    def v(t: float, x: np.ndarray) -> np.ndarray:
        return mixture(p).velocity(torch.from_numpy(x)[:, None], t)[:, 0].numpy()

    for i in range(6):
        one = solve_ivp(v, (start, end), x[i].numpy(), method="RK45", rtol=1e-6, atol=1e-7)
        assert int(evaluations[i]) == one.nfev
        np.testing.assert_allclose(got[i].numpy(), one.y[:, -1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("process", ["edm", "vp", "rectified_flow"])
def test_rk45_reaches_the_flow_within_its_tolerance(process: str) -> None:
    p = PARAMETERIZATIONS[process](**({"T": 20.0} if process == "edm" else {}))
    law = Gaussian(p)
    f = Exact(law, "diffusion")
    start, low = torch.full((5,), p.T).double(), torch.full((5,), p.t_min).double()
    x_T = p.prior(torch.randn(5, 3, dtype=torch.float64))
    exact = law.flow(x_T, start, low)
    for tolerance in (1e-3, 1e-5, 1e-7):
        x, _ = rk45(f.velocity, x_T, p.T, p.t_min, rtol=tolerance, atol=tolerance)
        assert float((x - exact).abs().max()) < 30 * tolerance


def test_rk45_measures_its_evaluations() -> None:
    f = network_map()
    sampler = Walk(solver="rk45(rtol=1e-3, atol=1e-3)")
    with pytest.raises(FewstepError, match="after sampling"):
        _ = sampler.nfe
    counter = Counter(f)
    sample(f, 1, sampler)
    assert sampler.nfe == counter.calls > 10
    finer = Walk(solver="rk45(rtol=1e-5, atol=1e-5)")
    sample(f, 1, finer)
    assert finer.nfe > sampler.nfe


def test_rk45_names_what_went_wrong() -> None:
    x = torch.ones(2, 1)
    with pytest.raises(FewstepError, match="velocity is not finite"):
        rk45(lambda x, t: x * math.nan, x, 1.0, 0.0)
    with pytest.raises(FewstepError, match="rtol"):
        rk45(lambda x, t: torch.sign(t - 0.5)[:, None] * 1e9, x, 1.0, 0.0, 1e-14, 1e-14)


# Grids


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", [name for name in TIME_GRIDS if name != "chain"])
def test_grids_decrease_and_keep_their_ends(name: str, process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    start = 0.9 * p.T
    t = TIME_GRIDS.build(name)(12, p, start)
    assert t.shape == (12,)
    assert float(t[0]) == pytest.approx(start, rel=1e-12)
    if name == "flow":
        assert float(t[-1]) == pytest.approx(start / 12, rel=1e-12)
    elif name == "straight":
        u = p.sigma(t) / (p.alpha(t) + p.sigma(t))
        torch.testing.assert_close(u, u[0] * (1 - torch.arange(12).double() / 12))
    else:
        assert float(t[-1]) == pytest.approx(p.t_min, rel=1e-12)
    assert (t.diff() < 0).all()


TO_ZERO = ["straight", "flow", "flow(shift=3.0)", "flow(shift=0.1)"]


@pytest.mark.parametrize("process", ["edm", "vp", "trigflow", "rectified_flow"])
@pytest.mark.parametrize("grid", TO_ZERO)
def test_a_walk_on_a_grid_to_zero_ends_there_whatever_its_solver(grid: str, process: str) -> None:
    """All data are at 0.7: what is left around it is the noise at the walk's end."""
    p = PARAMETERIZATIONS[process]()
    point = Exact(Gaussian(p, m=0.7, v=1e-12), "diffusion", 20)
    for solver in ("dpmpp_2m", "dpm1", "dpm3", "deis", "ddim(denoise=False)"):
        for steps in (1, 8, 2000):
            t = Walk(steps, solver, grid).times(p)
            assert len(t) == steps + 1
            assert (torch.tensor(t).double().diff() < 0).all()
            assert t[-1] <= p.t_min
    x = Walk(8, "dpmpp_2m", grid)(point, NoiseStreams(0, range(100), point.shape))
    assert float(x.std()) < 0.02
    assert float(x.mean()) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_shift_leaves_the_ends_of_the_time(process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    for shift in (0.1, 3.0):
        t = TIME_GRIDS.build(f"flow(shift={shift})")(4, p, p.T)
        u = torch.tensor([1.0, 0.75, 0.5, 0.25]).double()
        torch.testing.assert_close(t / p.T, shift * u / (1 + (shift - 1) * u))
        assert float(t.max()) <= p.T


def test_ancestral_ddim_takes_steps_that_leave_nothing() -> None:
    """From pure noise its draws are all of the next noise, up to rounding to either side."""
    for steps, sigma_data in ((3, 0.3), (8, 0.752), (18, 0.1)):
        f = Exact(Gaussian(TrigFlow(sigma_data=sigma_data)), "diffusion", 3)
        assert sample(f, 2, Walk(steps, "ddim(eta=1)")).isfinite().all()


def test_what_the_grids_space_evenly() -> None:
    p = PARAMETERIZATIONS["vp"]()
    even = {"time": lambda t: t, "quadratic": torch.sqrt, "log_snr": p.log_snr}
    for name, of in even.items():
        gaps = of(TIME_GRIDS.build(name)(9, p, p.T)).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand(8))
