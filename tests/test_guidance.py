"""Classifier-free guidance against a law whose denoisers are known, of each class and of all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from fewstep.condition import NONE, Condition
from fewstep.data import Dataset, load, to_uint8
from fewstep.errors import FewstepError
from fewstep.evaluation import train_classifier
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.networks import MLP
from fewstep.objectives import CD, OBJECTIVES, ScoreMatching
from fewstep.parameterization import EDM, VP, Parameterization, RectifiedFlow, TrigFlow
from fewstep.sampling import as_model, sample, sampler_for
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, GENERATOR, NESTED, Trained
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer

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


# Samplers


def counted(f: FlowMap) -> list[int]:
    """Filled with the rows of every evaluation of a network."""
    rows: list[int] = []
    f.F.register_forward_hook(lambda F, x, y: rows.append(len(y)))
    return rows


SPECS = [
    "walk",
    "walk(steps=5, solver=euler, guidance=2)",
    "walk(steps=9, guidance=guided(w=2, interval=(0.3, 5)))",
    "walk(steps=9, solver=churn, guidance=guided(w=2, interval=(0.3, 5)))",
    "walk(steps=6, solver=dpm3, guidance=guided(w=0))",
    "walk(nfe=20, solver=dpm3, guidance=3)",
    "walk(nfe=21, solver=dpm3, guidance=guided(w=3, interval=(0.3, 5)))",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("p", PROCESSES[:2], ids=lambda p: type(p).__name__)
def test_the_evaluations_of_a_guided_walk_are_exact(spec: str, p: Parameterization) -> None:
    f = conditional()
    f.p = p
    rows, sampler = counted(f), sampler_for(f, sampler=spec)
    asked = sampler.nfe
    sample(f, 4, sampler, batch=4)
    assert len(rows) == asked == sampler.nfe
    assert sampler_for(f, sampler=sampler.spec) == sampler


def test_an_adaptive_solver_counts_the_second_evaluations_of_what_is_still_on_its_way() -> None:
    f, rows = conditional(), []
    rows = counted(f)
    plain, double, part = (
        sampler_for(f, sampler=f"walk(solver=rk45, guidance={guidance})")
        for guidance in ("1", "2", "guided(w=2, interval=(0.3, 5))")
    )
    for sampler in (plain, double, part):
        rows.clear()
        sample(f, 1, sampler)
        assert sampler.nfe <= len(rows)
        assert sampler is part or sampler.nfe == len(rows)
    assert double.nfe % 2 == 0


@pytest.mark.parametrize("nfe", [1, 19])
def test_a_budget_that_guidance_cannot_spend_names_its_neighbours(nfe: int) -> None:
    hint = "2 is least" if nfe == 1 else "it can spend 18 or 20"
    with pytest.raises(FewstepError, match=f"exactly {nfe} network evaluations: {hint}"):
        sampler_for(conditional(), solver="euler", nfe=nfe, guidance=2.0)


def test_guidance_of_one_is_the_walk_without_to_the_bit() -> None:
    f = conditional()
    plain = sample(f, 8, steps=6)
    assert torch.equal(sample(f, 8, steps=6, guidance=1.0), plain)
    assert not torch.equal(sample(f, 8, steps=6, guidance=2.0), plain)


def test_a_models_own_weight_is_the_default_and_one_turns_it_off(tmp_path: Path) -> None:
    f = conditional()
    plain, guided = sample(f, 8, steps=6), sample(f, 8, steps=6, guidance=2.0)
    f.trained = replace(f.trained, guidance=2.0)
    f.save(tmp_path / "f.safetensors")
    f = FlowMap.load(tmp_path / "f.safetensors")
    assert sampler_for(f, 6).nfe == 22
    assert torch.equal(sample(f, 8, steps=6), guided)
    assert torch.equal(sample(f, 8, steps=6, guidance=1.0), plain)


def test_a_denoiser_from_elsewhere_is_guided() -> None:
    law = Classes(EDM(T=20.0))

    def D(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return law.D(x, t, Condition(label))

    f = as_model(law.p, (1,), D=D, num_classes=3, null_class=True, dtype=torch.float64)
    x = sample(f, 300, steps=10, guidance=4.0, label=0)
    assert law.evaluations == sampler_for(f, 10, guidance=4.0).nfe * 2  # in two batches
    assert float(x.mean()) < float(sample(f, 300, steps=10, label=0).mean())  # away from the others
    plain = as_model(law.p, (1,), D=D, num_classes=3)
    with pytest.raises(FewstepError, match="needs a null class"):
        sample(plain, 1, guidance=4.0)


def test_a_map_takes_the_weight_that_it_has_learned_as_an_input() -> None:
    f = conditional(guidance_embedding=True)
    f.trained = replace(CONSISTENCY, weights=(1.0, 4.0), guidance=1.0)
    for steps in (1, 3):
        low, high = (sample(f, 8, steps=steps, guidance=w) for w in (1.0, 4.0))
        assert torch.equal(sample(f, 8, steps=steps), low)
        assert not torch.equal(low, high)
    assert sampler_for(f, 3, guidance=4.0).nfe == 3
    with pytest.raises(FewstepError, match="guidance weights from 1 to 4, got 5"):
        sampler_for(f, guidance=5.0)
    with pytest.raises(FewstepError, match="leave out the interval"):
        sample(f, 1, guidance="guided(w=2, interval=(0.3, 5))")


@pytest.mark.parametrize(
    ("trained", "hint"),
    [
        (DIFFUSION, "needs a null class: the model was trained without one.*label dropout"),
        (CONSISTENCY, "denoisers of diffusion models; this is a consistency model"),
        (replace(NESTED, null_class=True), "denoisers of diffusion models; this is a model that"),
        (replace(GENERATOR, null_class=True), "denoisers of diffusion models; this is a generator"),
        (replace(FLOW_MAP, null_class=True), "jumps of a flow map take no weight.*--sampler walk"),
    ],
)
def test_models_that_cannot_be_guided_are_named(trained: Trained, hint: str) -> None:
    f = conditional()
    f.trained = trained
    with pytest.raises(FewstepError, match=hint):
        sampler_for(f, guidance=2.0)
    sampler_for(f, guidance=1.0)
    free = FlowMap(MLP((1,), width=8), EDM(T=20.0), trained=DIFFUSION)
    with pytest.raises(FewstepError, match="guidance needs classes: the model is unconditional"):
        sampler_for(free, guidance=2.0)


def test_a_training_may_note_the_weight_that_its_model_is_sampled_with(tmp_path: Path) -> None:
    data = Dataset.from_arrays(np.zeros((8, 1, 4, 4), dtype=np.uint8), np.arange(8) % 3)
    config = Training(steps=1, batch=8, guidance=2.0)

    class OfFlows(ScoreMatching):
        makes = FLOW_MAP

    def trained(label_dropout: float, objective: type[ScoreMatching] = ScoreMatching) -> FlowMap:
        F = MLP((1, 4, 4), num_classes=3, width=8, blocks=1, label_dropout=label_dropout)
        o = objective(FlowMap(F, EDM(T=20.0)), 1)
        return Trainer(o, data, config, tmp_path, quiet=True).run()

    f = trained(0.5)
    assert (f.trained.null_class, f.trained.guidance) == (True, 2.0)
    assert sampler_for(f, 3).nfe == 10
    with pytest.raises(FewstepError, match="needs a null class"):
        trained(0.0)
    with pytest.raises(FewstepError, match="jumps of a flow map take no weight"):
        trained(0.5, OfFlows)
    with pytest.raises(FewstepError, match="guidance is a weight from 0 on, got -1"):
        Training(guidance=-1.0)


@pytest.mark.slow
def test_guidance_shows_the_class_of_digits_more_clearly(tmp_path: Path) -> None:
    """A little trained, the network hits the class more often at w = 2 than without guidance."""
    data = load("digits")
    F = MLP(data.shape, num_classes=10, width=128, label_dropout=0.15)
    f = FlowMap(F, EDM(T=20.0, sigma_data=0.752))
    config = Training(steps=700, batch=128, lr=3e-3, optimizer="adam", ema=(12_800.0,), warmup=30)
    f = Trainer(ScoreMatching(f, config.steps), data, config, tmp_path, quiet=True).run()
    network, label = (
        train_classifier(data.images, data.labels, cache=tmp_path),
        torch.arange(500) % 10,
    )
    shown = {}
    for w in (1.0, 2.0):
        x = to_uint8(sample(f, 500, steps=8, guidance=w, labels=label))
        shown[w] = float((network(x).logits.argmax(1) == label).double().mean())
    assert shown[2.0] > shown[1.0] + 0.03


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_interval_without_an_end_holds_the_end_of_every_process(dtype: torch.dtype) -> None:
    """Of trigflow alpha(T) rounds to less than 0 in float32."""
    for p in (TrigFlow(), RectifiedFlow(), EDM()):
        t = torch.tensor([p.T, p.T / 2], dtype=dtype)
        assert Guided(2, interval=(0.3, math.inf)).inside(p, t).all()


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
