"""The losses of flow maps, against closed forms and their limits."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep
from fewstep.condition import NONE, Condition
from fewstep.data import Dataset
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, NETWORKS
from fewstep.objectives import OBJECTIVES, Objective, TeacherUse
from fewstep.objectives.flow_maps import FlowMapObjective, mean_velocity
from fewstep.objectives.guided import Folded
from fewstep.objectives.imm import by_class, discrepancy
from fewstep.parameterization import EDM, RectifiedFlow, expand, match
from fewstep.recipes import RECIPES, Run
from fewstep.runs.components import make_p
from fewstep.runs.execute import train
from fewstep.runs.step import evaluations
from fewstep.schedules import TIME_PAIRS, ExponentialFall, SigmoidFall
from fewstep.testing import Gaussian
from fewstep.testing.fitting import random
from fewstep.tracing import as_graph
from fewstep.trained import DIFFUSION

P = RectifiedFlow(sigma_data=0.7)
TRUTH = Gaussian(P, 0.3, 0.49)


def uses_two_times(run: Run) -> bool:
    return issubclass(OBJECTIVES[run.objective.name], FlowMapObjective)


NAMES = [n for n in OBJECTIVES if issubclass(OBJECTIVES[n], FlowMapObjective)]


class Bent(FlowMap):
    """The flow of a Gaussian, with ``u`` wrong by ``a (t - s)``: right on the diagonal alone."""

    def __init__(self, a: float = 0.0) -> None:
        super().__init__(MLP((3,), width=4, blocks=1, two_time=True), P)
        self.F.a = nn.Parameter(torch.tensor(a))
        self.double()

    def prediction(self, x: Tensor, t: Any, s: Any = None, condition: Condition = NONE) -> Tensor:
        t = self.time(t, x)
        s = t if s is None else self.time(s, x)
        gap, t_ = expand(t - s, x), expand(t, x)
        velocity = P.velocity(x, TRUTH.denoise(x, t), t)
        far = gap > 1e-9
        moved = (x - TRUTH.flow(x, t, s)) / torch.where(far, gap, 1.0)
        a: Any = self.F.a
        return torch.where(far, moved, velocity + 0 * t_) + a * gap

    def forward(
        self, x: Tensor, t: Any, s: Any = None, condition: Condition = NONE, **other: Any
    ) -> Tensor:
        t, s = self.time(t, x), self.time(0.0 if s is None else s, x)
        return x - expand(t - s, x) * self.prediction(x, t, s, condition)


def built(name: str, f: FlowMap, teacher: FlowMap | None = None, **settings: Any) -> Any:
    if OBJECTIVES[name].needs.teacher is TeacherUse.DISTIL:
        settings["teacher"] = f.frozen_copy() if teacher is None else teacher
        settings["teacher"].trained = DIFFUSION
    return OBJECTIVES[name](f, 100, **settings)


OFF_DIAGONAL: dict[str, dict[str, Any]] = {
    "meanflow": {"apart": 1.0, "power": 0.0},
    "imf": {"apart": 1.0, "power": 0.0},
    "alphaflow": {"apart": 1.0, "power": 0.0},
    "soflow": {"apart": 1.0, "power": 0.0},
    "flow_map_matching": {"apart": 1.0},
    "imm": {"k": 11},
    "ctm": {"most": 2, "dsm": 0.0},
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, OFF_DIAGONAL.get(name, {})) for name in NAMES]
    + [("flow_map_matching", {"apart": 1.0, "by": by}) for by in ("eulerian", "progressive")],
)
def test_the_gradient_leads_back_to_the_flow(name: str, settings: dict[str, Any]) -> None:
    """Of a map that is wrong off the diagonal, from either side."""
    torch.manual_seed(0)
    x = TRUTH.sample(4096, 3)
    for a in (0.5, -0.5):
        f = Bent(a)
        o = built(name, f, Bent(), **settings)
        o(x, 90).mean().backward()
        gradient: Any = f.F.a.grad  # type: ignore[union-attr]
        assert float(gradient) * a > 0, (name, a, float(gradient))


def test_the_mean_velocity_of_any_preconditioning_is_that_of_the_map() -> None:
    """Also of a diffusion model's network on straight lines; on the diagonal it is the velocity."""
    torch.manual_seed(0)
    F = MLP((3,), width=16, blocks=1, two_time=True)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, t = torch.randn(8, 3, dtype=torch.float64), torch.linspace(0.2, 0.9, 8, dtype=torch.float64)
    s = t / 3
    for p in (
        RectifiedFlow(),
        RectifiedFlow(second="gap"),
        match(EDM(form="ddim"), P, form="ddim"),
    ):
        f = FlowMap(F, p).double()
        u = mean_velocity(f, x, t, s)
        torch.testing.assert_close(f(x, t, s), x - expand(t - s, x) * u)
        torch.testing.assert_close(mean_velocity(f, x, t), f.velocity(x, t))
    plain = FlowMap(F, RectifiedFlow()).double()
    torch.testing.assert_close(mean_velocity(plain, x, t, s), plain.prediction(x, t, s))


@pytest.mark.parametrize("how", ["forward", "difference"])
def test_the_end_of_the_flow_moves_with_the_velocity_there(how: str) -> None:
    torch.manual_seed(0)
    x, t = torch.randn(16, 3, dtype=torch.float64), torch.linspace(0.2, 1, 16, dtype=torch.float64)
    for s in (t / 2, t, torch.zeros_like(t) + 1e-3):
        X, moving = Bent().rate(x, t, s, how=how)
        torch.testing.assert_close(X, TRUTH.flow(x, t, s))
        velocity = P.velocity(X, TRUTH.denoise(X, s), s)
        exact = how == "forward" and bool((s < t).all())
        tolerance = 1e-9 if exact else 2e-2 if bool((s == t).all()) else 1e-4
        torch.testing.assert_close(moving, velocity, rtol=tolerance, atol=tolerance)


SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"width": 8, "blocks": 1},
    "unet": {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (4,), "dropout": 0.0},
    "dit": {"width": 16, "blocks": 1, "heads": 2, "patch": 2},
}


@pytest.mark.parametrize("network", SMALL)
def test_gradients_go_through_the_derivative(network: str) -> None:
    """That of ``dX/ds`` by a weight against a difference, in every kind of network."""
    torch.manual_seed(0)
    shape = (1, 4, 4)
    F = NETWORKS[network](shape, two_time=True, **SMALL[network])
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    f = FlowMap(F, P).double()
    x, h = torch.randn(2, *shape, dtype=torch.float64), 1e-5
    t, s = torch.tensor([0.9, 0.5]).double(), torch.tensor([0.2, 0.1]).double()

    def square() -> Tensor:
        return f.rate(x, t, s)[1].square().sum()

    square().backward()
    weight = next(w for w in f.F.parameters() if w.ndim == 2 and w.grad is not None)
    assert weight.grad is not None
    i = int(weight.grad.abs().argmax())
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            weight.view(-1)[i] += sign * h
            values.append(float(square()))
            weight.view(-1)[i] -= sign * h
    slope = (values[0] - values[1]) / (2 * h)
    assert float(weight.grad.view(-1)[i]) == pytest.approx(slope, rel=1e-4)


def test_alpha_flow_and_soflow_become_mean_flow() -> None:
    """What their targets move ``u`` by, over the gap, is MeanFlow's as the gap closes."""
    torch.manual_seed(0)
    f = Bent(0.5)
    x, z = TRUTH.sample(64, 3), torch.randn(64, 3, dtype=torch.float64)
    t, s = torch.full((64,), 0.8).double(), torch.full((64,), 0.3).double()
    x_t, v = P.draw(x, t, z)
    g = f.tangent(x_t, t, s, v)[1]
    u = mean_velocity(f, x_t, t, s)
    errors = []
    for gap in (0.02, 0.01):
        m = t - gap * (t - s)
        x_m = x_t - expand(t - m, x) * v
        u_m = mean_velocity(f, x_m, m, s)
        alpha = (gap * v + (1 - gap) * u_m - u) / gap
        X_t, X_m = x_t - expand(t - s, x) * u, x_m - expand(m - s, x) * u_m
        quotient = (X_t - X_m) / expand(t - m, x)
        errors.append([float((found - g).detach().abs().max()) for found in (alpha, quotient)])
    for first, second in zip(*errors, strict=True):
        assert second == pytest.approx(first / 2, rel=0.1)  # of first order in the gap


def test_gaps_close_as_the_papers_have_them() -> None:
    alpha = SigmoidFall(1000)
    assert (alpha(0), alpha(500), alpha(1000)) == (1.0, pytest.approx(0.5), 0.005)
    assert alpha(600) == pytest.approx(1 - 1 / (1 + math.exp(-25 * 0.1)))
    rho = ExponentialFall(100, 0.1, 0.002)
    assert (rho(0), rho(100)) == (pytest.approx(0.1), pytest.approx(0.002))
    assert rho(50) == pytest.approx(math.sqrt(0.1 * 0.002))
    for make in (
        lambda: SigmoidFall(10, start=0.5, end=0.4),
        lambda: SigmoidFall(10, least=0.0),
        lambda: ExponentialFall(10, 0.1, 0.2),
    ):
        with pytest.raises(FewstepError, match="what falls needs"):
            make()


@pytest.mark.parametrize(
    "spec", [*TIME_PAIRS, "gap_first(s_mean=-0.4)", "below(times=lognormal)", "separate"]
)
def test_two_times_are_in_order(spec: str) -> None:
    torch.manual_seed(0)
    x = torch.zeros(20_000, 1)
    for p in (RectifiedFlow(), EDM(T=20.0)):
        if isinstance(p, EDM) and spec.startswith("gap_first"):
            with pytest.raises(FewstepError, match="choose sorted, separate or below"):
                TIME_PAIRS.build(spec).sample(x, p)
            continue
        t, s = TIME_PAIRS.build(spec).sample(x, p)
        assert bool(((s <= t) & (t <= p.T) & (s >= 0) & (t >= p.t_min)).all())
        assert float((s < t).float().mean()) > 0.8


def test_the_gap_comes_first() -> None:
    """Its law is that of its logit whatever is left; what is left is truncated, as in TVM."""
    torch.manual_seed(0)
    x = torch.zeros(50_000, 1)
    for spec in ("gap_first", "gap_first(s_mean=-0.4)"):
        t, s = TIME_PAIRS.build(spec).sample(x, RectifiedFlow())
        logit = torch.logit((t - s).double()).median()
        assert float(logit) == pytest.approx(-0.8, abs=0.03)
    wide = s[(t - s) < 0.1]
    assert float(torch.logit(wide.double()).median()) == pytest.approx(-0.45, abs=0.08)


def test_the_discrepancy_of_groups_is_that_of_each() -> None:
    torch.manual_seed(0)
    y, other, scale = torch.randn(7, 5), torch.randn(7, 5), torch.full((7,), 2.0)
    found = discrepancy(y, other, scale, M=4)
    for rows in (slice(0, 4), slice(4, 7)):
        a, b = y[rows], other[rows]

        def k(a: Tensor, b: Tensor) -> Tensor:
            return (-torch.cdist(a, b) / 2.0).exp().mean()

        expected = k(a, a) + k(b, b) - 2 * k(a, b)
        torch.testing.assert_close(found[rows], expected.expand(len(a)), rtol=1e-5, atol=1e-6)
    assert float(discrepancy(y, y, scale, M=4).abs().max()) < 1e-6


def test_the_ways_of_ctm_lead_down_the_grid() -> None:
    torch.manual_seed(0)
    f = FlowMap(MLP((3,), width=8, blocks=1, two_time=True), EDM(T=20.0, form="ddim"))
    o = built("ctm", f, most=5)
    way, s, _ = o.draw_times(torch.zeros(5000, 3), 0)
    t, u = way[:, 0], way[:, -1]
    assert bool((way[:, 1:] <= way[:, :-1]).all())
    assert bool(((s <= u) & (u < t)).all())
    steps = (way[:, 1:] < way[:, :-1]).sum(1)
    assert set(steps.tolist()) == {1, 2, 3, 4, 5}


def test_images_of_ctm_that_have_arrived_are_not_computed() -> None:
    """In a graph they are, and stand still."""
    torch.manual_seed(0)
    F = random(MLP((3,), width=8, blocks=1, num_classes=3, two_time=True))
    o = built("ctm", FlowMap(F, EDM(T=20.0, form="ddim")), most=5)
    rows: list[int] = []
    o.teacher.F.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    x, condition = torch.randn(64, 3), Condition(torch.arange(64) % 3)
    way, _, _ = o.draw_times(x, 0)
    found, steps = o.solved(x, way, condition), (way[:, 1:] < way[:, :-1]).sum()
    assert sum(rows) == 2 * int(steps) < 64 * 6
    rows.clear()
    with as_graph():
        whole = o.solved(x, way, condition)
    assert rows == [64] * 10
    torch.testing.assert_close(found, whole)
    assert not torch.equal(found, x)


def test_gradients_through_the_target_of_ctm_do_not_move_it() -> None:
    """Also where it follows the map at once: it is a copy."""
    f = FlowMap(random(MLP((3,), width=8, blocks=1, two_time=True)), EDM(T=20.0, form="ddim"))
    o = built("ctm", f, mu=0.0, most=2)
    assert all(not weight.requires_grad for weight in o.f_minus.weights)
    with torch.no_grad():
        f.F.write.weight.add_(0.3)
    o.after_step(0)
    assert all(map(torch.equal, o.f_minus.weights, f.weights))


def test_the_diffusion_loss_of_ctm_moves_the_last_layer_as_far_as_the_other() -> None:
    """The ratio of both gradients, by autograd of each loss alone; without gradients it is 1."""
    F = MLP((3,), width=8, blocks=1, two_time=True)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.3)
    f, x = FlowMap(F, EDM(T=20.0, form="ddim")), torch.randn(16, 3)

    def loss(**settings: Any) -> Tensor:
        torch.manual_seed(0)
        found: Tensor = built("ctm", f, most=1, **settings)(x, 0).mean()
        return found

    def norm(loss: Tensor) -> float:
        return float(torch.autograd.grad(loss, F.write.weight)[0].norm())

    first, both = loss(dsm=0.0), loss(dsm=1.0)
    diffusion = float(both - first)
    share = norm(first) / (norm(loss(dsm=1.0) - loss(dsm=0.0)) + 1e-4)
    assert float(loss(adaptive=True) - first) == pytest.approx(share * diffusion, rel=1e-4)
    with torch.no_grad():
        assert float(loss(adaptive=True)) == pytest.approx(float(both), rel=1e-5)
    with pytest.raises(FewstepError, match="which a compiled loss cannot"):
        built("ctm", f, adaptive=True).compile_loss()


@pytest.mark.parametrize("network", [*SMALL])
def test_the_last_matrix_of_a_network_is_that_of_its_output(network: str) -> None:
    F = NETWORKS[network]((1, 4, 4), **SMALL[network])
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    last = [weight for weight in F.parameters() if weight.ndim > 1][-1]
    nn.init.zeros_(last)
    with torch.no_grad():
        y = F(torch.randn(2, 1, 4, 4), torch.tensor([0.1, 0.5]))
    torch.testing.assert_close(y[0], y[1])


def test_moments_are_matched_class_by_class() -> None:
    """Each class's discrepancy is that of its rows alone, wherever they stand in the batch."""
    torch.manual_seed(0)
    label = torch.tensor([1, 0, 1, 0, 0, 1, 0, 1])
    y, other, scale = torch.randn(8, 5), torch.randn(8, 5), torch.full((8,), 2.0)
    order, place = by_class(label)
    found = discrepancy(y[order], other[order], scale[order], 4, label[order])[place]
    for n in (0, 1):
        rows = label == n
        alone = discrepancy(y[rows], other[rows], scale[rows], 4)
        torch.testing.assert_close(found[rows], alone)
    mixed = discrepancy(y[order], other[order], scale[order], 8, label[order])
    halves = discrepancy(y[order], other[order], scale[order], 4)
    assert float(mixed[0]) == pytest.approx(float(halves[[0, 4]].mean()), rel=1e-4)


@pytest.mark.parametrize("every", [8, 2])
def test_a_shortcut_learns_halves_in_a_part_of_the_batch(every: int) -> None:
    torch.manual_seed(0)
    f = FlowMap(MLP((3,), width=8, blocks=1, two_time=True), RectifiedFlow(second="gap"))
    o, n = built("shortcut", f, N=8, every=every), 64 // every
    t, s = o.draw_times(torch.zeros(64, 3), 0)
    d = t - s
    torch.testing.assert_close(d[n:], torch.full((64 - n,), 1 / 8))
    assert set(d[:n].tolist()) <= {1.0, 0.5, 0.25}
    torch.testing.assert_close((t / d).round(), t / d)


SHARED = [n for n in NAMES if "apart" in inspect.signature(OBJECTIVES[n]).parameters]


def in_training(name: str, dropout: float, **settings: Any) -> Any:
    """An objective on a small network with random weights, in float64."""
    torch.manual_seed(3)
    F = MLP((3,), width=8, blocks=1, two_time=True, dropout=dropout)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built(name, FlowMap(F, P).double(), **settings).double().train()


@pytest.mark.parametrize(
    ("name", "settings", "dropout"),
    [(name, {}, 0.3 * (name != "flow_map_matching")) for name in SHARED]
    + [("flow_map_matching", {"by": by}, 0.0) for by in ("eulerian", "progressive")],
)
def test_what_is_left_out_where_both_times_are_one_changes_nothing(
    name: str, settings: dict[str, Any], dropout: float
) -> None:
    """Losses and gradients are those of all rows computed as if each had two times."""
    found = []
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(8, 3)
    for all_rows in (False, True):
        o = in_training(name, dropout, apart=0.3, **settings)  # of 8 rows 2, and 2 of 5 times 3
        torch.manual_seed(5)
        times = o.draw_times(x, 40)
        o.apart = 1.0 if all_rows else o.apart
        torch.manual_seed(7)
        loss = o.loss_at(x, *times)
        weights = list(o.f.parameters())
        gradients = torch.autograd.grad((loss * torch.arange(1, 9)).sum(), weights)
        found.append((loss.detach(), *gradients))
    assert bool((times[1][3:] == times[0][3:]).all())
    assert bool((times[1][:2] < times[0][:2]).all())
    for mine, whole in zip(*found, strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_the_first_images_have_two_times_and_their_share_is_right(rows: int) -> None:
    o, t = built("meanflow", Bent(), apart=0.3), torch.zeros(rows)
    torch.manual_seed(0)
    drawn = torch.stack([o.drawn_apart(t) for _ in range(2000)])
    assert not bool(drawn[:, o.first_apart(rows) :].any())
    assert o.first_apart(rows) == math.ceil(0.3 * rows)
    assert float(drawn.double().mean()) == pytest.approx(0.3, abs=0.03)
    whole = int(0.3 * rows)
    assert bool(drawn[:, :whole].all())


class Telling(FlowMap):
    """Says 1 of the class 0, and 3 of no class."""

    def velocity(self, x: Tensor, t: Any, condition: Condition = NONE, **other: Any) -> Tensor:
        return torch.full_like(x, 3.0 if condition.label is None else 1.0)


def test_guidance_is_folded_into_the_velocity() -> None:
    """``omega v + kappa v_class + (1 - omega - kappa) v_null`` in an interval, of known classes."""
    f = Telling(MLP((2,), num_classes=4, label_dropout=0.1, two_time=True), P)
    x, v = torch.zeros(3, 2), torch.full((3, 2), 2.0)
    t, condition = torch.tensor([0.5, 0.5, 0.9]), Condition(torch.tensor([0, 4, 0]))
    fold = Folded.by_shares(f, 0.4, 0.5, (0.0, 3.0))
    found = fold.velocity(f, x, t, v, condition)
    mixed = 0.4 * 2 + 0.5 * 1 + 0.1 * 3
    expected = torch.tensor([mixed, 2.0, 2.0])[:, None].expand(3, 2)
    torch.testing.assert_close(found, expected)  # the class is hidden; the noise is too strong
    faded = Folded.of(f, 3.0, fade=lambda t: torch.zeros_like(t))
    torch.testing.assert_close(faded.velocity(f, x, t, v, condition), v)
    assert Folded.by_shares(f, 1.0, 0.0, None).off


@pytest.mark.parametrize(
    ("name", "settings", "network", "fault"),
    [
        ("meanflow", {"omega": 2.0}, {}, "label-dropout 0.1, or leave out the guidance"),
        ("meanflow", {"kappa": 1.0}, {}, "kappa, a share of the map's own"),
        ("meanflow", {"apart": 1.5}, {}, "apart of an objective lies between 0 and 1, got 1.5"),
        ("meanflow", {"tangent": "magic"}, {}, "unknown way to a tangent 'magic'"),
        ("meanflow", {"times": "sometimes"}, {}, "unknown distribution of two times"),
        ("soflow", {"guidance": 3.0}, {}, "label-dropout 0.1, or leave out the guidance"),
        ("tvm", {"guidance": 2.0}, {}, "label-dropout 0.1, or leave out the guidance"),
        ("shortcut", {"guidance": 1.5}, {}, "label-dropout 0.1, or leave out the guidance"),
        ("shortcut", {"N": 100}, {}, "a power of two of steps"),
        ("shortcut", {"mu": 0.0}, {}, "0 < mu < 1"),
        ("imf", {"guidance_range": (1.0, 8.0)}, {}, "both or neither of guidance_range"),
        ("imf", {}, {"guidance_embedding": True}, "both or neither of guidance_range"),
        (
            "imf",
            {"guidance_range": (1.0, 8.0)},
            {"guidance_embedding": True},
            "label-dropout 0.1, or leave out the guidance",
        ),
        ("alphaflow", {"clip": 0.0}, {}, "the largest value of a target"),
        ("flow_map_matching", {"by": "magic"}, {}, "unknown condition of a flow map 'magic'"),
        ("imm", {"M": 0}, {}, "imm needs M >= 1"),
        ("imm", {"M": 2.5}, {}, "M must be a whole number"),
        ("imm", {"k": 1000}, {}, "k from 0 to 30"),
        ("imm", {"eta_max": math.inf}, {}, "eta_max > 0"),
        ("shortcut", {"every": 0}, {}, "every > 0"),
        ("tvm", {"guidance": 0.0}, {}, "a weight above 0"),
        ("meanflow", {"omega": 0.0}, {}, "a weight above 0"),
        ("ctm", {"most": 18}, {}, "1 <= most < N"),
        ("ayf", {"r_max": 0.0}, {}, "ayf needs 0 < r_max <= 1"),
        ("facm", {"relaxation": 0.0}, {}, "facm needs relaxation > 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, settings: dict[str, Any], network: dict[str, Any], fault: str
) -> None:
    F = MLP((3,), width=8, blocks=1, two_time=True, num_classes=3, **network)
    with pytest.raises(FewstepError, match=fault):
        built(name, FlowMap(F, P), **settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_one_time_is_refused(name: str) -> None:
    with pytest.raises(FewstepError, match=f"{name} trains a map between any two times"):
        built(name, FlowMap(MLP((3,), width=8, blocks=1), P))


@pytest.mark.parametrize(
    ("name", "settings", "network"),
    [
        ("meanflow", {"omega": 0.2, "kappa": 0.9, "interval": (0.0, 3.0)}, {}),
        ("alphaflow", {"omega": 1.0, "kappa": 0.5}, {}),
        ("soflow", {"guidance": 3.0}, {}),
        ("tvm", {"guidance": 2.0}, {}),
        ("shortcut", {"guidance": 1.5, "N": 4}, {}),
        ("imf", {"guidance_range": (1.0, 8.0)}, {"guidance_embedding": True}),
    ],
)
def test_a_map_that_guides_itself_learns(
    name: str, settings: dict[str, Any], network: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    F = MLP((3,), width=8, blocks=1, two_time=True, num_classes=3, label_dropout=0.2, **network)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    o: Objective = built(name, FlowMap(F, P), **settings).train()
    x, condition = torch.randn(64, 3), Condition(torch.arange(64) % 3)
    torch.manual_seed(1)
    guided = o(x, 50, condition)
    assert guided.shape == (64,)
    assert bool(guided.isfinite().all())
    guided.mean().backward()
    off = {"omega": 1.0, "kappa": 0.0, "guidance": 1.0, "interval": None}
    if name != "imf":  # whose network then takes no weight
        plain = built(
            name, replaced(o.f), **{k: off.get(k, v) for k, v in settings.items()}
        ).train()
        torch.manual_seed(1)
        assert not torch.allclose(plain(x, 50, condition), guided)
    else:
        assert o.f.trained.weights == (1.0, 8.0)


def replaced(f: FlowMap) -> FlowMap:
    """The same map, of which nothing is known yet."""
    return FlowMap(f.F, f.p, trained=replace(f.trained, weights=None, guidance=None))


LARGE = [
    name for name in RECIPES if name.startswith("cifar10/") and uses_two_times(RECIPES[name]())
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
@pytest.mark.parametrize("name", LARGE)
def test_the_recipes_for_cifar10_train(name: str, tmp_path: Path) -> None:
    """A few steps of a small network of the same kind, on images of the right shape."""
    run = RECIPES[name]()
    small = {
        "network.channels": 16,
        "network.blocks": 1,
        "training.steps": 3,
        "training.batch": 8,
        "training.warmup": 0,
        "training.sample_every": 0,
    }
    if "distance" in run.objective.arguments:
        small["objective.distance"] = "l2"
    if run.objective.name == "ctm":
        small["objective.most"] = 2
    run = run.override({key.removeprefix("training."): value for key, value in small.items()})
    pixels = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
    data = Dataset.from_arrays(pixels, torch.arange(32) % 10)
    if OBJECTIVES[run.objective.name].needs.teacher is TeacherUse.DISTIL:
        of = {k: v for k, v in run.network.arguments.items() if k != "two_time"}
        teacher = replace(RECIPES["cifar10/edm"](), training=run.training)
        teacher = replace(teacher, network=replace(run.network, arguments=of))
        train(teacher, tmp_path / "edm", data=data, quiet=True)
        run = replace(run, teacher=str(tmp_path / "edm"))
    f = train(run, tmp_path / "run", data=data, quiet=True)
    x = fewstep.sample(f, n=2, steps=2, seed=0)
    assert x.shape == (2, 3, 32, 32)
    assert bool(x.isfinite().all())


@pytest.mark.parametrize(
    "name", [n for n in RECIPES if n.startswith("digits/") and uses_two_times(RECIPES[n]())]
)
def test_the_recipes_for_the_digits_spend_alike(name: str) -> None:
    """By the dry run's count of a step: with their teacher, or beside it."""
    run = RECIPES[name]()
    F = MLP((4,), width=8, blocks=1, two_time=True)
    spent = run.training.steps * evaluations(run, F, make_p(run)).cost
    learned = OBJECTIVES[run.objective.name].needs.teacher is TeacherUse.NONE
    assert spent == pytest.approx(15_000 if learned else 7_200, rel=0.01)
