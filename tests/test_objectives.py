"""Contracts of every registered objective, and the theory of the paper on closed-form data."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest
import scipy.special
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from fewstep.cli.catalogue import entries
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.needs import Needs
from fewstep.networks import MLP, FourierOperator, MLPAutoencoder, Network
from fewstep.networks.dropout import dropout
from fewstep.objectives import CD, CT, ECT, ICT, OBJECTIVES, Objective, ScoreMatching, TeacherUse
from fewstep.parameterization import (
    EDM,
    PFGM,
    VE,
    VP,
    CosineVP,
    DiscreteVP,
    Matched,
    Parameterization,
    RectifiedFlow,
    TrigFlow,
    expand,
    match,
)
from fewstep.schedules import TRAINING_TIMES, karras_grid
from fewstep.solvers import PHI
from fewstep.trained import CONSISTENCY, GENERATOR
from oracles import Exact, Gaussian, columns_for, slope

each = pytest.mark.parametrize("name", list(OBJECTIVES))
P = EDM(T=20.0)
TO_ZERO = EDM(T=20.0, eps=0.0)  # ECT's map ends at the data itself


OWN_PROCESS = {"ddpm": DiscreteVP(time_scale=4.0), "pfgm": PFGM(T=20.0, D=64.0), "ect": TO_ZERO}


def process_of(name: str) -> Parameterization:
    generates = OBJECTIVES[name].makes == GENERATOR
    return TO_ZERO if generates else OWN_PROCESS.get(name, P)


def pairs_of(name: str, x: Tensor) -> dict[str, Tensor]:
    """What the objective wants of each example besides its label."""
    return columns_for(OBJECTIVES[name].needs.columns, x)


def network_map(num_classes: int = 0, dropout: float = 0.0, p: Parameterization = P) -> FlowMap:
    f = FlowMap(MLP((3,), num_classes=num_classes, width=16, blocks=1, dropout=dropout), p)
    for parameter in f.parameters():
        nn.init.normal_(parameter, std=0.3)
    return f


def in_time(F: MLP) -> FourierOperator:
    """A network of trajectories in place of a perceptron."""
    dropout = F.config.get("dropout", 0.0)
    base = f"mlp(width=16, blocks=1, dropout={dropout})"
    G = FourierOperator(F.shape, num_classes=F.num_classes, base=base)
    for parameter in G.parameters():
        nn.init.normal_(parameter, std=0.3)
    return G


def build(name: str, f: FlowMap, K: int = 100, **hyper: Any) -> Objective:
    f.p = process_of(name)
    if "trajectory" in OBJECTIVES[name].needs.columns:
        f.F = in_time(f.F)
    if OBJECTIVES[name].makes.decodes:
        f.F = MLPAutoencoder(f.F.shape, latents=2, width=16, blocks=1)
        for parameter in f.F.parameters():
            nn.init.normal_(parameter, std=0.3)
    arguments: dict[str, Any] = {"f": f, "K": K, **hyper}
    if OBJECTIVES[name].needs.teacher is TeacherUse.DISTIL:
        arguments["teacher"] = f.frozen_copy()
    return OBJECTIVES.call(name, arguments)


# Contracts


@each
@pytest.mark.parametrize("k", [0, 57, 99])
def test_one_finite_loss_per_example_and_gradients_everywhere(name: str, k: int) -> None:
    o = build(name, network_map(num_classes=4))
    x = torch.randn(32, 3)
    loss = o(x, k, Condition(torch.arange(32) % 4), **pairs_of(name, x))
    assert loss.shape == (32,)
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    loss.mean().backward()
    for parameter_name, parameter in o.f.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    frozen = [p for n, p in o.named_parameters() if not n.startswith("f.")]
    assert all(p.grad is None for p in frozen)


@each
def test_unconditional(name: str) -> None:
    x = torch.randn(8, 3)
    assert build(name, network_map())(x, 3, **pairs_of(name, x)).shape == (8,)


@each
def test_the_same_random_stream_gives_the_same_loss(name: str) -> None:
    o, x = build(name, network_map(dropout=0.5)), torch.randn(8, 3)
    columns, losses = pairs_of(name, x), []
    for _ in range(2):
        torch.manual_seed(5)
        losses.append(o(x, 3, **columns))
    assert torch.equal(*losses)


@each
def test_describes_itself(name: str) -> None:
    cls = OBJECTIVES[name]
    assert cls.makes.known
    assert any(year in cls.paper for year in ("2020", "2021", "2022", "2023", "2024", "2025"))
    assert "``" in (cls.__doc__ or "")


@each
def test_changing_maps_survive_a_state_round_trip(name: str) -> None:
    o, x = build(name, network_map()), torch.randn(8, 3)
    o.after_step(0)
    copy = build(name, network_map())
    for key, f in copy.changing().items():
        f.load_state_dict(o.changing()[key].state_dict())
    if hasattr(o, "teacher"):
        copy.teacher.load_state_dict(o.teacher.state_dict())
    columns, losses = pairs_of(name, x), []
    for objective in (o, copy):
        torch.manual_seed(1)
        losses.append(objective(x, 7, **columns))
    assert torch.equal(*losses)


@each
def test_a_few_steps_lower_the_loss(name: str) -> None:
    """On data with one point the minimum is zero; a handful of steps must go towards it."""
    o = build(name, network_map(), s1=4) if name in ("ct",) else build(name, network_map())
    if o.needs.teacher is TeacherUse.DISTIL:
        pytest.skip("it follows its teacher, here a random one: see the tests of each")
    if name == "continuous_ct":
        pytest.skip("needs a diffusion model to start from: see test_objectives_continuous.py")
    x = torch.full((256, 3), 0.4)
    optimizer = torch.optim.Adam(o.f.parameters(), lr=3e-3)

    def distance() -> float:
        f, p = o.f.D if o.makes.denoises else o.f, o.f.p
        t = o.f.time(p.T if not o.makes.from_any_time else min(3.0, 0.7 * p.T), x)
        with torch.no_grad():
            return float((f(p.diffuse(x, t, torch.randn_like(x)), t) - x).square().mean())

    before = distance()
    for k in range(60):
        o(x, k, **pairs_of(name, x)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        o.after_step(k)
    assert distance() < 0.5 * before


@each
def test_losses_vanish_at_the_truth(name: str) -> None:
    """Data at one point: the PF-ODE is a straight line, which every solver follows exactly."""
    truth = Gaussian(process_of(name), m=0.4, v=0.0)
    f = Exact(truth, OBJECTIVES[name].makes.kind)
    if "trajectory" in OBJECTIVES[name].needs.columns:
        pytest.skip("its network gives whole trajectories: see the tests of distillation")
    if OBJECTIVES[name].makes.decodes:
        pytest.skip("no map along the PF-ODE: see the tests of latents")
    known = inspect.signature(OBJECTIVES[name]).parameters
    extra = {"teacher": Exact(truth, "diffusion"), "weighting": "uniform"}
    arguments = {key: value for key, value in extra.items() if key in known}
    o = OBJECTIVES.call(name, {"f": f, "K": 100, **arguments})
    x = torch.full((64, 3), 0.4, dtype=torch.float64)
    for k in (0, 50, 99):
        assert float(o(x, k, **pairs_of(name, x)).max()) < 1e-10


# Same dropout in student and target


class Recorder(nn.Module):
    """Remembers the mask that dropout at its place would apply."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = dropout(torch.ones_like(x), 0.5, self.training)
        self.masks.append(mask.detach())
        return x * mask


def check_masks(name: str, device: str) -> None:
    f = network_map().to(device)
    recorder = Recorder()
    f.F.write = nn.Sequential(recorder, f.F.write)
    o = build(name, f).to(device).train()
    students = {id(m): m for m in o.modules() if isinstance(m, Recorder)}
    for m in students.values():
        m.masks.clear()
    o(torch.randn(16, 3, device=device), 50)
    drawn = [mask for m in students.values() for mask in m.masks if (mask != 1).any()]
    assert len(drawn) == 2
    assert torch.equal(*drawn)
    assert 0.2 < float((drawn[0] == 0).float().mean()) < 0.8


consistency = [name for name in OBJECTIVES if OBJECTIVES[name].makes == CONSISTENCY]


@pytest.mark.parametrize("name", consistency)
def test_student_and_target_see_the_same_dropout_mask(name: str) -> None:
    check_masks(name, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", consistency)
def test_student_and_target_see_the_same_dropout_mask_on_a_gpu(name: str) -> None:
    check_masks(name, "cuda")


def test_torchs_own_dropout_is_refused_where_two_passes_must_agree() -> None:
    f = network_map()
    f.F.write = nn.Sequential(nn.Dropout(0.1), f.F.write)
    with pytest.raises(FewstepError, match=r"write\.0 of the network is torch's Dropout"):
        CT(f, 10)


@pytest.mark.parametrize("name", ["ct", "ict", "cd", "ect", "score_matching"])
def test_the_whole_loss_is_one_graph_for_the_whole_training(name: str) -> None:
    """Teacher, target and student compile together, and no step compiles anew."""
    o = build(name, network_map(num_classes=4, dropout=0.5))
    graphs, label = CompileCounter(), torch.arange(8) % 4
    loss_at = torch.compile(o.loss_at, fullgraph=True, backend=graphs)
    for k in (0, 50, 99):
        x = torch.randn(8, 3)
        loss_at(x, *o.draw_times(x, k), condition=Condition(label)).mean().backward()
    assert graphs.frame_count == 1
    assert all(p.grad is not None for p in o.f.parameters())


def test_student_and_target_share_dropout_in_a_compiled_loss_as_well() -> None:
    """At one point and with one network the distance is zero, if the masks are the same."""
    o = build("ct", network_map(dropout=0.5))
    x, t = torch.randn(64, 3), torch.full((64,), 2.0)
    compiled = torch.compile(o.loss, fullgraph=True, backend="eager")
    assert not compiled(x, t, x, t).any()
    assert compiled(x, t, x + 0.1, t).all()


# What an objective needs


def test_the_list_tells_what_every_objective_needs() -> None:
    """It reads the sources; what it finds there is what the classes say."""
    told = {e.name: e.needs for e in entries() if e.registry == "OBJECTIVES"}
    assert told == {name: OBJECTIVES[name].needs for name in OBJECTIVES}


class Free(Objective):
    """``mean (F - x)^2`` with every need that a map can fail."""

    needs = Needs(
        two_time=True, processes=("rectified_flow", "vp_discrete"), continuous=True, eps_zero=True
    )

    def loss_at(self, x: Tensor, *times: Tensor, **_: Any) -> Tensor:
        return (self.f(x, 1.0) - x).flatten(1).square().mean(1)


@pytest.mark.parametrize(
    ("F", "p", "fault"),
    [
        (MLPAutoencoder((3,), latents=2), RectifiedFlow(), "network that maps noise to images"),
        (MLP((3,)), RectifiedFlow(), r"takes both, and this mlp takes one.*--network.two-time"),
        (MLP((3,), two_time=True), EDM(eps=0.0), "rectified_flow or vp_discrete, not edm"),
        (MLP((3,), two_time=True), RectifiedFlow(eps=0.1), "eps=0, --p.eps 0, and got 0.1"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(F: Network, p: Parameterization, fault: str) -> None:
    with pytest.raises(FewstepError, match=rf"^Free .*{fault}"):
        Free(FlowMap(F, p), 1)


def test_a_map_that_fits_is_taken() -> None:
    assert Free(FlowMap(MLP((3,), two_time=True), RectifiedFlow()), 1).name == "Free"


# Particulars of each paper


def test_score_matching_is_minimised_by_the_posterior_mean() -> None:
    """At the truth the loss is E[lambda Var(x_0 | x_t)]; any shift of D adds to it."""
    truth = Gaussian(P)
    x = truth.sample(20_000, 3)
    f = Exact(truth, "diffusion")
    torch.manual_seed(1)
    at_truth = float(ScoreMatching(f, 1)(x, 0).mean())
    for shift in (-0.05, 0.05):
        shifted = Exact(truth, "diffusion")
        shifted.forward = lambda x, t, s=None, condition=NONE, shift=shift: (
            truth.denoise(x, t) + shift
        )
        torch.manual_seed(1)
        assert float(ScoreMatching(shifted, 1)(x, 0).mean()) > at_truth
    t = torch.exp(-1.2 + 1.2 * torch.randn(400_000, dtype=torch.float64))
    variance = truth.v * t**2 / (truth.v + t**2)
    expected = float(((t**2 + 0.25) / (0.5 * t) ** 2 * variance).mean())
    assert at_truth == pytest.approx(expected, rel=0.02)


def test_cd_target_is_the_solver_step_of_the_teacher() -> None:
    truth = Gaussian(P)
    f = Exact(truth, "consistency")
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(x: Tensor, t: Tensor, s: Any = None, condition: Condition = NONE) -> Tensor:
        seen.append((x, t))
        return truth.flow(x, t, torch.full_like(t, P.eps))

    f.forward = spy
    teacher = Exact(truth, "diffusion")
    CD(f, 10, teacher=teacher, N=6, solver="heun")(truth.sample(32, 3), 0)
    (x_hat, s), (x_next, t) = seen
    grid = karras_grid(6, P)
    n = torch.searchsorted(grid, t.float())
    torch.testing.assert_close(grid[n - 1], s.float())
    d = (x_next - truth.denoise(x_next, t)) / expand(t, x_next)
    euler = x_next + expand(s - t, d) * d
    d2 = (euler - truth.denoise(euler, s)) / expand(s, d)
    torch.testing.assert_close(
        x_hat, x_next + expand(s - t, d) * (d + d2) / 2, rtol=1e-6, atol=1e-6
    )


def test_ct_pairs_share_their_noise_and_are_neighbours() -> None:
    f = Exact(Gaussian(P), "consistency")
    seen: list[tuple[Tensor, Tensor]] = []
    f.forward = lambda x, t, s=None, condition=NONE: (seen.append((x, t)), x)[1]
    o = CT(f, 100, s0=2, s1=20)
    o._f_minus.forward = f.forward
    x = torch.randn(64, 3, dtype=torch.float64)
    o(x, 40)
    (x_n, t_n), (x_next, t_next) = seen
    grid = karras_grid(o.N(40), P, dtype=torch.float64)
    torch.testing.assert_close(grid[torch.searchsorted(grid, t_next) - 1], t_n)
    torch.testing.assert_close((x_n - x) / t_n[:, None], (x_next - x) / t_next[:, None])


def test_ct_target_is_an_average_with_mu_of_n() -> None:
    f = network_map()
    o = CT(f, 100, s0=2, s1=20, mu0=0.9)
    before = [p.clone() for p in o.f_minus.parameters()]
    with torch.no_grad():
        for p in f.parameters():
            p.add_(1.0)
    o.after_step(30)
    mu = 0.9 ** (2 / o.N(30))
    for old, new in zip(before, o.f_minus.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - mu), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mu", [0.0, 0.95])
def test_cd_target_decay(mu: float) -> None:
    f = network_map()
    o = CD(f, 10, teacher=f.frozen_copy(), mu=mu)
    assert (o.f_minus is f) == (mu == 0)
    assert set(o.changing()) == ({"f"} if mu == 0 else {"f", "f_minus"})
    with pytest.raises(FewstepError, match="mu"):
        CD(f, 10, teacher=f, mu=1.0)


def test_ct_starts_from_scratch() -> None:
    """No launcher may copy a teacher's weights into a student that trains from scratch."""
    assert CT.needs.teacher is TeacherUse.NONE
    assert ICT.needs.teacher is TeacherUse.NONE
    with pytest.raises(FewstepError, match="teacher"):
        OBJECTIVES.call("ct", {"f": network_map(), "K": 1, "teacher": network_map()})


def test_ict_target_is_the_map_itself() -> None:
    f = network_map()
    assert ICT(f, 10).f_minus is f


def test_ect_begins_as_a_diffusion_loss() -> None:
    """In stage 0 small times have r = 0: their target is the data."""
    f = Exact(Gaussian(TO_ZERO, v=0.0, m=0.4), "consistency")
    o = ECT(f, 100, stages=4, P_mean=-6.0, P_std=0.1, distance="l2", weighting="uniform")
    f.forward = lambda x, t, s=None, condition=NONE: x * 0 + 7.0
    x = torch.full((16, 3), 0.4, dtype=torch.float64)
    torch.testing.assert_close(o(x, 0), torch.full((16,), (7 - 0.4) ** 2, dtype=torch.float64))


def test_ect_asks_for_a_map_to_zero() -> None:
    with pytest.raises(FewstepError, match="eps=0"):
        ECT(network_map(), 10)


# Theory


def worst_error_of_the_discrete_fixed_point(truth: Gaussian, solver: str, N: int) -> float:
    """``sup |f(x, t_n) - f*(x, t_n)|`` of the map with zero CD loss: run Phi down the grid."""
    grid = karras_grid(N, truth.p, dtype=torch.float64)
    Phi = PHI.build(solver)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return truth.p.velocity(x, truth.denoise(x, t), t)

    std = (truth.v + grid**2).sqrt()[:, None]
    x = (truth.m + std * torch.linspace(-2, 2, 5).double())[:, :, None]  # 5 points at each t_n
    exact = truth.flow(x.flatten(0, 1), grid.repeat_interleave(5), grid[:1].expand(5 * N))
    for n in range(N - 1, 0, -1):  # every point that started at t_n or above makes this step
        points = x[n:].flatten(0, 1)
        t, s = (time.expand(len(points)) for time in (grid[n], grid[n - 1]))
        x[n:] = Phi.step(v, points, t, s).view_as(x[n:])
    return float((x.flatten(0, 1) - exact).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_theorem_1(solver: str, order: int) -> None:
    """Zero CD loss gives sup error O((Delta t)^p), p the order of Phi."""
    truth, sizes = Gaussian(EDM(T=5.0)), [40, 80, 160, 320]
    widest = [float(karras_grid(N, truth.p).diff().max()) for N in sizes]
    worst = [worst_error_of_the_discrete_fixed_point(truth, solver, N) for N in sizes]
    assert slope(widest, worst) == pytest.approx(order, abs=0.15)


def test_cd_loss_of_the_exact_map_falls_with_the_solver_order() -> None:
    """At the true f, d = l2 and Heun: each step errs by O(Delta t^3), so the loss by its square."""
    truth, f = Gaussian(EDM(T=5.0)), Exact(Gaussian(EDM(T=5.0)), "consistency")
    losses, sizes = [], [16, 32, 64]
    for N in sizes:
        torch.manual_seed(0)
        o = CD(f, 10, teacher=Exact(truth, "diffusion"), N=N, solver="heun")
        losses.append(float(o(truth.sample(4000, 3), 0).mean()))
    assert slope([1 / N for N in sizes], losses) > 5.0


def test_a_teacher_of_other_parameters_is_matched_in_python_too() -> None:
    """With the exact velocity of its own process it gives that of the student's."""
    truth = Gaussian(VP(beta_max=12.0))

    class Network(MLP):
        """The exact network of VP's own betas, told the index of a thousand steps."""

        def forward(self, x: Tensor, c_noise: Tensor, **condition: Any) -> Tensor:
            t = c_noise.double() / 999
            D = Gaussian(VP()).denoise(x, t)
            alpha, sigma = expand(VP().alpha(t), x), expand(VP().sigma(t), x)
            return (x - alpha * D) / sigma

    teacher = FlowMap(Network((3,), width=4, blocks=1).double(), VP())
    f = Exact(truth, "consistency")
    x, t = torch.randn(5, 3, dtype=torch.float64), torch.linspace(0.05, 1, 5, dtype=torch.float64)
    for name in ("cd", "continuous_cd"):
        with pytest.warns(FewstepWarning, match="process vp, .* of vp.beta_max=12"):
            o = OBJECTIVES.call(name, {"f": f, "K": 10, "teacher": teacher})
        expected = truth.p.velocity(x, truth.denoise(x, t), t)
        torch.testing.assert_close(o.teacher.velocity(x, t), expected)
    with pytest.raises(FewstepError, match=r"beta_max 20.0, the map in training 12.0: they must"):
        OBJECTIVES.call("pd", {"f": f, "K": 10, "teacher": teacher})
    other = FlowMap(MLP((2,), width=4, blocks=1), VP())
    with pytest.raises(FewstepError, match="has shape"):
        OBJECTIVES.call("cd", {"f": f, "K": 10, "teacher": other})


# Diffusion in other processes


def test_ddpm_regresses_the_noise_at_the_steps_of_its_chain() -> None:
    """For Gaussian data the least loss is known: ``E|epsilon - E[epsilon | x_n]|^2``, by n."""
    truth = Gaussian(DiscreteVP(), v=0.49)
    o = OBJECTIVES.call("ddpm", {"f": Exact(truth, "diffusion"), "K": 1})
    torch.manual_seed(0)
    losses = torch.cat([o(truth.sample(4000, 3), k) for k in range(10)])
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    a2, s2 = truth.p.alpha(t) ** 2, truth.p.sigma(t) ** 2
    least = (0.49 * a2 / (0.49 * a2 + s2)).mean()
    assert float(losses.mean()) == pytest.approx(float(least), rel=0.02)


@pytest.mark.parametrize("p", [VP(), EDM(T=20.0)], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("weighting", ["snr", "likelihood", "edm", "min_snr(gamma=5)"])
def test_score_sde_has_its_least_loss_at_the_true_score(
    p: Parameterization, weighting: str
) -> None:
    """The least loss of Gaussian data by quadrature over the times."""
    truth = Gaussian(p, v=0.49)
    o = OBJECTIVES.call(
        "score_sde", {"f": Exact(truth, "diffusion"), "K": 1, "weighting": weighting}
    )
    torch.manual_seed(0)
    losses = torch.cat([o(truth.sample(4000, 3), k) for k in range(10)])
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t = p.t_min + u * (p.T - p.t_min)
    if isinstance(p, EDM):
        t = p.t_min * (p.T / p.t_min) ** u
    a2, s2 = p.alpha(t) ** 2, p.sigma(t) ** 2
    weights = {  # of the error of epsilon
        "snr": torch.ones_like(t),
        "likelihood": p.diffusion(t) ** 2 / s2,
        "edm": 1 + s2 / a2 / p.sigma_data**2,
        "min_snr(gamma=5)": (5 * s2 / a2).clamp(max=1),
    }
    least = float((weights[weighting] * 0.49 * a2 / (0.49 * a2 + s2)).mean())
    error = float(losses.std()) / len(losses) ** 0.5
    assert float(losses.mean()) == pytest.approx(least, abs=5 * error)


@pytest.mark.parametrize("p", [VP(), EDM(T=20.0), VE(T=20.0), DiscreteVP()], ids=str)
def test_lognormal_times_have_the_same_noise_in_every_process(p: Parameterization) -> None:
    torch.manual_seed(0)
    t = TRAINING_TIMES.build("lognormal(P_mean=-0.6, P_std=1.4)").sample(torch.zeros(50_000, 1), p)
    noise = -p.log_snr(t.double())
    assert float(noise.mean()) == pytest.approx(-0.6, abs=0.03)
    assert float(noise.std()) == pytest.approx(1.4, abs=0.03)
    assert p.t_min <= float(t.min()) <= float(t.max()) <= p.T


OTHERS = [VP(beta_max=12.0), DiscreteVP(), TrigFlow(sigma_data=1.0), RectifiedFlow(), VE(T=20.0)]


@pytest.mark.parametrize("p", [*OTHERS, match(EDM(eps=0.0, T=20.0), CosineVP())], ids=str)
def test_noise_levels_are_drawn_not_times(p: Parameterization) -> None:
    """Score matching and ECT see the levels of EDM, in whatever time a process has them."""
    p, x = p if isinstance(p, Matched) else replace(p, eps=0.0), torch.zeros(20_000, 1)
    maps = [FlowMap(MLP((1,), width=4, blocks=1), q) for q in (p, TO_ZERO)]
    for name in ("score_matching", "ect"):
        drawn = []
        for f in maps:
            torch.manual_seed(0)
            o = OBJECTIVES.call(name, {"f": f, "K": 100, "P_mean": -1.0, "P_std": 0.7})
            drawn.append([f.p.noise_level(t.double()) for t in o.draw_times(x, 90)])
        for mine, of_edm in zip(*drawn, strict=True):
            torch.testing.assert_close(mine, of_edm, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("D", [8.0, 64.0])
def test_pfgm_noise_is_a_student_variable(D: float) -> None:
    """``E|R|^2 = N D/(D - 2)`` in training and at T; the share within the median is a half."""
    p = PFGM(T=3.0, D=D)
    o = build("pfgm", network_map())
    o.p = p
    torch.manual_seed(0)
    noise = o.noise(torch.zeros(100_000, 5))
    prior = p.prior(torch.randn(100_000, 5)) / 3
    for R in (noise, prior):
        square = R.square().sum(1)
        assert float(square.mean()) == pytest.approx(5 * D / (D - 2), rel=0.03)
        b = scipy.special.betaincinv(2.5, D / 2, 0.5)
        inside = (square < D * b / (1 - b)).double().mean()
        assert float(inside) == pytest.approx(0.5, abs=0.008)


@pytest.mark.parametrize("N", [1, 2, 64])
def test_pfgm_noise_of_zeros_is_zeros(N: int) -> None:
    torch.testing.assert_close(PFGM().prior(torch.zeros(2, N)), torch.zeros(2, N))


def test_pfgm_tends_to_edm() -> None:
    z = torch.randn(64, 1, 8, 8)
    torch.testing.assert_close(PFGM(D=1e7).prior(z), EDM().prior(z), rtol=1e-4, atol=1e-3)
    errors = [float((PFGM(D=D).prior(z) - EDM().prior(z)).abs().max()) for D in (1e3, 1e4, 1e5)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


@pytest.mark.parametrize(
    ("name", "p", "wanted"), [("ddpm", EDM(), "vp_discrete"), ("pfgm", EDM(), "pfgm")]
)
def test_a_method_of_another_process_is_refused(
    name: str, p: Parameterization, wanted: str
) -> None:
    with pytest.raises(FewstepError, match=wanted):
        OBJECTIVES.call(name, {"f": network_map(p=p), "K": 1})
