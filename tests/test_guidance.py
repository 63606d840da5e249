"""Classifier-free guidance against a law whose denoisers are known, of each class and of all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.networks import MLP
from fewstep.objectives import CD, OBJECTIVES
from fewstep.parameterization import EDM, VP, Parameterization, RectifiedFlow
from fewstep.trained import DIFFUSION

MEANS, V = torch.tensor([-0.8, 0.3, 0.9], dtype=torch.float64), 0.04
PROCESSES = [EDM(T=20.0), VP(), RectifiedFlow()]


@dataclass
class Classes:
    """The diffusion model of equally likely classes ``N(m_k, v)`` on a line, counted."""

    p: Parameterization
    evaluations: int = 0

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        self.evaluations += 1
        t = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        a, s = self.p.alpha(t)[:, None], self.p.sigma(t)[:, None]
        var = a**2 * V + s**2
        each = (V * a * x + s**2 * MEANS) / var  # of every class                          [B, 3]
        logs = -((x - a * MEANS) ** 2) / (2 * var)
        if condition.label is None:
            return (logs.softmax(1) * each).sum(1, keepdim=True)
        return each.gather(1, condition.label[:, None])


def points(p: Parameterization) -> tuple[Tensor, Tensor, Condition]:
    t = torch.linspace(p.t_min, 0.9 * p.T, 32, dtype=torch.float64)
    return torch.randn(32, 1, dtype=torch.float64), t, Condition(torch.arange(32) % 3)


@pytest.mark.parametrize("p", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("w", [0.0, 0.5, 2.0, 7.5])
def test_denoiser_and_velocity_follow_the_formula(p: Parameterization, w: float) -> None:
    f = Classes(p)
    x, t, c = points(p)
    null, known = f.D(x, t), f.D(x, t, c)
    guided = Guided(w)(f)
    torch.testing.assert_close(guided.D(x, t, c), null + w * (known - null))
    v, u = p.velocity(x, known, t), p.velocity(x, null, t)
    torch.testing.assert_close(guided.velocity(x, t, c), u + w * (v - u))


@pytest.mark.parametrize("p", PROCESSES, ids=lambda p: type(p).__name__)
def test_outside_of_the_interval_of_noise_levels_nothing_is_guided(p: Parameterization) -> None:
    f, guidance = Classes(p), Guided(3.0, (0.3, 5.0))
    x, t, c = points(p)
    level = p.sigma(t) / p.alpha(t)
    inside = (level > 0.3) & (level <= 5.0)
    assert 0 < int(inside.sum()) < len(t)
    everywhere, nowhere = Guided(3.0)(f).D(x, t, c), f.D(x, t, c)
    expected = torch.where(inside[:, None], everywhere, nowhere)
    assert torch.equal(guidance(f).D(x, t, c), expected)
    assert torch.equal(guidance.evaluations(p, t), 1.0 + inside)


def test_evaluations_are_spent_as_they_are_counted() -> None:
    f = Classes(EDM(T=20.0))
    x, c = torch.zeros(4, 1, dtype=torch.float64), Condition(torch.zeros(4, dtype=torch.int64))
    for guidance in (Guided(1.0), Guided(0.0), Guided(2.0), Guided(2.0, (0.3, 5.0))):
        for t in (0.1, 1.0, 9.0):
            f.evaluations = 0
            guidance(f).D(x, t, c)
            counted = guidance.evaluations(f.p, torch.tensor([t]))
            assert f.evaluations == counted.item()


def test_a_weight_of_one_is_no_guidance_to_the_bit() -> None:
    f = Classes(EDM(T=20.0))
    x, t, c = points(f.p)
    assert torch.equal(Guided(1.0)(f).D(x, t, c), f.D(x, t, c))


@pytest.mark.parametrize(
    ("w", "interval", "hint"),
    [
        (-1.0, None, "weight is a number from 0 on"),
        (math.nan, None, "weight is a number from 0 on"),
        (2.0, (5.0, 0.3), "low < high"),
        (2.0, (1.0,), "low < high"),
    ],
)
def test_weights_and_intervals_out_of_range_are_named(w: float, interval, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        Guided(w, interval)


# Teachers of a distillation


def conditional(**settings: object) -> FlowMap:
    F = MLP((1,), num_classes=3, width=8, blocks=1, **settings)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return FlowMap(F, EDM(T=20.0), trained=replace(DIFFUSION, null_class=True))


@pytest.mark.parametrize("name", ["cd", "continuous_cd"])
def test_a_weight_of_the_teacher_changes_where_its_paths_lead(name: str) -> None:
    """The student of a guided teacher is that of a model whose denoiser is the guided one."""
    f, teacher, guided = conditional(), conditional(), conditional()
    guided.D = lambda x, t, c=NONE: Guided(2.0, (0.3, 5.0))(teacher).D(x, t, c)
    losses = []
    for arguments in (
        {"teacher": teacher, "guidance": "guided(w=2, interval=(0.3, 5))"},
        {"teacher": guided},
        {"teacher": teacher},
    ):
        o = OBJECTIVES.call(name, {"f": f, "K": 10, **arguments})
        torch.manual_seed(0)
        losses.append(o(torch.randn(64, 1), 0, Condition(torch.arange(64) % 3)))
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])


def test_of_a_range_of_weights_teacher_and_student_have_the_same() -> None:
    f, teacher = conditional(guidance_embedding=True), conditional()
    o = CD(f, 10, teacher=teacher, guidance_range=(1.0, 4.0))
    seen: list[Tensor] = []
    f.F.register_forward_pre_hook(lambda *a: seen.append(a[2]["w"]), with_kwargs=True)
    x, t, label = torch.randn(512, 1), torch.rand(512) + 0.5, Condition(torch.arange(512) % 3)
    o(x, 0, label)
    w = seen[0]
    assert all(torch.equal(w, same) for same in seen)
    assert 1.0 <= float(w.min()) < 1.1 < 3.9 < float(w.max()) <= 4.0
    null, known = teacher.D(x, t), teacher.D(x, t, label)
    torch.testing.assert_close(
        o.guide.D(x, t, replace(label, w=w)), null + w[:, None] * (known - null)
    )
    assert (f.trained.weights, f.trained.guidance) == ((1.0, 4.0), 1.0)


@pytest.mark.parametrize(
    "arguments", [{"guidance": "guided(w=2, interval=(0.3, 5))"}, {"guidance_range": (1.0, 4.0)}]
)
def test_a_loss_with_a_guided_teacher_is_one_graph(arguments: dict[str, object]) -> None:
    f = conditional(guidance_embedding="guidance_range" in arguments)
    o, graphs = CD(f, 100, teacher=conditional(), **arguments), CompileCounter()
    o.loss_at = torch.compile(o.loss_at, fullgraph=True, backend=graphs)
    for k in (0, 50, 99):
        o(torch.randn(8, 1), k, Condition(torch.arange(8) % 3)).mean().backward()
    assert graphs.frame_count == 1


@pytest.mark.parametrize(
    ("arguments", "settings", "hint"),
    [
        ({"guidance": 2.0, "guidance_range": (1.0, 2.0)}, {}, "not both"),
        ({"guidance_range": (1.0, 2.0)}, {}, "both or neither"),
        ({}, {"guidance_embedding": True}, "both or neither"),
        ({"guidance": -1.0}, {}, "from 0 on"),
        ({"guidance": "guide(w=2)"}, {}, "guidance"),
    ],
)
def test_mistakes_in_the_guidance_of_a_teacher_are_named(arguments, settings, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        CD(conditional(**settings), 1, teacher=conditional(), **arguments)


def test_a_teacher_that_cannot_be_guided_is_named() -> None:
    teacher = conditional()
    teacher.trained = DIFFUSION
    with pytest.raises(FewstepError, match="guidance needs a null class: the teacher was trained"):
        CD(conditional(), 1, teacher=teacher, guidance=2.0)
    free = FlowMap(MLP((1,), width=8), EDM(T=20.0), trained=DIFFUSION)
    with pytest.raises(FewstepError, match="guidance needs classes: the teacher is unconditional"):
        CD(free, 1, teacher=free.frozen_copy(), guidance=2.0)
