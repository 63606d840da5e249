"""What grew from consistency models of one time: TCM, stable tuning, multistep, CMT, LCM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import fewstep
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import towards
from fewstep.networks import MLP
from fewstep.objectives import (
    CMT,
    ECT,
    LCM,
    TCM,
    MultistepCD,
    MultistepCT,
    StableConsistencyTuning,
)
from fewstep.objectives.multistep import adjusted_ddim
from fewstep.objectives.stable_ct import posterior_mean
from fewstep.parameterization import EDM, CosineVP, DiscreteVP, Parameterization, RectifiedFlow
from fewstep.recipes import RECIPES
from fewstep.runs.execute import train
from fewstep.sampling.jumps import default_taus
from fewstep.schedules import GeometricN, SigmoidGap, StudentT, nested_times
from fewstep.solvers import SOLVERS, Denoiser, ddim_step
from fewstep.testing.fitting import random
from fewstep.trained import CONSISTENCY, DIFFUSION
from oracles import Exact, Gaussian, slope

TO_ZERO = EDM(T=20.0, eps=0.0)
TINY: dict[str, Any] = {"steps": 1, "network__width": 16, "samples": 4, "checkpoint_every": 1}


def network_map(p: Parameterization = TO_ZERO, seed: int = 0, **network: Any) -> FlowMap:
    torch.manual_seed(seed)
    return FlowMap(random(MLP((3,), width=16, blocks=1, **network)), p)


# Gaps and times


def test_a_gap_is_constant_or_stays_at_a_limit() -> None:
    n = torch.tensor([0.5, 2.0, 30.0])
    constant = SigmoidGap(100, stages=1, q=256.0)
    assert torch.equal(constant(n, 0), constant(n, 99))
    torch.testing.assert_close(constant(n, 0), n * (1 - (1 + 8 * torch.sigmoid(-n)) / 256))
    limited = SigmoidGap(100, stages=10, q=4.0, cap=0.9961)
    torch.testing.assert_close(
        limited(n, 99), n * (1 - (1 + 8 * torch.sigmoid(-n)) * (1 - 0.9961)), rtol=1e-5, atol=0
    )
    assert torch.equal(limited(n, 0), SigmoidGap(100, stages=10, q=4.0)(n, 0))
    with pytest.raises(FewstepError, match="cap"):
        SigmoidGap(100, cap=1.5)


@pytest.mark.parametrize("p", [TO_ZERO, RectifiedFlow(), CosineVP()])
def test_late_times_are_of_a_truncated_t_distribution(p: Parameterization) -> None:
    torch.manual_seed(0)
    level = p.noise_level(StudentT(df=0.5, scale=0.7, least=0.8).sample(torch.zeros(20_000), p))
    most = min(float(p.noise_level(torch.tensor(p.T, dtype=torch.float64))), 1e3)
    assert float(level.min()) >= 0.8 * (1 - 1e-4)

    def below(n: Tensor) -> Any:
        ends, law = torch.tensor([0.8, most]).log().numpy(), stats.t(0.5, scale=0.7)
        low, high = law.cdf(ends)
        return (law.cdf(n.log().numpy()) - low) / (high - low)

    for n in (1.0, 2.0, 8.0):
        part = float((level < n).float().mean())
        assert part == pytest.approx(float(below(torch.tensor(n))), abs=0.012)
    with pytest.raises(FewstepError, match="and the process ends at 20"):
        StudentT(least=30.0).sample(torch.zeros(2), TO_ZERO)


def test_grid_sizes_grow_evenly_in_their_logarithm() -> None:
    N = GeometricN(64, 1024, 100)
    assert [N(k) for k in (0, 25, 50, 100, 500)] == [64, 128, 256, 1024, 1024]


# TCM


def truncated(**settings: Any) -> tuple[TCM, FlowMap]:
    teacher = network_map(seed=1)
    teacher.trained = CONSISTENCY
    return TCM(network_map(), 100, teacher=teacher, distance="l2", **settings), teacher


def test_below_its_start_a_truncated_model_follows_the_first_stage() -> None:
    """One row on either side; whichever model the target is not of does not matter."""
    o, teacher = truncated(boundary=0.0)
    x, t, r = torch.randn(2, 3), torch.tensor([1.5, 1.5]), torch.tensor([0.9, 1.1])
    z = torch.randn(2, 3)

    def loss() -> Tensor:
        torch.manual_seed(4)
        return o.loss_at(x, t, r)

    torch.manual_seed(4)
    z = torch.randn_like(x)
    f, p = o.f, o.f.p
    target = torch.stack([teacher(p.diffuse(x, r, z), r)[0], f(p.diffuse(x, r, z), r)[1]])
    expected = (f(p.diffuse(x, t, z), t) - target).square().mean(1) / (t - r)
    torch.testing.assert_close(loss(), expected)


def test_a_part_of_the_batch_is_at_the_boundary_and_has_a_mean_of_its_own() -> None:
    o, _ = truncated(boundary=0.25, boundary_weight=0.1)
    torch.manual_seed(0)
    t, r = o.draw_times(torch.zeros(16, 3), 0)
    assert torch.equal(t[:4], torch.ones(4))
    assert bool((r[:4] < 1).all())
    assert bool((t[4:] > 1).all())
    loss = torch.arange(16.0)
    whole = float((loss * o._shares(loss)).mean())
    assert whole == pytest.approx(float(loss[4:].mean() + 0.1 * loss[:4].mean()))


def test_a_truncated_model_is_sampled_from_its_start_on_alone(tmp_path: Path) -> None:
    f = truncated()[0].f
    assert f.trained.earliest == 1.0
    assert min(default_taus(f, 4)) >= 1.0
    assert len(default_taus(f, 4)) == 3
    f.save(tmp_path / "f.safetensors")
    f = FlowMap.load(tmp_path / "f.safetensors")
    assert fewstep.sample(f, n=2, sampler="jumps(times=(1.0,))").shape == (2, 3)
    with pytest.raises(FewstepError, match=r"start at times from 1 on, and not at 0\.5"):
        fewstep.sample(f, n=2, sampler="jumps(times=(0.5,))")
    with pytest.raises(FewstepError, match="learned those from time 1 on alone"):
        f.trained.check_maps("inpainting")
    with pytest.raises(FewstepError, match="is a consistency model of times from 1 on"):
        f.trained.check_time_points("this")
    moved = f.in_process(RectifiedFlow())
    assert moved.trained.earliest == pytest.approx(0.5)


def test_a_truncated_model_refines_a_consistency_model(tmp_path: Path) -> None:
    for name in ("edm", "ect"):
        teacher = {"teacher": str(tmp_path / "edm")} if name == "ect" else {}
        train(RECIPES[f"digits/{name}"](**TINY, **teacher), tmp_path / name, quiet=True)
    with pytest.raises(FewstepError, match="is a diffusion model; a consistency model of all"):
        train(
            RECIPES["digits/tcm"](**TINY, teacher=str(tmp_path / "edm")),
            tmp_path / "wrong",
            quiet=True,
        )
    tcm = RECIPES["digits/tcm"](**TINY, teacher=str(tmp_path / "ect"), lr=1e-12)
    f = train(tcm, tmp_path / "tcm", quiet=True)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 5.0])
    first = fewstep.open_model(tmp_path / "ect")
    torch.testing.assert_close(f(x, t), first(x, t), atol=1e-5, rtol=1e-4)
    with pytest.raises(FewstepError, match="start, a noise level, must lie inside"):
        truncated(start=50.0)


def test_weights_are_enough_where_no_teacher_is_followed(tmp_path: Path) -> None:
    """ECT goes on from a model that CMT made, which is no diffusion model."""
    train(RECIPES["digits/edm"](**TINY), tmp_path / "edm", quiet=True)
    cmt = RECIPES["digits/cmt"](**TINY, teacher=str(tmp_path / "edm"))
    first = train(cmt, tmp_path / "cmt", quiet=True)
    ect = RECIPES["digits/cmt-ect"](**TINY, init=str(tmp_path / "cmt"), lr=1e-12)
    f = train(ect, tmp_path / "ect", quiet=True)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 5.0])
    torch.testing.assert_close(f(x, t), first(x, t), atol=1e-5, rtol=1e-4)
    with pytest.raises(FewstepError, match="say which with --teacher RUN"):
        train(RECIPES["digits/cd"](**TINY, init=str(tmp_path / "cmt")), tmp_path / "x", quiet=True)


# Stable consistency tuning


@pytest.mark.parametrize("p", [TO_ZERO, CosineVP(eps=0.0)])
def test_the_mean_of_a_batch_is_its_denoiser(p: Parameterization) -> None:
    """Against the weights of the Gaussians themselves; images of other classes have none."""
    torch.manual_seed(0)
    x, z = torch.randn(2, 6, 3, dtype=torch.float64)
    t = torch.linspace(0.3, 0.9, 6, dtype=torch.float64)
    label = torch.tensor([0, 0, 1, 1, 2, 2])  # of two classes: 2 is none
    x_t = p.diffuse(x, t, z)
    found = posterior_mean(x_t, t, x, p, label, 2)
    for i in range(6):
        mine = (label == label[i]) | (label[i] == 2)
        law = torch.distributions.Normal(p.alpha(t[i]) * x[mine], p.sigma(t[i]))
        W = law.log_prob(x_t[i]).sum(1).softmax(0)
        torch.testing.assert_close(found[i], W @ x[mine])


def test_stable_tuning_follows_the_pf_ode_of_a_large_batch() -> None:
    """At the exact map its two ends differ in second order of the gap, those of ECT in first."""
    truth = Gaussian(EDM(T=20.0, eps=0.0))
    f, x = Exact(truth, "consistency", dim=1), truth.sample(2048, 1)
    z, t = torch.randn_like(x), torch.full((2048,), 1.5, dtype=torch.float64)
    gaps, orders = (0.4, 0.2, 0.1), {}
    for kind in (StableConsistencyTuning, ECT):
        o, found = kind(f, 10), []
        for h in gaps:
            r = (1 - h) * t
            _, x_r = o.before(x, z, t, r, NONE)
            gap = f(truth.p.diffuse(x, t, z), t) - f(x_r, r)
            found.append(float(gap.square().mean().sqrt()))
        orders[kind] = slope(list(gaps), found)
    assert orders[StableConsistencyTuning] == pytest.approx(2.0, abs=0.3)
    assert orders[ECT] == pytest.approx(1.0, abs=0.3)


def test_a_batch_of_one_image_is_plain_easy_tuning() -> None:
    """To rounding; of several images the loss is another."""
    f = network_map().double()
    for n, same in ((1, True), (8, False)):
        x, found = torch.randn(n, 3, dtype=torch.float64), []
        t = torch.linspace(0.5, 5, n, dtype=torch.float64)
        for cls in (ECT, StableConsistencyTuning):
            torch.manual_seed(1)
            found.append(cls(f, 100, distance="l2").loss_at(x, t, 0.8 * t))
        assert torch.allclose(*found, rtol=1e-8) == same


# Multistep consistency models


def test_an_adjusted_step_makes_up_for_lost_variance() -> None:
    """Without variance it is DDIM; with that of Gaussian data the points keep their law."""
    torch.manual_seed(0)
    p, v = TO_ZERO, 0.7
    t, s = (torch.full((2000,), value, dtype=torch.float64) for value in (3.0, 2.0))
    x, z = (torch.randn(2000, 50, dtype=torch.float64) for _ in range(2))
    x_t = p.diffuse(v**0.5 * x, t, z)
    D = v / (v + t[:, None] ** 2) * x_t
    none = torch.zeros_like(t)
    torch.testing.assert_close(
        adjusted_ddim(x_t, D, t, s, p, none), ddim_step(x_t, D, t, s, p), rtol=1e-9, atol=1e-9
    )
    variance = v * t**2 / (v + t**2)
    exact = float(v + s[0] ** 2)
    short, right = (float(adjusted_ddim(x_t, D, t, s, p, lost).var()) for lost in (none, variance))
    assert abs(right - exact) < 0.2 * abs(short - exact)


def test_segments_of_one_step_are_the_teacher() -> None:
    """Then the target is the denoiser that leads where aDDIM does: here the teacher's."""
    teacher = network_map(EDM(T=20.0), seed=1)
    teacher.trained = DIFFUSION
    settings: dict[str, Any] = {"S": 4, "N_start": 4, "N_end": 4, "anneal": 1, "eta": 0.0}
    o = MultistepCD(network_map(EDM(T=20.0)), 10, teacher=teacher, **settings).double()
    o.d, o.lambda_ = fewstep.distances.L2(), lambda t, s, p: torch.ones_like(t)
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64)
    t, s, end = o.draw_times(x, 0)
    assert torch.equal(s, end)
    torch.manual_seed(3)
    x_t = o.f.p.diffuse(x, t, torch.randn_like(x))
    expected = (o.f.D(x_t, t) - o.teacher.D(x_t, t)).square().mean(1)
    torch.manual_seed(3)
    torch.testing.assert_close(o.loss_at(x, t, s, end), expected, rtol=1e-6, atol=1e-9)


def test_a_training_that_ends_before_its_grid_has_grown_says_so() -> None:
    (said,) = MultistepCT(network_map(), 2000).remarks()
    assert "grows to 1,280 steps over the first 100,000" in said
    assert "this one of 2,000 ends with 68: give --objective.anneal 1000" in said
    assert not [*MultistepCT(network_map(), 2000, anneal=2000).remarks()]
    assert not [*MultistepCT(network_map(), 2000, N_end=64).remarks()]


@pytest.mark.parametrize("uniform", [False, True])
def test_multistep_models_are_sampled_from_segment_to_segment(uniform: bool) -> None:
    p = CosineVP(prediction="v", time_scale=1.0)
    o = MultistepCT(network_map(p), 10, S=3, uniform=uniform)
    t, s, end = o.draw_times(torch.zeros(500, 3), 0)
    ends = nested_times(3, p, uniform=uniform).to(t.dtype)
    assert bool((s < t).all())
    assert bool((end <= s).all())
    torch.testing.assert_close(end.unique(), ends[1:].flip(0), rtol=1e-4, atol=1e-6)
    assert o.loss_at(torch.randn(500, 3), t, s, end).isfinite().all()
    x = fewstep.sample(o.f, n=2, seed=0)
    assert o.f.trained.steps == 3
    assert x.isfinite().all()
    with pytest.raises(FewstepError, match="distilled for 3 steps"):
        fewstep.sample(o.f, n=2, steps=2)
    with pytest.raises(FewstepError, match="needs 1 <= S <= N_start"):
        MultistepCT(network_map(p), 10, S=100)


# Mid-training


def test_mid_training_walks_as_the_solver_does() -> None:
    p = EDM(T=20.0)
    teacher = network_map(p, seed=1, num_classes=3).double()
    teacher.trained = DIFFUSION
    o = CMT(network_map(p, num_classes=3).double(), 10, teacher=teacher, N=5)
    x, label = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 2])
    torch.manual_seed(2)
    states, end = o.walked(x, Condition(label))
    solver = SOLVERS.build("dpmpp_2m")
    torch.manual_seed(2)
    x_T = p.diffuse(x, torch.full((2,), p.T, dtype=torch.float64), torch.randn_like(x))
    denoiser = Denoiser(p, lambda x, t: teacher.D(x, t, label=label))
    times = [level.t for level in o.levels]
    walked = list(solver.walk(denoiser, x_T, times, [1] * 5, lambda: x_T))
    torch.testing.assert_close(states[1:], torch.stack(walked[:-1]))
    torch.testing.assert_close(end, walked[-1])
    assert (len(states), times[0], times[-1]) == (5, p.T, p.t_min)


def test_mid_training_vanishes_at_the_exact_map_with_the_order_of_its_solver() -> None:
    """DPM-Solver++(2M) is of order 2, and so is the distance of its end to that of the PF-ODE."""
    truth = Gaussian(EDM(T=20.0))
    x, steps, found = truth.sample(512, 3), (16, 32, 64), []
    for N in steps:
        o = CMT(Exact(truth, "consistency"), 10, teacher=Exact(truth, "diffusion"), N=N)
        torch.manual_seed(0)
        found.append(float(o(x, 0).mean().sqrt()))
    assert slope(list(map(float, steps)), found) == pytest.approx(-2.0, abs=0.3)
    moved = Exact(Gaussian(EDM(T=20.0), m=truth.m + 0.1), "consistency")
    wrong = CMT(moved, 10, teacher=Exact(truth, "diffusion"), N=64)
    assert float(wrong(x, 0).mean().sqrt()) > 10 * found[-1]


def test_every_state_of_every_walk_is_trained_on_with_its_own_class() -> None:
    teacher = network_map(TO_ZERO, num_classes=3)
    teacher.trained = DIFFUSION
    o, seen = CMT(network_map(num_classes=3), 10, teacher=teacher, N=4), []
    forward = FlowMap.forward

    def recorded(self: FlowMap, x: Tensor, t: Any, s: Any = None, condition: Any = NONE) -> Tensor:
        if self is o.f:
            seen.extend(zip(t.tolist(), condition.label.tolist(), strict=True))
        return forward(self, x, t, s, condition)

    label = torch.tensor([2, 1] + [0] * 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowMap, "forward", recorded)
        o(torch.randn(8, 3), 0, Condition(label))
    assert len(set(seen)) == 8
    assert {c for _, c in seen} == {1, 2}
    with pytest.raises(FewstepError, match="at least one step"):
        CMT(network_map(), 10, teacher=network_map(), N=0)


# Latent consistency


def test_a_guided_step_over_skipped_steps_is_the_target() -> None:
    p = DiscreteVP(T=0.995, prediction="v", time_scale=1.0)
    network: dict[str, Any] = {"num_classes": 3, "label_dropout": 0.1}
    teacher = network_map(p, seed=1, **network).double()
    teacher.trained = replace(DIFFUSION, null_class=True)
    f = network_map(p, guidance_embedding=True, num_classes=3).double()
    o = LCM(f, 10, teacher=teacher, guidance_range=(3.0, 15.0), distance="l2", weighting="uniform")
    assert f.trained.weights == (3.0, 15.0)
    x, label = torch.randn(64, 3, dtype=torch.float64), torch.arange(64) % 3
    short = LCM(network_map(replace(p, T=0.79)), 10, teacher=network_map(replace(p, T=0.79)))
    late, early = short.draw_times(torch.zeros(500, 3), 0)
    assert bool((early < late).all())
    assert float(late.max()) == pytest.approx(0.79)
    t, s = o.draw_times(x, 0)
    assert bool(((t * 1000 / 20 - (t * 50).round()).abs() < 0.3).all())
    assert bool((t - s <= 0.02 + 1e-9).all())
    w = torch.linspace(3, 15, 64, dtype=torch.float64)
    condition = Condition(label, w=w)
    torch.manual_seed(5)
    found = o.loss_at(x, t, s, condition=condition)
    torch.manual_seed(5)
    x_t = p.diffuse(x, t, torch.randn_like(x))
    D = towards(teacher.D(x_t, t), teacher.D(x_t, t, label=label), w)
    x_s = ddim_step(x_t, D, t, s, p)
    expected = (f(x_t, t, None, condition) - f(x_s, s, None, condition)).square().mean(1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"skip": 30}, "skip must divide the 1000 steps"),
        ({"mu": 1.0}, "0 <= mu < 1"),
        ({"guidance_range": (1.0, 3.0)}, "guidance_embedding"),
        ({"guidance": 2.0}, "class"),
    ],
)
def test_what_a_latent_distillation_refuses(settings: dict[str, Any], hint: str) -> None:
    p = DiscreteVP()
    teacher = network_map(p, num_classes=3)
    teacher.trained = DIFFUSION
    with pytest.raises(FewstepError, match=hint):
        LCM(network_map(p, num_classes=3), 10, teacher=teacher, **settings)
    with pytest.raises(FewstepError, match="lcm needs the process vp_discrete, not edm"):
        LCM(network_map(), 10, teacher=network_map())
