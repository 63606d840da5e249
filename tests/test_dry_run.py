"""What a training needs: its evaluations, activations, memory and time, before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.needs import Needs
from fewstep.networks import MLP
from fewstep.objectives import OBJECTIVES, ScoreMatching, TeacherUse
from fewstep.objectives.fit import check_columns
from fewstep.parameterization import EDM, RectifiedFlow
from fewstep.recipes import RECIPES
from fewstep.runs import dry_run as needs
from fewstep.runs import step
from fewstep.runs.activations import activations
from fewstep.runs.dry_run import check_memory, dry_run, needs_of
from fewstep.runs.estimate import duration
from fewstep.runs.execute import train
from fewstep.runs.opening import open_model
from fewstep.runs.run import Component, component
from fewstep.runs.step import Speed, evaluations
from two_networks import Matching


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("digits/")])
def test_a_dry_run_of_every_recipe(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Pairs and autoencoders need not be there."""
    monkeypatch.chdir(tmp_path)
    found = dry_run(RECIPES[name](), recipe=name)
    assert found.memory.peak > found.state_bytes > 0
    assert found.step_flops >= 3 * found.flops * found.training.batch
    text = str(found)
    teacher = OBJECTIVES[RECIPES[name]().objective.name].needs.teacher
    needed = teacher is not TeacherUse.NONE
    assert (("--init" if RECIPES[name]().init else "--teacher") in text) == needed
    assert "1,437 found in digits, the train split" in text
    assert ("fewstep pairs" in text) == (
        name.endswith(("/kd", "/rf2", "/rf3", "-distill", "/dfno"))
    )


@pytest.mark.parametrize(
    ("objective", "trained", "others"),
    [
        ("score_matching", 1, 0),
        ("ct", 1, 1),  # the target
        ("cd", 1, 3),  # and Heun's step of the teacher
        ("pd", 1, 2),  # two DDIM steps of the teacher
    ],
)
def test_the_evaluations_of_a_step(objective: str, trained: int, others: int) -> None:
    run = replace(RECIPES["digits/edm"](), objective=component(objective))
    found = evaluations(run, MLP((1, 8, 8)), EDM())
    assert (found.trained, found.others, found.kept) == (trained, others, trained)
    assert found.cost == 3 * trained + others


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (component("meanflow", omega=2.0), {}),
        (component("tvm", guidance=2.0), {}),
        (
            component("imf", guidance_range=(1.0, 8.0), guidance_intervals=True),
            {"guidance_embedding": True, "interval_embedding": True},
        ),
    ],
)
def test_a_map_that_guides_itself_is_counted_with_its_null_class(
    objective: Component, told: dict[str, bool]
) -> None:
    run = replace(RECIPES["digits/meanflow"](), objective=objective)
    F = MLP((1, 8, 8), num_classes=10, two_time=True, label_dropout=0.1, **told)
    assert evaluations(run, F, RectifiedFlow()).trained > 0


def test_several_networks_count_with_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(run: Any, f: FlowMap) -> Matching:
        return Matching(f, 10, teacher=f.frozen_copy())

    for module in (step, needs):
        monkeypatch.setattr(module, "build_objective", build)
    run, F = RECIPES["digits/cd"](), MLP((4,), width=8, blocks=1)
    count = evaluations(run, F, EDM(T=5.0))
    # twice: a sample, and the fake denoiser with gradient; then a sample with it, and two denoisers
    assert (count.trained, count.others, count.kept) == (2 + 1, 2 + 2, 1)
    copies = needs._copies(run, F, EDM(T=5.0))
    assert copies["fake"] == 4 + 1
    assert 0 < copies["critic"] * sum(x.numel() for x in F.parameters()) == 4 * (5 * 16 + 32 + 17)


class Weighted(ScoreMatching):
    needs = Needs(columns=("importance",))

    def loss_at(self, x: Tensor, *times: Tensor, **others: Any) -> Tensor:
        return others.pop("importance") * super().loss_at(x, *times, **others)


def test_a_column_that_no_folder_of_pairs_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, told and refused as what it is."""
    monkeypatch.setitem(OBJECTIVES._classes, "weighted", Weighted)
    run = replace(RECIPES["digits/edm"](), objective=component("weighted"))
    found = dry_run(run, recipe="digits/weighted")
    assert found.step_flops == dry_run(RECIPES["digits/edm"](), recipe="digits/edm").step_flops
    assert "--data with importance, by a reader of your own" in str(found)
    assert Weighted.needs.words == ("data with importance",)
    data = Dataset.from_arrays(np.zeros((8, 1, 8, 8), dtype=np.uint8), np.arange(8) % 3)
    with pytest.raises(FewstepError, match="learns from importance of each image"):
        check_columns("weighted", Weighted.needs, data, flip=False)


def test_activations_are_what_autograd_keeps() -> None:
    """One block of a perceptron: counted by hand, in both types."""
    kept: dict[str, int] = {}
    for B in (1, 3):
        F = MLP((1, 8, 8), width=32, blocks=1).train()
        seen: dict[int, Any] = {}
        weights = {p.untyped_storage().data_ptr() for p in F.parameters()}

        def keep(x: torch.Tensor, seen: Any = seen, weights: Any = weights) -> torch.Tensor:
            memory = x.untyped_storage()
            if memory.data_ptr() not in weights:
                seen[memory.data_ptr()] = memory
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            F(torch.zeros(B, 1, 8, 8), torch.zeros(B))
        kept[str(B)] = sum(memory.nbytes() for memory in seen.values())
    settings = {"shape": (1, 8, 8), "width": 32, "blocks": 1}
    found = activations("mlp", settings)
    assert found.per_image == pytest.approx((kept["3"] - kept["1"]) / 2, rel=0.02)
    assert activations("mlp", settings, bf16=True).per_image < found.per_image


def test_memory_is_checked_before_a_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = Dataset.from_arrays(np.zeros((64, 3, 32, 32), dtype=np.uint8))
    run = RECIPES["images"](method="ct", steps=1, batch=64, sample_every=0, network__channels=16)
    need = needs_of(run, (3, 32, 32), 0, device=torch.device("cpu")).memory
    # neither more nor fewer images at once than fit
    assert need.parts_for(need.peak_at(4) / 0.91) == 4
    assert need.parts_for(need.state) is None
    monkeypatch.setattr(needs, "free_memory", lambda: int(need.peak_at(4) / 0.91))
    with pytest.warns(FewstepWarning, match=r"may be killed\. --microbatches 4 fits"):
        check_memory(run, (3, 32, 32), 0, torch.device("cpu"))
    monkeypatch.setattr(needs, "free_memory", lambda: 1000)
    with pytest.raises(FewstepError, match="weights take"):
        train(run, tmp_path / "run", data=data, quiet=True)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(needs, "free_memory", lambda: None)
    check_memory(run, (3, 32, 32), 0, torch.device("cpu"))  # where the system does not tell


def test_settings_that_are_right_together_alone() -> None:
    run = RECIPES["lsun_cat256/ct"](batch=24, microbatches=3)
    assert (run.training.batch, run.training.microbatches) == (24, 3)


def test_a_half_teacher_is_taken_over_in_float32(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"steps": 1, "network__width": 16, "samples": 4, "checkpoint_every": 1}
    train(RECIPES["digits/edm"](**tiny), tmp_path / "edm", quiet=True)
    teacher = open_model(tmp_path / "edm").half()
    teacher.save(tmp_path / "half.safetensors")
    run = RECIPES["digits/cd"](**tiny, teacher=str(tmp_path / "half.safetensors"))
    with pytest.warns(FewstepWarning, match=r"half\.safetensors are float16; .* in float32"):
        f = train(run, tmp_path / "cd", quiet=True)
    assert f.dtype == torch.float32


def test_time_is_extrapolated_from_what_was_measured() -> None:
    found = dry_run(RECIPES["digits/edm"](batch=64, steps=1000), recipe="digits/edm", timed=True)
    assert found.speed is not None
    assert 1e6 < found.speed.flops < 1e15
    sure = replace(found, speed=Speed(found.step_flops / 2, "a clock"))
    assert sure.seconds_per_step == pytest.approx(2)
    assert "2 s on cpu here, 33.3 min for 1,000 steps; by a clock" in str(sure)
    two = replace(sure, processes=2)
    assert two.seconds_per_step == pytest.approx(1)


def test_a_time_is_told_in_the_unit_that_reads_best() -> None:
    told = [duration(seconds) for seconds in (0.5, 90, 3 * 86400.0, 3e7, 2.6e9)]
    assert told == ["0.5 s", "90 s", "3 days", "347 days", "82.4 years"]
