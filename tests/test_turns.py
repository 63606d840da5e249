"""Objectives of several modules: their turns, what a checkpoint holds of them, what is refused."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.objectives import CT
from fewstep.objectives.turns import Turn
from fewstep.parameterization import EDM
from fewstep.runs.opening import open_model
from fewstep.testing import CONTRACTS, Fitting
from fewstep.training.arithmetic import stream
from fewstep.training.metrics import read_metrics
from fewstep.training.trainer import Trainer
from two_networks import CONFIG, Matching, matching, points


def trainer(folder: Path, objective: Any = None, **settings: Any) -> Trainer:
    o = objective or matching()
    return Trainer(o, points(), replace(CONFIG, **settings), folder, quiet=True)


def files(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint."""
    newest = max((folder / "checkpoints").iterdir())
    return {
        f"{path.name}:{key}": value
        for path in newest.glob("*.safetensors")
        for key, value in load_file(path).items()
    }


SLOW = ("compiles_as_one_graph", "learns")  # of which there are quicker tests here


class Killed(Exception):
    """Stands for a process that dies."""


@pytest.mark.parametrize("death", [3, 8, 11])
def test_a_training_of_several_networks_resumes_to_the_bit(
    death: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(tmp_path / "whole").run()
    step = Trainer.step

    def step_or_die(self: Trainer, k: int) -> dict[str, Tensor]:
        if k == death:
            raise Killed
        return step(self, k)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step_or_die)
        with pytest.raises(Killed):
            trainer(tmp_path / "cut").run()
    trainer(tmp_path / "cut", matching(seed=9)).run()
    whole, cut = files(tmp_path / "whole"), files(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for key, value in whole.items():
        assert torch.equal(value, cut[key]), key
    told = [read_metrics(tmp_path / run) for run in ("whole", "cut")]
    for a, b in zip(*told, strict=True):
        del a["images_per_second"], b["images_per_second"]
        assert a == b


def test_a_checkpoint_holds_every_module_and_only_maps_are_models(tmp_path: Path) -> None:
    t = trainer(tmp_path, steps=3)
    t.run()
    checkpoint = t.checkpoints.all()[-1]
    averages = ["ema-0.9", "ema-100"]
    maps = ["f", "fake", *averages, *(f"fake-{name}" for name in averages)]
    assert checkpoint.manifest.maps == sorted(maps)
    assert checkpoint.manifest.modules == ("critic",)
    assert checkpoint.manifest.default == "ema-0.9"
    for name in maps:
        assert FlowMap.load(checkpoint.file(name)).trained.step == 3
    critic = load_file(checkpoint.file("critic"))
    assert critic.keys() == t.objective.critic.state_dict().keys()  # type: ignore[operator, union-attr]
    with pytest.raises(FewstepError, match=r"no map 'critic'; there is: ema-0\.9, .*, fake"):
        open_model(checkpoint.path, ema="critic")
    assert open_model(checkpoint.path, ema="fake").shape == (3,)


def test_each_turn_moves_its_own_with_its_own_settings(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    o = t.objective
    assert isinstance(o, Matching)
    seen: list[tuple[str, set[str], float]] = []
    for name, learner in t.learners.items():

        def moved(name: str = name, learner: Any = learner) -> None:
            with_gradient = {n.split(".")[0] for n, p in o.named_parameters() if p.grad is not None}
            seen.append((name, with_gradient, learner.optimizer.lr))

        learner.optimizer.step = moved  # type: ignore[method-assign]
    for k in range(2):
        made = t.step(k)
    assert [name for name, _, _ in seen] == ["fake", "fake", "f", "fake", "fake", "critic", "f"]
    assert all(own == {name} for name, own, _ in seen)
    warm = 2 / 3
    assert [lr for _, _, lr in seen[3:]] == pytest.approx(
        [2e-3 * warm] * 2 + [5e-4 * warm, 2e-3 * warm]
    )
    assert list(made) == ["fake", "critic", "f"]
    assert t.learners["fake"].optimizer.betas == (0.5, 0.9)
    assert type(t.learners["fake"].optimizer) is not type(t.learners["f"].optimizer)
    assert t.learners["critic"].config.clip == 0.5
    assert all(p.requires_grad for m in o.trained_modules().values() for p in m.parameters())


def test_the_log_has_the_numbers_of_every_turn(tmp_path: Path) -> None:
    trainer(tmp_path, steps=4, log_every=1).run()
    first, second = read_metrics(tmp_path)[:2]
    of_f = {"step", "loss", "gradient_norm", "lr", "images_per_second"}
    of_fake = {"loss_fake", "gradient_norm_fake", "lr_fake"}
    assert first.keys() == of_f | of_fake, "the critic has no turn in the first step"
    assert second.keys() == of_f | of_fake | {"loss_critic", "gradient_norm_critic", "lr_critic"}


def test_streams_differ_by_turn_and_repeat_and_are_those_of_one_turn_for_the_first() -> None:
    seeds = [
        stream(0, k, part, i, j)
        for k in (0, 1)
        for part in (0, 1)
        for i in (0, 1, 2)
        for j in (0, 1)
    ]
    assert len(set(seeds)) == len(seeds)
    assert stream(3, 5, 1) == stream(3, 5, 1, 0, 0)


def test_repeats_and_turns_see_batches_of_their_own(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    seen: list[Tensor] = []
    batch = type(t.data).batch

    class Spied(type(t.data)):  # type: ignore[misc]
        def batch(self, indices: Tensor, *rest: Any) -> Any:
            seen.append(indices)
            return batch(self, indices, *rest)

    object.__setattr__(t.data, "__class__", Spied)
    t.step(0)
    t.step(1)
    fake = torch.cat([seen[0], seen[1], seen[3]])
    assert len(fake.unique()) == 48, "one pass over the 50 points"
    assert not torch.equal(seen[0], seen[2])


def test_the_generator_learns(tmp_path: Path) -> None:
    """Its teacher is the exact denoiser of one point."""
    o = matching()
    goal = torch.tensor([0.6, -0.4, 0.2])
    o.teacher.D = lambda x, t, condition=None: goal.expand_as(x)  # type: ignore[method-assign, assignment]
    t = trainer(tmp_path, o, steps=70, lr=1e-2)

    def distance() -> float:
        with torch.no_grad():
            return float((t.averages.first(5 * torch.randn(256, 3), 5.0) - goal).square().mean())

    t.step(0)
    before = distance()
    for k in range(1, 70):
        t.step(k)
    assert distance() < 0.3 * before


class Weighted(CT):
    """CT with a learned weight beside the map, which one optimiser trains with it."""

    def __init__(self, f: FlowMap, K: int) -> None:
        super().__init__(f, K)
        self.w = nn.Linear(1, 1)

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"f": self.f, "w": self.w}

    def loss_at(self, x: Tensor, *times: Tensor, **rest: Any) -> Tensor:
        u = self.w(times[0].log()[:, None].to(x.dtype))[:, 0]
        return super().loss_at(x, *times, **rest) * torch.exp(-u) + u


def weighted() -> Weighted:
    return Weighted(FlowMap(MLP((3,), width=8, blocks=1), EDM(T=5.0)), 8)


def test_a_module_beside_the_map_trains_with_it(tmp_path: Path) -> None:
    o = weighted()
    before = o.w.weight.clone()
    trainer(tmp_path, o, steps=8).run()
    assert not torch.equal(o.w.weight, before)
    again = weighted()
    trainer(tmp_path, again, steps=8).run()
    assert torch.equal(again.w.weight, o.w.weight)


class Broken(Weighted):
    """An objective whose parts a test replaces."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(FlowMap(MLP((3,), width=8, blocks=1), EDM(T=5.0)), 8)
        self.parts = parts

    def trained_modules(self) -> dict[str, nn.Module]:
        return self.parts.get("modules", lambda o: super().trained_modules())(self)  # type: ignore[no-any-return]

    def turns(self, k: int) -> tuple[Turn, ...]:
        return self.parts.get("turns", lambda o: super().turns(k))(self)  # type: ignore[no-any-return]

    def after_step(self, k: int) -> None:
        super().after_step(k)
        self.parts.get("after_step", lambda o: None)(self)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"modules": lambda o: {"f": o.f}}, r"no optimiser would move: w\.weight, w\.bias\."),
        ({"modules": lambda o: {"w": o.w, "f": o.f}}, "first of trained_modules"),
        ({"modules": lambda o: {"f": o.f, "a/b": o.w}}, "'a/b': a file is named so"),
        ({"modules": lambda o: {"f": o.f, "w": nn.Linear(1, 1)}}, "w is no part of Broken"),
        ({"modules": lambda o: {"f": o.f, "f_minus": o.w}}, "f_minus is one module in"),
        ({"turns": lambda o: (Turn("f", o.loss_at),)}, "no turn of Broken trains w"),
        ({"turns": lambda o: ()}, "turns of different names, got none"),
        ({"turns": lambda o: (Turn("f", o.loss_at), Turn("f", o.loss_at, ("w",)))}, "got f, f"),
        ({"turns": lambda o: (Turn("f", o.loss_at), Turn("v", o.loss_at))}, "trains v, which"),
        ({"turns": lambda o: (Turn("f", o.loss_at, ("f", "w"), repeat=-1),)}, "repeated -1 times"),
        ({"turns": lambda o: (Turn("f", o.loss_at, ("f", "w"), optimizer="sgd"),)}, "'sgd'"),
        ({"turns": lambda o: (Turn("f", o.loss_at, ("f", "w"), lr=-1.0),)}, "lr must be positive"),
    ],
)
def test_turns_that_cannot_be_are_refused_before_the_first_step(
    parts: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(FewstepError, match=said):
        trainer(tmp_path, Broken(**parts))


def test_a_module_that_is_frozen_needs_no_turn_and_a_frozen_turn_is_refused(tmp_path: Path) -> None:
    o = Broken(modules=lambda o: {"f": o.f})
    o.w.requires_grad_(False)
    trainer(tmp_path, o).step(0)
    o = Broken(turns=lambda o: (Turn("f", o.loss_at), Turn("w", o.loss_at)))
    o.w.requires_grad_(False)
    with pytest.raises(FewstepError, match="nothing that the turn w of Broken trains"):
        trainer(tmp_path, o)


def test_what_no_checkpoint_holds_must_not_change(tmp_path: Path) -> None:
    o = Broken(after_step=lambda o: o.seen.add_(1))
    o.register_buffer("seen", torch.zeros(()))
    with pytest.raises(FewstepError, match=r"Broken changes seen, which no checkpoint holds"):
        trainer(tmp_path, o).run()


def test_a_parameter_without_a_gradient_is_said(tmp_path: Path) -> None:
    o = Broken(
        turns=lambda o: (Turn("f", lambda x, *t, **c: CT.loss_at(o, x, *t, **c), ("f", "w")),)
    )
    with pytest.warns(FewstepWarning, match=r"does not depend on w\.weight, w\.bias"):
        trainer(tmp_path, o).step(0)


def test_a_turn_that_appears_later_is_named(tmp_path: Path) -> None:
    t = trainer(tmp_path, (o := weighted()))
    o.turns = lambda k: (Turn("late", o.loss_at, ("f", "w")),)  # type: ignore[method-assign]
    with pytest.raises(FewstepError, match="no turn 'late' in step 0"):
        t.step(1)


def test_every_loss_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here by a compiler that changes no bit."""
    compiled: list[str] = []

    def compiler(loss: Any, **_: Any) -> Any:
        compiled.append(loss.__name__)
        return functools.wraps(loss)(lambda *words, **named: loss(*words, **named))

    monkeypatch.setattr(torch, "compile", compiler)
    plain, t = trainer(tmp_path / "a"), trainer(tmp_path / "b", compile=True)
    assert compiled == ["fake_loss", "critic_loss", "loss_at"]
    for k in range(2):
        for a, b in zip(plain.step(k).values(), t.step(k).values(), strict=True):
            assert torch.equal(a, b)
    o = Broken(turns=lambda o: (Turn("f", lambda *words, **named: None, ("f", "w")),))
    with pytest.raises(FewstepError, match=r"turn f is no method of Broken.*cannot be compiled"):
        trainer(tmp_path / "c", o, compile=True)


@pytest.mark.parametrize("contract", [name for name in CONTRACTS if name not in SLOW])
def test_what_holds_for_every_objective_holds_for_one_of_several_networks(contract: str) -> None:
    CONTRACTS[contract](Fitting(Matching))
