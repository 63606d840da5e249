"""Distillation methods on data whose PF-ODE is known."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.cli import run as fewstep
from fewstep.condition import NONE, Condition
from fewstep.data import Dataset
from fewstep.distances import DISTANCES
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, NETWORKS, FourierOperator, from_config
from fewstep.networks.dfno import TemporalFourier
from fewstep.objectives import DFNO, KD, PD, RF, Reflow
from fewstep.parameterization import EDM, Parameterization, RectifiedFlow, TrigFlow, expand
from fewstep.recipes import RECIPES
from fewstep.runs.execute import train
from fewstep.sampling import ODE, NestedDDIM, NoiseStreams, sample, sampler_for
from fewstep.schedules import HalvingN, karras_grid, nested_times
from fewstep.solvers import PHI, ddim_step, denoised_of_step
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer
from fewstep.weightings import WEIGHTINGS
from oracles import Exact, Gaussian, columns_for

PROCESSES: list[Parameterization] = [
    EDM(T=20.0, eps=0.0),
    TrigFlow(),
    RectifiedFlow(),
]
each_process = pytest.mark.parametrize("p", PROCESSES, ids=lambda p: type(p).__name__)


def tiny(num_classes: int = 0) -> FlowMap:
    torch.manual_seed(3)
    f = FlowMap(MLP((3,), num_classes=num_classes, width=8, blocks=1), EDM(T=20.0))
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return f


# Knowledge distillation


@each_process
def test_kd_vanishes_at_the_flow_and_nowhere_near(p: Parameterization) -> None:
    truth = Gaussian(p)
    z = torch.randn(64, 3, dtype=torch.float64)
    T, zero = torch.full((64,), p.T).double(), torch.zeros(64).double()
    x = truth.flow(p.prior(z), T, zero)
    f = Exact(truth, "generator")
    assert float(KD(f, 1)(x, 0, noise=z).max()) < 1e-12
    f.forward = lambda x, t, s=None, condition=NONE: truth.flow(x, T, zero) + 0.01
    assert float(KD(f, 1)(x, 0, noise=z).min()) > 9e-5


def test_kd_fits_the_linear_flow_of_a_gaussian() -> None:
    """The flow is linear, so that least squares on the loss's residual find it exactly."""
    p = EDM(T=20.0, eps=0.0)
    truth = Gaussian(p)
    z = torch.randn(256, 3, dtype=torch.float64)
    T, zero = torch.full((256,), p.T).double(), torch.zeros(256).double()
    x = truth.flow(p.prior(z), T, zero)
    a, b = (torch.nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))
    f = Exact(truth, "generator")
    f.forward = lambda x, t, s=None, condition=NONE: a * x / p.T + b
    optimizer = torch.optim.LBFGS([a, b], line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = KD(f, 1)(x, 0, noise=z).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    std = (truth.v / (truth.v + p.T**2)) ** 0.5
    assert float(a.detach()) == pytest.approx(std * p.T, rel=1e-5)
    assert float(b.detach()) == pytest.approx(truth.m * (1 - std), rel=1e-5)


# Progressive distillation


@each_process
def test_one_step_with_x_tilde_is_the_two_steps(p: Parameterization) -> None:
    truth = Gaussian(p)
    t, t_1, t_2 = (torch.full((32,), p.T * part).double() for part in (0.9, 0.5, 0.2))
    x = truth.sample(32, 3)
    x_1 = ddim_step(x, truth.denoise(x, t), t, t_1, p)
    x_2 = ddim_step(x_1, truth.denoise(x_1, t_1), t_1, t_2, p)
    x_tilde = denoised_of_step(x, x_2, t, t_2, p)
    torch.testing.assert_close(ddim_step(x, x_tilde, t, t_2, p), x_2)


def test_x_tilde_and_ddim_have_their_simple_form_in_edm() -> None:
    p, x, x_2, D = EDM(), *torch.randn(3, 8, 2).double()
    t, t_2 = torch.full((8,), 3.0).double(), torch.full((8,), 0.5).double()
    slope = (x_2 - x) / expand(t_2 - t, x)
    torch.testing.assert_close(denoised_of_step(x, x_2, t, t_2, p), x - expand(t, x) * slope)
    euler = PHI.build("euler").step(lambda x, t: p.velocity(x, D, t), x, t, t_2)
    torch.testing.assert_close(ddim_step(x, D, t, t_2, p), euler)


@each_process
def test_pd_has_its_minimum_where_one_step_is_two_of_the_exact_teacher(
    p: Parameterization,
) -> None:
    truth = Gaussian(p)
    f = Exact(truth, "diffusion")
    grid = nested_times(8, p).double()

    def student(x: Tensor, t: Tensor, s: Any = None, condition: Condition = NONE) -> Tensor:
        i = (grid[None] - t[:, None]).abs().argmin(1)
        assert (i % 2 == 0).all()
        t_1, t_2 = grid[i + 1], grid[i + 2]
        x_1 = ddim_step(x, truth.denoise(x, t), t, t_1, p)
        x_2 = ddim_step(x_1, truth.denoise(x_1, t_1), t_1, t_2, p)
        return denoised_of_step(x, x_2, t, t_2, p)

    o = PD(f, 100, teacher=Exact(truth, "diffusion"), start_steps=8, final_steps=4)
    at_teacher = float(o(truth.sample(64, 3), 0).mean())
    f.forward = student
    o.f.p = p
    # The grid of a loss in training is float32; here it is compared with the float64 one.
    assert float(o(truth.sample(64, 3), 0).max()) < 1e-8
    assert at_teacher > 1e-5


def test_a_student_of_every_round_samples_as_its_teacher_does() -> None:
    """A student with zero loss takes one step where the teacher takes two."""
    p = EDM(T=20.0)
    truth = Gaussian(p)
    f = Exact(truth, "diffusion")
    noise = NoiseStreams(0, range(16), (3,))
    grid = nested_times(4, p).double()
    x = p.prior(noise.normal().double())
    for t, s in pairwise(grid):
        x = ddim_step(x, truth.denoise(x, t.expand(16)), t.expand(16), s.expand(16), p)
    sampled = NestedDDIM(4)(f, NoiseStreams(0, range(16), (3,)))
    torch.testing.assert_close(sampled.double(), x, rtol=1e-5, atol=1e-5)


@each_process
def test_every_second_time_is_the_grid_of_half_the_steps(p: Parameterization) -> None:
    for N in (1, 2, 4, 8):
        torch.testing.assert_close(nested_times(2 * N, p)[::2], nested_times(N, p))


def test_the_rounds_and_their_lengths() -> None:
    N = HalvingN(16, 1, 600)
    assert N.rounds == [8, 4, 2, 1]
    counts = [[N(k) for k in range(600)].count(n) for n in N.rounds]
    assert counts == [100, 100, 200, 200]
    assert N(600) == N(5000) == 1
    for start, final in ((12, 1), (8, 8), (4, 8), (8, 0)):
        with pytest.raises(FewstepError, match="halves"):
            HalvingN(start, final, 10)


def test_every_round_is_a_training_of_its_own(tmp_path: Path) -> None:
    """The rate starts anew, and with an optimiser that has seen nothing."""
    N = HalvingN(8, 1, 20)
    assert [N.round_of(k) for k in (0, 3, 4, 11, 12, 19, 99)] == [
        (0, 4),
        (0, 4),
        (4, 12),
        (4, 12),
        (12, 20),
        (12, 20),
        (12, 20),
    ]
    config = Training(
        steps=20, batch=4, lr=1.0, decay="linear", optimizer="adam", sample_every=0, ema=(0.9,)
    )
    f = tiny()
    o = PD(f, 20, teacher=f.frozen_copy(), start_steps=8, final_steps=1)
    data = Dataset.from_arrays(torch.randn(40, 3), points=True)
    t = Trainer(o, data, config, tmp_path, quiet=True)
    rates, counts = [], []
    for k in range(20):
        t.step(k)
        rates.append(t.learners["f"].optimizer.lr)
        counts.append(int(next(iter(t.learners["f"].optimizer.state.values()))["step"]))
    assert rates[:4] == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])
    assert rates[4:12] == rates[12:] == pytest.approx([1 - j / 8 for j in range(8)])
    assert counts == [*range(1, 5), *range(1, 9), *range(1, 9)]


def test_the_student_becomes_the_teacher_between_rounds_alone() -> None:
    f = tiny()
    o = PD(f, 30, teacher=f.frozen_copy(), start_steps=8, final_steps=2)
    moved = []
    for k in range(30):
        with torch.no_grad():
            for parameter in f.parameters():
                parameter.add_(0.01)
        before = [q.clone() for q in o.teacher.parameters()]
        o.after_step(k)
        moved += [k] * any(
            not torch.equal(a, b) for a, b in zip(before, o.teacher.parameters(), strict=True)
        )
    assert moved == [9]
    assert not any(q.requires_grad for q in o.teacher.parameters())
    assert o.N(9) != o.N(10)


@pytest.mark.parametrize("more", ["two_time", "guidance_embedding"])
def test_a_student_that_is_told_more_becomes_the_teacher_too(more: str) -> None:
    teacher = tiny()
    f = FlowMap(MLP((3,), width=8, blocks=1, **{more: True}), teacher.p)
    o = PD(f, 30, teacher=teacher, start_steps=8, final_steps=2)
    x, t = torch.randn(16, 3), torch.full((16,), 2.0)
    assert torch.equal(o.teacher.D(x, t), teacher.D(x, t))
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.add_(0.01)
    o.after_step(9)
    assert torch.equal(o.teacher.D(x, t), f.D(x, t))


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
@pytest.mark.parametrize("distance", [name for name in DISTANCES if name != "lpips"])
def test_pd_gives_distances_and_weightings_only_what_they_take(
    distance: str, weighting: str
) -> None:
    f = tiny(num_classes=4)
    o = PD(f, 10, teacher=f.frozen_copy(), distance=distance, weighting=weighting)
    for k in (0, 5, 9):
        loss = o(torch.randn(6, 3), k, Condition(label=torch.arange(6) % 4))
        assert loss.shape == (6,)
        assert loss.isfinite().all()


def test_a_run_killed_in_any_round_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Training(steps=18, batch=8, checkpoint_every=2, sample_every=0, ema=(0.9,))
    data = Dataset.from_arrays(torch.randn(40, 3), points=True)

    def trainer(folder: Path) -> Trainer:
        f = tiny()
        o = PD(f, 18, teacher=f.frozen_copy(), start_steps=8, final_steps=1)
        return Trainer(o, data, config, folder, quiet=True)

    whole = trainer(tmp_path / "whole")
    whole.run()
    step = Trainer.step
    for death in (3, 5, 11):
        with monkeypatch.context() as patch:

            def die(self: Trainer, k: int, death: int = death) -> tuple[Tensor, Tensor]:
                if k == death:
                    raise KeyboardInterrupt
                return step(self, k)

            patch.setattr(Trainer, "step", die)
            with pytest.raises(KeyboardInterrupt):
                trainer(tmp_path / "cut").run()
    resumed = trainer(tmp_path / "cut")
    resumed.run()
    for name, f in whole.objective.changing().items():
        again = resumed.objective.changing()[name].parameters()
        assert all(torch.equal(a, b) for a, b in zip(f.parameters(), again, strict=True)), name


@pytest.mark.parametrize(("recipe", "steps"), [("digits/pd", 1), ("digits/pd2", 2)])
def test_a_pd_model_samples_in_its_own_steps_alone(
    recipe: str, steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run = {"steps": 6, "network__width": 8, "network__blocks": 1, "sample_every": 0}
    train(RECIPES["digits/edm"](**tiny_run), tmp_path / "edm", quiet=True, device="cpu")
    run = RECIPES[recipe](teacher=str(tmp_path / "edm"), **tiny_run)
    f = train(run, tmp_path / "pd", recipe=recipe, quiet=True, device="cpu")
    assert sampler_for(f, steps) == NestedDDIM(steps)
    assert sample(f, 3).shape == (3, 1, 8, 8)
    out, other = str(tmp_path / "x.png"), str(tmp_path / "cd")
    assert fewstep(["sample", str(tmp_path / "pd"), "-n", "2", "-o", out]) == 0
    assert f"{steps} network evaluation" in capsys.readouterr().out
    assert fewstep(["sample", str(tmp_path / "pd"), "--steps", "3", "-o", out]) == 2
    assert f"distilled for {steps} step" in capsys.readouterr().err
    assert fewstep(["train", "digits/cd", "--teacher", str(tmp_path / "pd"), "--out", other]) == 2
    assert "distilled itself" in capsys.readouterr().err


def test_a_distilled_model_refuses_what_needs_all_times() -> None:
    from fewstep.editing import decode, denoise, encode

    f = tiny()
    PD(f, 10, teacher=f.frozen_copy())
    x = torch.zeros(2, 3)
    with pytest.raises(FewstepError, match="its own process"):
        f.in_process(RectifiedFlow())
    for edit in (denoise, encode, decode):
        with pytest.raises(FewstepError, match="distilled for sampling in 1 step alone"):
            edit(f, x)


# Rectified flow


def test_the_1_rectified_flow_has_its_minimum_at_the_mean_velocity() -> None:
    """At the truth the loss is the variance of the lines' velocity; any shift of it adds."""
    truth = Gaussian(RectifiedFlow())
    x = truth.sample(40_000, 3)
    f = Exact(truth, "diffusion")
    losses = []
    for shift in (0.0, 0.1, -0.1):
        f.velocity = lambda x, t, condition=NONE, shift=shift: (
            truth.p.velocity(x, truth.denoise(x, t), t) + shift
        )
        torch.manual_seed(1)
        losses.append(float(RF(f, 1)(x, 0).mean()))
    assert losses[1] == pytest.approx(losses[0] + 0.01, abs=2e-3)
    assert losses[2] == pytest.approx(losses[0] + 0.01, abs=2e-3)


def test_times_and_weight_of_a_rectified_flow_are_options() -> None:
    """One time alone gives the variance of the velocity there, and a weight divides each error."""
    truth = Gaussian(RectifiedFlow())
    x, f = truth.sample(40_000, 3), Exact(truth, "diffusion")
    found = []
    for level in (0.25, 4.0):
        o = RF(f, 1, times=f"lognormal(P_mean={math.log(level)}, P_std=0)")
        torch.manual_seed(1)
        found.append(float(o(x, 0).mean()))
        t = torch.tensor([level / (1 + level)])
        v = truth.v  # of the data: z - x, given (1 - t) x + t z, has the variance v / (...)
        assert found[-1] == pytest.approx(float(v / ((1 - t) ** 2 * v + t**2)), rel=0.03)
    torch.manual_seed(1)
    square = RF(f, 1)(x, 0)
    torch.manual_seed(1)
    weighed = RF(f, 1, power=0.5, c=0.3)(x, 0)
    torch.testing.assert_close(weighed, square / (square + 0.3).sqrt())
    with pytest.raises(FewstepError, match="rf needs power >= 0 and c > 0"):
        RF(f, 1, power=-1.0)


def exact_pairs(n: int) -> tuple[Tensor, Tensor]:
    """Noise and samples of the exact flow of a Gaussian."""
    truth = Gaussian(RectifiedFlow())
    z = torch.randn(n, 3, dtype=torch.float64)
    one, zero = torch.ones(n).double(), torch.zeros(n).double()
    return z, truth.flow(z, one, zero)


class Straight(Exact):
    """The 2-rectified flow of a Gaussian: the lines from ``z`` to ``m + sqrt(v) z`` do not cross.

    ``x_t = (1 - t) (m + sqrt(v) z) + t z`` gives ``z`` and with it the velocity ``z - x``.
    """

    def velocity(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        t = expand(self.time(t, x), x)
        m, std = self.truth.m, self.truth.v**0.5
        z = (x - (1 - t) * m) / ((1 - t) * std + t)
        return z - (m + std * z)

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        return x - expand(self.time(t, x), x) * self.velocity(x, t)


def test_reflow_vanishes_at_the_straight_flow_of_the_pairs() -> None:
    z, x = exact_pairs(500)
    straight = Straight(Gaussian(RectifiedFlow()), "diffusion")
    assert float(Reflow(straight, 1)(x, 0, noise=z).max()) < 1e-12
    curved = Exact(Gaussian(RectifiedFlow()), "diffusion")
    assert float(Reflow(curved, 1)(x, 0, noise=z).mean()) > 1e-3


def test_one_euler_step_solves_a_straight_flow_and_not_the_first() -> None:
    """The straightness of the flow: an Euler step of length 1 against many of them."""
    truth = Gaussian(RectifiedFlow())
    straight, curved = Straight(truth, "diffusion"), Exact(truth, "diffusion")

    def gap(f: FlowMap) -> float:
        one, many = (
            ODE(N, "euler")(f, NoiseStreams(0, range(64), (3,))).double() for N in (1, 200)
        )
        return float((one - many).abs().max())

    assert gap(straight) < 3e-5
    assert gap(curved) > 0.3


def test_the_solver_of_a_rectified_flow_makes_equal_steps() -> None:
    for N in (1, 2, 5):
        times = ODE(N).times(RectifiedFlow())
        assert times == pytest.approx([1 - i / N for i in range(N + 1)], abs=1e-7)
    grid = karras_grid(3, EDM(T=20.0)).flip(0).tolist()
    assert ODE(3).times(EDM(T=20.0))[:3] == pytest.approx(grid)


# DFNO


@pytest.mark.parametrize(("M", "modes"), [(4, None), (5, None), (4, 2), (6, 1), (1, None)])
def test_the_temporal_layer_is_a_discrete_fourier_transform(M: int, modes: int | None) -> None:
    """Against the transform written out as a sum over times and (signed) frequencies."""
    layer = TemporalFourier(3, M, modes)
    torch.nn.init.normal_(layer.R)
    h = torch.randn(2, M, 3, 4)
    u = torch.nn.functional.silu(h).to(torch.complex64)
    R = torch.complex(*layer.R.detach().chunk(2))
    expected = torch.zeros(2, M, 3, 4, dtype=torch.complex64)
    for frequency in range(-((M - 1) // 2), M // 2 + 1):
        if abs(frequency) >= len(R):
            continue
        wave = torch.exp(-2j * torch.pi * frequency * torch.arange(M) / M)
        transformed = torch.einsum("m,bmcx->bcx", wave, u)
        kernel = R[abs(frequency)] if frequency >= 0 else R[abs(frequency)].conj()
        mixed = torch.einsum("bcx,co->box", transformed, kernel)
        back = torch.einsum("m,box->bmox", wave.conj() / M, mixed)
        # At frequency 0 and at half the times, which is its own negative, the real part counts.
        expected += back.real if frequency in (0, M / 2) else back
    assert float(expected.imag.abs().max()) < 1e-5
    torch.testing.assert_close(layer(h).detach(), h + expected.real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("base", ["mlp(width=16, blocks=2)", "unet(channels=8, blocks=1)"])
def test_a_fourier_operator_starts_as_its_base_and_then_couples_the_times(base: str) -> None:
    F = FourierOperator((1, 8, 8), num_classes=3, base=base, times=4).eval()
    for name, parameter in F.named_parameters():
        if not name.endswith(".R"):
            torch.nn.init.normal_(parameter, std=0.1)
    x, c, label = torch.randn(2, 1, 8, 8), torch.randn(2), torch.tensor([0, 2])
    whole = F.trajectory(x, c, label)
    assert whole.shape == (2, 4, 1, 8, 8)
    plain = NETWORKS.build(base, shape=(1, 8, 8), num_classes=3, two_time=True).eval()
    own = {k: v for k, v in F.base.state_dict().items() if not k.endswith(".R")}
    plain.load_state_dict({k.replace(".block.", "."): v for k, v in own.items()})
    for j in range(4):
        alone = plain(x, c, label=label, c_noise_s=torch.full((2,), (j + 1) / 4))
        torch.testing.assert_close(whole[:, j], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(F(x, c, label), whole[:, -1])
    layers = [part for part in F.modules() if isinstance(part, TemporalFourier)]
    assert len(layers) >= 2
    for layer in layers:
        torch.nn.init.normal_(layer.R, std=0.1)
    assert not torch.allclose(F.trajectory(x, c, label), whole)
    rebuilt = from_config(F.config)
    rebuilt.load_state_dict(F.state_dict())
    assert torch.equal(rebuilt.eval()(x, c, label), F(x, c, label))


def test_dfno_vanishes_at_the_trajectory() -> None:
    """A network with the exact denoised of each interval has no loss, and the image is the flow."""
    p = EDM(T=20.0, eps=0.0)
    truth = Gaussian(p)
    s = torch.tensor([5.0, 1.0, 0.2, 0.0]).double().expand(32, 4)
    z = torch.randn(32, 3).double()
    x_T, T = p.prior(z), torch.full((32,), p.T).double()
    states = torch.stack([truth.flow(x_T, T, s[:, j]) for j in range(4)], 1)
    f = FlowMap(FourierOperator((3,), base="mlp(width=4, blocks=1)"), p).double()
    o = DFNO(f, 1)

    def exact(x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        g = [denoised_of_step(x_T, states[:, j], T, s[:, j], p) for j in range(4)]
        c_skip, c_out = p.c_skip(T, 0 * T)[:, None], p.c_out(T, 0 * T)[:, None]
        return torch.stack([(value - c_skip * x_T) / c_out for value in g], 1)

    given = {"noise": z, "trajectory": states, "times": s}
    assert float(o(states[:, -1], 0, **given).detach().min()) > 1e-2
    f.F.trajectory = exact
    assert float(o(states[:, -1], 0, **given).max()) < 1e-5
    torch.testing.assert_close(f(x_T, p.T), states[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("largest", [1e4, 10.0])
def test_dfno_weighs_a_state_by_its_bounded_signal(largest: float) -> None:
    """``mean_j clamp(alpha / sigma, 1, largest) l1``, with the last state at the data itself."""
    p = EDM(T=20.0, eps=0.0)
    f = FlowMap(FourierOperator((3,), base="mlp(width=4, blocks=1)"), p)
    s = torch.tensor([5.0, 0.5, 1e-3, 0.0]).expand(6, 4)
    z, wanted = torch.randn(6, 3), torch.randn(6, 4, 3)
    o = DFNO(f, 1, largest=largest)
    found = o(wanted[:, -1], 0, noise=z, trajectory=wanted, times=s)
    gaps = (o.trajectory(p.prior(z), s) - wanted).abs().mean(-1)
    weights = torch.tensor([1.0, 2.0, min(1000.0, largest), largest])
    torch.testing.assert_close(found, (gaps * weights).mean(1))


def test_dfno_asks_for_its_network_and_its_times() -> None:
    p = EDM(T=20.0, eps=0.0)
    with pytest.raises(FewstepError, match="network dfno"):
        DFNO(FlowMap(MLP((3,)), p), 1)
    F = FourierOperator((3,), base="mlp(width=4, blocks=1)", times=3)
    with pytest.raises(FewstepError, match="eps=0"):
        DFNO(FlowMap(F, EDM()), 1)
    x = torch.randn(5, 3)
    columns = columns_for(DFNO.needs.columns, x)
    with pytest.raises(FewstepError, match=r"3 times.*4: set network.times=4"):
        DFNO(FlowMap(F, p), 1)(x, 0, **columns)
    with pytest.raises(FewstepError, match="mlp or a unet"):
        FourierOperator((3, 16, 16), base="adm(channels=32, head_channels=32)")
