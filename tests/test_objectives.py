"""Contracts of every registered objective, and the theory of the paper on closed-form data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import scipy.special
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fewstep import precision
from fewstep.autoencoder_model import AutoencoderModel
from fewstep.cli.catalogue import entries
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, Needs
from fewstep.networks import MLP, MLPAutoencoder, Network
from fewstep.objectives import (
    CD,
    CT,
    ECT,
    ICT,
    OBJECTIVES,
    Objective,
    PFGMpp,
    ScoreMatching,
    TeacherUse,
)
from fewstep.papers import papers
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
from fewstep.runs.step import counted
from fewstep.schedules import TRAINING_TIMES, karras_grid
from fewstep.solvers import PHI
from fewstep.testing import CONTRACTS, Broken, Fitting, Gaussian
from fewstep.testing.fitting import random
from fewstep.testing.of_truth import check_masks
from fewstep.tracing import as_graph
from fewstep.weightings import WEIGHTINGS
from oracles import Exact, slope

P = EDM(T=20.0)
TO_ZERO = EDM(T=20.0, eps=0.0)  # ECT's map ends at the data itself


def network_map(num_classes: int = 0, dropout: float = 0.0, p: Parameterization = P) -> FlowMap:
    F = MLP((3,), num_classes=num_classes, width=16, blocks=1, dropout=dropout)
    return FlowMap(random(F), p)


# Contracts


FEW = ("ct", "cd", "ect", "scd", "meanflow")
"""Those that stand for all where a check takes a second; the others are slow tests."""


def held() -> Iterator[Any]:
    """Every contract of every objective."""
    for contract, name in product(CONTRACTS, OBJECTIVES):
        slow = contract == "compiles_as_one_graph" and name not in FEW
        marks = [pytest.mark.slow] if slow else []
        yield pytest.param(contract, name, marks=marks, id=f"{contract}-{name}")


@pytest.mark.parametrize(("contract", "name"), held())
def test_every_objective(name: str, contract: str) -> None:
    CONTRACTS[contract](Fitting(OBJECTIVES[name]))


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_names_the_year_of_its_paper(name: str) -> None:
    assert any(str(year) in OBJECTIVES[name].paper for year in range(2014, 2026))


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_says_what_it_costs_and_what_to_cite(name: str) -> None:
    assert OBJECTIVES[name].cost is not None
    assert OBJECTIVES[name].citation in papers()


def test_a_wrong_declaration_is_told() -> None:
    class Wrong(ECT):
        __doc__ = ECT.__doc__
        cost = Cost(forward=3)
        citation = "nobody2020nothing"

    with pytest.raises(Broken, match="nobody2020nothing"):
        CONTRACTS["describes_itself"](Fitting(Wrong))
    Wrong.citation = "@misc{mine2026,\n  title = {Mine},\n}"
    with pytest.raises(Broken, match="cost says 5 evaluations an image, and a step makes 4"):
        CONTRACTS["describes_itself"](Fitting(Wrong))
    Wrong.cost = None
    CONTRACTS["describes_itself"](Fitting(Wrong))


def broken(cls: type[Objective], loss: Callable[[Tensor, Objective], Tensor]) -> Fitting:
    """An objective whose loss is another one."""

    class Broken(cls):  # type: ignore[misc, valid-type]
        def loss_at(self, x: Tensor, *times: Tensor, **others: Any) -> Tensor:
            return loss(super().loss_at(x, *times, **others), self)

    return Fitting(Broken)


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize(
    ("contract", "loss", "fault"),
    [
        ("vanishes_at_the_truth_alone", lambda loss, o: loss + 1e-6, "loss of the truth is"),
        ("vanishes_at_the_truth_alone", lambda loss, o: 0 * loss, "is 0, as at the truth"),
        (
            "gives_each_example_a_loss_and_each_weight_a_gradient",
            lambda loss, o: loss.mean(),
            "not one an example",
        ),
        (
            "gives_each_example_a_loss_and_each_weight_a_gradient",
            lambda loss, o: loss.detach() + next(o.parameters()).sum(),
            "gets no gradient",
        ),
    ],
)
def test_every_contract_can_be_broken(
    name: str, contract: str, loss: Callable[[Tensor, Objective], Tensor], fault: str
) -> None:
    with pytest.raises(Broken, match=fault):
        CONTRACTS[contract](broken(OBJECTIVES[name], loss))


@pytest.mark.parametrize("name", FEW)
def test_a_loss_that_leads_away_is_told(name: str) -> None:
    with pytest.raises(Broken, match=r"data at 0\.4 led to -"):
        CONTRACTS["learns"](broken(OBJECTIVES[name], lambda loss, o: -loss))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_student_and_target_see_the_same_dropout_mask_on_a_gpu(name: str) -> None:
    check_masks(Fitting(OBJECTIVES[name]), "cuda")


class Elsewhere(TorchDispatchMode):
    """Looks on while the device "meta" computes, which has shapes alone: no number can be read.

    Copies from the host are counted; float64 is what some devices have none of.
    """

    copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        there = [x for x in tree_leaves(made) if isinstance(x, Tensor) and x.is_meta]
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        copied = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        self.copies += bool(there) and any(not x.is_meta and (copied or x.ndim) for x in given)
        wide = [x for x in there if x.dtype is torch.float64 and x.ndim]  # but a number's tangent
        assert not wide, f"{func} is in float64"
        return made


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_loss_waits_for_no_host_and_needs_no_float64(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CUDA graph and an Apple GPU want it; tables may be copied in the calls before."""
    monkeypatch.setattr(precision, "has_float64", lambda device: device.type != "meta")
    fitting = Fitting(OBJECTIVES[name])
    n, batch = fitting.num_classes, fitting.examples(8)
    o = fitting.build(fitting.map(num_classes=n, dropout=0.5)).to("meta").train()
    given = Condition(torch.arange(8, device="meta") % n) if n else NONE
    x, columns = batch.x.to("meta"), {k: c.to("meta") for k, c in batch.columns.items()}
    for turn in o.turns(50):
        for _ in range(2):
            with as_graph(), o.only(turn), Elsewhere() as seen:
                condition, times = o.drawn(x, 50, given, turn)
                before = seen.copies
                turn.loss(x, *times, condition=condition, **columns).mean().backward()
        assert seen.copies == before


def test_torchs_own_dropout_is_refused_where_two_passes_must_agree() -> None:
    f = network_map()
    f.F.write = nn.Sequential(nn.Dropout(0.1), f.F.write)
    with pytest.raises(FewstepError, match=r"write\.0 of the network is torch's Dropout"):
        CT(f, 10)


def test_student_and_target_share_dropout_in_a_compiled_loss_as_well() -> None:
    """At one point and with one network the distance is zero, if the masks are the same."""
    o = CT(network_map(dropout=0.5), 100)
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
        Free(AutoencoderModel(F) if "noise" in fault else FlowMap(F, p), 1)


@pytest.mark.parametrize(
    ("name", "settings", "images"),
    [
        ("shortcut", {}, 8),
        ("imm", {}, 4),
        ("imm", {"M": 20}, 20),
        ("tcm", {}, 3),
        ("tcm", {"boundary": 0.0}, 1),
        ("tcm", {"boundary": 0.9}, 5),
    ],
)
def test_fewer_images_than_a_loss_takes_are_refused(
    name: str, settings: dict[str, Any], images: int
) -> None:
    """The same loss, not another one; a step is counted all the same."""
    fitting = Fitting(OBJECTIVES[name], settings, shape=(4,))
    o = fitting.build(fitting.map())
    assert o(torch.randn(images, 4), 50).isfinite().all()
    if images > 1:
        with pytest.raises(FewstepError, match=f"takes {images} images at once, and .* computed"):
            o(torch.randn(images - 1, 4), 50)
    assert counted(o, fitting.p()).trained > 0


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
        with pytest.warns(FewstepWarning, match="is of vp, .* of vp.beta_max=12"):
            o = OBJECTIVES.call(name, {"f": f, "K": 10, "teacher": teacher})
        expected = truth.p.velocity(x, truth.denoise(x, t), t)
        torch.testing.assert_close(o.teacher.velocity(x, t), expected)
    with pytest.raises(FewstepError, match=r"beta_max 20.0, the map in training 12.0: they must"):
        OBJECTIVES.call("pd", {"f": f, "K": 10, "teacher": teacher})
    less = FlowMap(MLP((3,), width=4, blocks=1), VP(beta_max=12.0, T=0.5))
    with pytest.warns(FewstepWarning, match="ends at T=0.5, the map in training at T=1"):
        OBJECTIVES.call("cd", {"f": f, "K": 10, "teacher": less})
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
            arguments = {"P_mean": -1.0, "P_std": 0.7, "weighting": "uniform"}
            o = OBJECTIVES.call(name, {"f": f, "K": 100, **arguments})
            drawn.append([f.p.noise_level(t.double()) for t in o.draw_times(x, 90)])
        for mine, of_edm in zip(*drawn, strict=True):
            torch.testing.assert_close(mine, of_edm, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_a_weighting_of_times_says_so(weighting: str) -> None:
    """The others weigh one noise level alike in every process; all of them, the first time on."""
    p, q = EDM(T=20.0), TrigFlow()
    level = torch.tensor([0.3, 2.0])
    t, u = p.time_of_noise_level(level), q.time_of_noise_level(level)
    f = FlowMap(MLP((1,), width=4, blocks=1), q)
    found = WEIGHTINGS[weighting]()
    if found.of_time:
        with pytest.warns(FewstepWarning, match=f"weighting {weighting} is of times"):
            OBJECTIVES.call("ct", {"f": f, "K": 9, "weighting": weighting})
        assert not torch.allclose(found(t, t / 2, p), found(u, u / 2, q), rtol=0.01)
        return
    OBJECTIVES.call("ct", {"f": f, "K": 9, "weighting": weighting})
    if weighting not in ("likelihood", "inverse_spacing"):  # of g, and of the grid
        torch.testing.assert_close(found(t, t / 2, p), found(u, u / 2, q))
        assert bool(found(torch.tensor([q.T]), torch.tensor([0.1]), q).isfinite().all())


@pytest.mark.parametrize("D", [8.0, 64.0])
def test_pfgm_noise_is_a_student_variable(D: float) -> None:
    """``E|R|^2 = N D/(D - 2)`` in training and at T; the share within the median is a half."""
    p = PFGM(T=3.0, D=D)
    o = PFGMpp(network_map(p=p), 1)
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
