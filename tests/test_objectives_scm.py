"""sCM: its tangent, in three ways; the learned weight; what it refuses."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.condition import NONE
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.objectives import SCD, SCT
from fewstep.objectives.learned_weight import LearnedWeight
from fewstep.parameterization import EDM, Parameterization, TrigFlow, expand, match
from fewstep.testing.fitting import random

TRIGFLOW = TrigFlow(T=1.5)
PROCESSES = {
    "trigflow": TRIGFLOW,
    "a network of EDM": match(EDM(eps=0.0, T=20.0), TRIGFLOW, eps=0.0),
}


def network_map(p: Parameterization = TRIGFLOW) -> FlowMap:
    torch.manual_seed(0)
    return FlowMap(random(MLP((3,), width=16, blocks=1)), p).double()


def points(n: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x, v = torch.randn(2, n, 3, dtype=torch.float64)
    return x, torch.linspace(0.05, 1.45, n, dtype=torch.float64), v


@pytest.mark.parametrize("p", PROCESSES.values(), ids=list(PROCESSES))
def test_the_tangent_is_cos_t_times_the_derivative_of_the_map(p: Parameterization) -> None:
    """Whatever the network predicts; in all three ways, up to the error that each is known for."""
    f, (x, t, v) = network_map(p), points()
    whole = torch.ones_like(t)
    with torch.no_grad():
        df = expand(t.cos(), x) * f.tangent(x, t, 0.0, v)[1]
        y, g = SCT(f, 10).tangent(x, t, v, whole, NONE)
        torch.testing.assert_close(g, df)
        torch.testing.assert_close(
            expand(t.cos(), x) * x - expand(t.sin(), x) * y, f(x, t), atol=1e-9, rtol=1e-9
        )
        by_difference = SCT(f, 10, tangent="difference").tangent(x, t, v, whole, NONE)[1]
        assert float((by_difference - df).abs().max()) < 1e-6 * float(df.abs().max())
        errors = []
        for h in (1e-2, 5e-3):
            discrete = SCT(f, 10, tangent="discrete").tangent(x, t, v, whole, NONE, t * (1 - h))
            errors.append(float((discrete[1] - df).square().mean().sqrt()))
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.15)


def test_the_warm_up_leaves_out_what_is_unstable() -> None:
    f, (x, t, v) = network_map(), points()
    o = SCT(f, 100, tangent_warmup=50)
    with torch.no_grad():
        y, g = o.tangent(x, t, v, torch.zeros_like(t), NONE)
    torch.testing.assert_close(g, -expand(t.cos().square(), x) * (y - v))
    assert [o.schedule(k)["r"] for k in (0, 25, 50, 99)] == [0, 0.5, 1, 1]
    assert SCT(f, 100, tangent_warmup=0).r(0) == 1


def test_a_training_that_ends_before_its_tangent_is_whole_says_so() -> None:
    (said,) = SCT(network_map(), 2000).remarks()
    assert "this training of 2,000 ends with 20% of it: give --objective.tangent-warmup 500" in said
    for K, warmup in ((2000, 500), (2001, 2000), (1, 0)):
        assert not [*SCT(network_map(), K, tangent_warmup=warmup).remarks()]


def test_the_gradient_is_that_of_the_normalised_tangent() -> None:
    """With w = 0 the gradient with respect to F is -2 g / (|g| + c) / n."""
    f, (x, t, _) = network_map(), points()
    o = SCT(f, 10, tangent_warmup=0)
    found: list[Tensor] = []
    predicted = o.predicted

    def kept(*arguments: Any) -> Tensor:
        F = predicted(*arguments)
        if F.requires_grad:
            F.retain_grad()
            found.append(F)
        return F

    o.predicted = kept  # type: ignore[method-assign]
    torch.manual_seed(3)
    o.loss_at(x, t, torch.ones_like(t)).sum().backward()
    torch.manual_seed(3)
    x_t, v = f.p.draw(x, t, torch.randn_like(x))
    g = o.tangent(x_t, t, v, torch.ones_like(t), NONE)[1].detach()
    unit = g / (g.square().mean(1, keepdim=True).sqrt() + 0.1)
    torch.testing.assert_close(found[-1].grad, -2 * unit / 3 / f.p.sigma_data)


def test_a_discrete_step_is_one_of_edms_grid() -> None:
    o = SCT(network_map(), 10, tangent="discrete", N=18)
    torch.manual_seed(0)
    t, s, _ = o.draw_times(torch.zeros(200, 3), 0)
    assert bool((s < t).all())
    assert len(t.unique()) <= 17
    levels = o.f.p.noise_level(torch.stack([s, t])).double().pow(1 / 7)
    torch.testing.assert_close(
        levels[1] - levels[0], (levels[1] - levels[0])[:1].expand(200), rtol=1e-3, atol=0
    )


def test_a_learned_weight_gives_every_time_the_same_loss() -> None:
    """Losses of two sizes: e^w is one over each where the derivative by w vanishes."""
    torch.manual_seed(0)
    w, p = LearnedWeight(times=2), EDM()
    t = torch.tensor([0.1, 10.0]).repeat(8)
    loss = torch.tensor([0.01, 4.0]).repeat(8)
    assert torch.equal(w(loss, p, t, t / 2), loss)
    optimizer = torch.optim.Adam(w.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        w(loss, p, t, t / 2).mean().backward()
        optimizer.step()
    torch.testing.assert_close(w.w(p, t, t / 2).exp() * loss, torch.ones(16), atol=0.01, rtol=0)


class Backwards(torch.autograd.Function):
    """A kernel of somebody's who has thought of training alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * 2


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Backwards.apply(x)  # type: ignore[no-any-return]


def test_a_network_without_forward_mode_is_named_and_differences_are_offered() -> None:
    f, x = network_map(), torch.zeros(4, 3, dtype=torch.float64)
    f.F.write = nn.Sequential(f.F.write, Doubled())
    with pytest.raises(FewstepError, match=r"network MLP has no forward-mode.*tangent difference"):
        SCT(f, 10)(x, 0)
    assert SCT(f, 10, tangent="difference")(x, 0).isfinite().all()
    assert SCT(f, 10, tangent="discrete")(x, 0).isfinite().all()


def test_a_teacher_of_another_process_is_followed_in_trigflow() -> None:
    teacher = FlowMap(random(MLP((3,), width=16, blocks=1)), EDM(T=20.0))
    f = FlowMap(random(MLP((3,), width=16, blocks=1)), PROCESSES["a network of EDM"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)
        o = SCD(f, 10, teacher=teacher)
    x, t = torch.randn(4, 3), torch.full((4,), 0.7)
    v = o.velocity(x, t, torch.randn_like(x))
    assert v.shape == x.shape
    assert o.teacher.p.process.same(f.p.process)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"tangent": "forwards"}, "Did you mean 'forward'"),
        ({"c": 0.0}, "needs tangent_warmup >= 0, c > 0"),
        ({"N": 1}, "N >= 2"),
        ({"tangent_warmup": -1}, "tangent_warmup >= 0"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        SCT(network_map(), 10, **wrong)


def test_another_process_is_refused() -> None:
    with pytest.raises(FewstepError, match="sct needs the process trigflow, not edm"):
        SCT(network_map(EDM(eps=0.0)), 10)
