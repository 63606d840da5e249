"""The trainer: resuming to the bit, micro-batches, averages, logs, and what goes wrong."""

from __future__ import annotations

import copy
import json
import math
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.condition import Condition
from fewstep.data import Dataset, batch_indices
from fewstep.data.sharded import Sharded
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, FourierOperator, MLPAutoencoder, Network, UNet
from fewstep.objectives import OBJECTIVES
from fewstep.parameterization import EDM
from fewstep.runs.opening import open_model
from fewstep.testing.fitting import Fitting
from fewstep.trained import Trained
from fewstep.training import checkpoint as checkpoint_module
from fewstep.training import trainer as trainer_module
from fewstep.training.arithmetic import repeatable, stream
from fewstep.training.checkpoint import Checkpoints, Snapshot
from fewstep.training.config import Training
from fewstep.training.ema import ema_name, log_start_share
from fewstep.training.examples import fitted
from fewstep.training.metrics import read_metrics
from fewstep.training.optimizers import Adam, RAdam
from fewstep.training.score import Score
from fewstep.training.spikes import Spikes
from fewstep.training.trainer import Trainer
from fewstep.training.validation import Validation, energy_distance, evenly
from fewstep.training.writer import Writer
from oracles import columns_for

CONFIG = Training(
    steps=24,
    batch=16,
    lr=1e-3,
    warmup=4,
    decay="cosine",
    clip=1.0,
    ema=(0.9, 100.0),
    log_every=4,
    sample_every=8,
    samples=8,
    checkpoint_every=5,
    flip=True,
)


def pictures(n: int = 50, labels: bool = True) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return Dataset.from_arrays(images, torch.arange(n) % 3 if labels else None)


def with_columns(data: Dataset, names: tuple[str, ...]) -> Dataset:
    """The images as samples of pairs."""
    x = data.batch(torch.arange(len(data)))[0]
    columns = {name: Sharded([value]) for name, value in columns_for(names, x).items()}
    return replace(data, columns=columns)


def make(
    directory: Path,
    config: Training = CONFIG,
    objective: str = "ict",
    dropout: float = 0.2,
    **k: Any,
) -> Trainer:
    torch.manual_seed(config.seed)
    cls = OBJECTIVES[objective]
    two_time, p = cls.needs.two_time, Fitting(cls).p()
    network: Network = MLP(
        (1, 4, 4), num_classes=3, width=8, blocks=1, dropout=dropout, two_time=two_time
    )
    if "trajectory" in cls.needs.columns:
        base = f"mlp(width=8, blocks=1, dropout={dropout})"
        network = FourierOperator((1, 4, 4), num_classes=3, base=base)
    f: Any = FlowMap(network, replace(p, T=min(p.T, 5.0)))
    if cls.makes.decodes:
        f = AutoencoderModel(MLPAutoencoder((1, 4, 4), latents=4, width=8, blocks=1))
    extra: dict[str, Any] = {"s1": 10} if objective in ("ct", "ict") else {}
    if cls.needs.teacher.asked:
        extra["teacher"] = f.frozen_copy()
    o = OBJECTIVES.call(objective, {"f": f, "K": config.steps, **extra})
    held_out = pictures().batch(torch.arange(20))[0]
    data = k.pop("data", pictures())
    if cls.needs.columns:
        data, config = with_columns(data, cls.needs.columns), replace(config, flip=False)
    return Trainer(o, data, config, directory, held_out=held_out, quiet=True, **k)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    maps = {**trainer.objective.changing(), **trainer.averages.named()}
    return {
        f"{name}.{key}": value.clone()
        for name, f in maps.items()
        for key, value in f.state_dict().items()
    }


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


class Killed(Exception):
    """Stands for a process that dies."""


def die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = Trainer.step

    def step_or_die(self: Trainer, k: int) -> dict[str, Tensor]:
        if k == step:
            raise Killed
        return whole(self, k)

    monkeypatch.setattr(Trainer, "step", step_or_die)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("death", [3, 5, 13])
def test_a_run_that_died_ends_with_the_same_bits(
    objective: str, death: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path / "whole", objective=objective)
    whole.run()
    with monkeypatch.context() as patch:
        die_at(patch, death)
        with pytest.raises(Killed):
            make(tmp_path / "cut", objective=objective).run()
    torch.manual_seed(999)  # whatever the new process's stream is
    torch.rand(7)
    resumed = make(tmp_path / "cut", objective=objective)
    resumed.run()
    assert_same(weights(whole), weights(resumed))
    steps = [line["step"] for line in read_metrics(tmp_path / "cut") if "loss" in line]
    assert steps == [4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "radam"},
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"spike": 1.01, "spikes": "damp"},
    ],
)
def test_every_optimizer_resumes(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, weight_decay=0.01, **settings)
    monkeypatch.setattr("fewstep.training.spikes.UNWATCHED", 2)
    whole = make(tmp_path / "whole", config)
    whole.run()
    with monkeypatch.context() as patch:
        die_at(patch, 11)
        with pytest.raises(Killed):
            make(tmp_path / "cut", config).run()
    resumed = make(tmp_path / "cut", config)
    resumed.run()
    assert_same(weights(whole), weights(resumed))


@pytest.mark.parametrize("optimizer", ["radam", "adam"])
def test_moments_come_back_in_the_order_of_their_weights(optimizer: Any, tmp_path: Path) -> None:
    """Weights of convolutions are stored with channels last, files are not."""
    config = replace(CONFIG, optimizer=optimizer, steps=10)
    unet = UNet((1, 4, 4), channels=8, multipliers=(1,), blocks=1)
    f = FlowMap(unet, EDM(T=5.0))

    def trained(folder: Path) -> Trainer:
        o = OBJECTIVES.call("score_matching", {"f": copy.deepcopy(f), "K": 10})
        return Trainer(o, pictures(labels=False), config, folder, quiet=True)

    whole, cut = trained(tmp_path / "whole"), trained(tmp_path / "cut")
    for k in range(10):
        whole.step(k)
        if k < 7:
            cut.step(k)
    with Writer(cut.checkpoints) as writer:
        cut._save(7, None, writer)
    again = trained(tmp_path / "cut")
    for k in range(again._restore(), 10):
        again.step(k)
    assert_same(weights(whole), weights(again))


def test_a_finished_run_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path)
    first.run()
    die_at(monkeypatch, 0)
    again = make(tmp_path)
    again.run()
    assert_same(weights(first), weights(again))


def test_accumulating_gradients_is_the_gradient_of_the_batch(tmp_path: Path) -> None:
    """Two micro-batches: the mean of their gradients, each with its own random stream."""
    t = make(tmp_path, replace(CONFIG, microbatches=2, clip=None), dropout=0.0)
    f, o = t.objective.f, t.objective
    indices = batch_indices(50, 16, 0, 0)
    expected = {name: torch.zeros_like(p) for name, p in f.named_parameters()}
    for part, micro in enumerate(indices.chunk(2)):
        torch.manual_seed(stream(0, 0, part))
        x, label = t.data.batch(micro, flip=True)
        o(x, 0, Condition(label)).mean().backward()
    for name, p in f.named_parameters():
        expected[name] = p.grad / 2
    f.zero_grad()
    seen: dict[str, Tensor] = {}
    t.learners["f"].optimizer.step = lambda: seen.update(
        {n: p.grad.clone() for n, p in f.named_parameters()}
    )
    t.step(0)
    for name, value in expected.items():
        torch.testing.assert_close(seen[name], value)


def test_the_warm_up_is_applied(tmp_path: Path) -> None:
    config = replace(CONFIG, decay="constant", warmup=10)
    t = make(tmp_path, config)
    rates = []
    for k in range(12):
        t.step(k)
        rates.append(t.learners["f"].optimizer.lr)
    assert rates == pytest.approx([1e-4 * (k + 1) for k in range(10)] + [1e-3, 1e-3])


@pytest.mark.parametrize(("warmup", "said"), [(0, False), (2, False), (4, True), (1000, True)])
def test_a_warm_up_that_takes_most_of_a_training_is_said(
    warmup: int, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, replace(CONFIG, steps=8, warmup=warmup)).run()
    assert ("--warmup 0, learns more" in " ".join(capsys.readouterr().err.split())) == said


def test_what_an_objective_remarks_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, replace(CONFIG, steps=8), "sct").run()
    assert "note: the unstable part of the tangent" in " ".join(capsys.readouterr().err.split())


def test_micro_batches_of_too_few_images_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match=r"groups of 4: .* 2 of a batch are computed at once"):
        make(tmp_path, replace(CONFIG, microbatches=8), "imm")


def test_linear_decay_ends_at_zero() -> None:
    config = Training(steps=100, lr=2.0, warmup=20, decay="linear")
    assert [config.lr_at(k) for k in (20, 60, 99)] == pytest.approx([2.0, 1.0, 2.0 / 80])
    assert config.lr_at(75, start=50, end=80) == pytest.approx(1.0)


def test_cosine_decay_ends_at_zero() -> None:
    config = Training(steps=100, lr=2.0, warmup=20, decay="cosine")
    assert config.lr_at(20) == pytest.approx(2.0)
    assert config.lr_at(60) == pytest.approx(1.0)
    assert config.lr_at(99) == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 79 / 80)))


@pytest.mark.parametrize("rampup", [0.0, 0.5])
def test_averages_are_plain_ones_less_the_share_of_their_start(
    rampup: float, tmp_path: Path
) -> None:
    """Against the plain recursion from the initial weights, taken out at the end in float64."""
    config = replace(CONFIG, ema=(0.9999, 0.9, 64.0), ema_rampup=rampup)
    t = make(tmp_path, config)
    parameter = next(iter(t.objective.f.parameters()))
    start = parameter.detach().double()
    plain, share = dict.fromkeys(config.ema, start), dict.fromkeys(config.ema, 1.0)
    for k in range(5):
        t.step(k)
        for value in config.ema:
            mu = config.ema_decay(value, k)
            plain[value] = mu * plain[value] + (1 - mu) * parameter.detach().double()
            share[value] *= mu
    for value, f in t.averages.maps.items():
        expected = (plain[value] - share[value] * start) / (1 - share[value])
        torch.testing.assert_close(next(iter(f.parameters())), expected.float())


@pytest.mark.parametrize("value", [0.999, 0.5, 6400.0, 3.0])
@pytest.mark.parametrize("rampup", [0.0, 0.05, 2.0])
def test_the_share_of_the_start_is_the_product_of_the_decays(value: float, rampup: float) -> None:
    config = Training(batch=32, ema=(value,), ema_rampup=rampup)
    for steps in (1, 40, 700):
        logs = [math.log(config.ema_decay(value, k)) for k in range(steps)]
        assert log_start_share(config, value, steps) == pytest.approx(math.fsum(logs), rel=1e-12)


def test_an_average_looks_back_over_a_part_of_the_training() -> None:
    config = Training(batch=100, ema=(1e6, 0.9999), ema_rampup=0.05)
    assert config.ema_decay(1e6, 99) == pytest.approx(0.5 ** (100 / 500))  # 5 % of 10,000 images
    assert config.ema_decay(0.9999, 99) == pytest.approx(0.5 ** (1 / 5))  # 5 % of 100 steps
    assert config.ema_decay(1e6, 10**6) == pytest.approx(0.5 ** (100 / 1e6))
    assert config.ema_decay(0.9999, 10**6) == 0.9999


@pytest.mark.parametrize("start", ["scratch", "teacher"])
def test_a_short_training_with_a_long_average_shows_what_it_has_learned(
    start: str, tmp_path: Path
) -> None:
    """At a decay of 0.9999 a plain average of 60 steps is the initial map to 99.4 %."""
    config = replace(
        CONFIG, steps=60, lr=5e-3, warmup=0, decay="constant", ema=(0.9999,), optimizer="adam"
    )
    t = make(tmp_path, config, "ict" if start == "scratch" else "cd", dropout=0.0)
    first = t.objective.f.frozen_copy()
    t.run()
    checkpoint = t.checkpoints.all()[-1].path
    shown, raw = (FlowMap.load(checkpoint / f"{n}.safetensors") for n in ("ema-0.9999", "f"))

    def distance(f: FlowMap, g: FlowMap) -> float:
        pairs = zip(f.weights, g.weights, strict=True)
        return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))

    assert distance(shown, raw) < 0.2 * distance(first, raw)
    assert shown.info["average"] == {"ema": 0.9999, "rampup": 0.05, "corrected": True}
    assert "average" not in raw.info


@pytest.mark.parametrize("values", [(1000.2, 1000.4), (0.99999991, 0.99999992), (38400.0, 0.5)])
def test_every_average_has_a_file_of_its_own(values: tuple[float, float]) -> None:
    names = [ema_name(value) for value in values]
    assert len(set(names)) == 2
    assert [float(name.removeprefix("ema-")) for name in names] == list(values)


def test_a_plain_average_of_an_earlier_version_says_what_it_shows(tmp_path: Path) -> None:
    f = make(tmp_path).objective.f
    f.trained = replace(f.trained, step=240)
    file = tmp_path / "ema-0.9999.safetensors"
    f.save(file)
    with pytest.warns(FewstepWarning, match=r"97\.6% of it"):
        open_model(file)


def test_averages_under_the_names_of_earlier_versions_are_found(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=5, ema=(1000.2,))
    whole = make(tmp_path, config)
    whole.run()
    checkpoint = whole.checkpoints.all()[-1]
    old = checkpoint.path / "ema-1000.safetensors"
    (checkpoint.path / "ema-1000.2.safetensors").rename(old)
    manifest = json.loads((checkpoint.path / "checkpoint.json").read_text())
    manifest["sha256"][old.name] = manifest["sha256"].pop("ema-1000.2.safetensors")
    manifest["default"] = old.stem
    (checkpoint.path / "checkpoint.json").write_text(json.dumps(manifest))
    again = make(tmp_path, config)
    again.run()
    assert_same(weights(whole), weights(again))


def test_flips_and_noise_come_from_the_step_alone(tmp_path: Path) -> None:
    losses = []
    for _ in range(2):
        t = make(tmp_path / "a")
        torch.rand(3)
        losses.append(t.step(7)["f"])
    assert torch.equal(*losses)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path: Path) -> None:
    t = make(tmp_path)
    whole = t.objective.forward
    t.objective.forward = lambda x, k, *c: whole(x, k, *c) * (float("nan") if k == 9 else 1)
    with pytest.raises(
        FewstepError, match=r"not finite at step 9.*last good checkpoint is of step 5"
    ):
        t.run()
    assert [c.step for c in t.checkpoints.all()] == [5]


def spiking(directory: Path, **settings: Any) -> Trainer:
    """A training whose loss is a thousand times as large in step 15."""
    t = make(directory, replace(CONFIG, optimizer="adam", clip=None, steps=16, **settings))
    whole = t.objective.forward
    t.objective.forward = lambda x, k, *c: whole(x, k, *c) * (1e3 if k == 15 else 1)
    return t


@pytest.mark.parametrize(("rule", "what"), [("damp", "damped"), ("skip", "skipped")])
def test_a_spike_of_the_gradient_is_damped_or_stepped_over_and_counted(
    rule: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """And where there is none, the bits are those of a training that does not look."""
    monkeypatch.setattr("fewstep.training.spikes.UNWATCHED", 5)
    plain, watched = spiking(tmp_path / "plain"), spiking(tmp_path / rule, spike=20.0, spikes=rule)
    for k in range(15):
        plain.step(k), watched.step(k)
    for a, b in zip(plain.objective.f.weights, watched.objective.f.weights, strict=True):
        assert torch.equal(a, b)
    before = [p.clone() for p in plain.objective.f.weights]
    moved = []
    for t in (plain, watched):
        norm = t.step(15)["f"][1]
        now = zip(t.objective.f.weights, before, strict=True)
        moved.append(sum(float((p - old).detach().abs().sum()) for p, old in now))
    learner = watched.learners["f"]
    assert learner.spikes is not None
    scale = learner.spikes.log_scale.exp()
    assert (norm > 100 * scale, int(learner.spikes.count)) == (True, 1)
    assert moved[1] < 0.9 * moved[0]
    spiking(tmp_path / "log", spike=20.0, spikes=rule).run()
    said = " ".join(capsys.readouterr().err.split())
    assert f"step 16: 1 gradients so far were spikes, and {what}" in said
    counts = [line["spikes"] for line in read_metrics(tmp_path / "log") if "loss" in line]
    assert counts == [0, 0, 0, 1]


def test_a_gradient_that_grows_for_good_is_followed() -> None:
    spikes = Spikes(2.0, skip=False)
    for k in range(900):
        gradient = torch.ones(1) * (1.0 if k < 200 else 100.0)
        spikes.tame([gradient], gradient[0].clone())
    assert gradient == 100
    assert 400 < spikes.count < 700
    spikes.tame([gradient], torch.tensor(math.inf))
    assert spikes.log_scale.isfinite()


def test_bf16_trains(tmp_path: Path) -> None:
    t = make(tmp_path, replace(CONFIG, precision="bf16", steps=2))
    t.run()
    assert all(value.dtype == torch.float32 for value in weights(t).values())


@pytest.mark.slow
def test_a_compiled_run_that_died_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, compile=True, steps=12)
    whole = make(tmp_path / "whole", config)
    whole.run()
    with monkeypatch.context() as patch:
        die_at(patch, 8)
        with pytest.raises(Killed):
            make(tmp_path / "cut", config).run()
    resumed = make(tmp_path / "cut", config)
    resumed.run()
    assert_same(weights(whole), weights(resumed))


def test_both_passes_of_a_compiled_loss_see_the_same_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the backward pass is deterministic, and a loss compiled otherwise has none."""
    compiler, seen = torch.compile, []

    def on_a_gpu(device: torch.device, *, deterministic: bool) -> Any:
        return repeatable(torch.device("cuda"), deterministic=deterministic)

    def spied(loss_at: Any, **_: Any) -> Any:
        compiled = compiler(loss_at, backend="aot_eager")

        def run(*words: Any, **named: Any) -> Any:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return compiled(*words, **named)

        return run

    monkeypatch.setattr(trainer_module, "repeatable", on_a_gpu)
    monkeypatch.setattr(torch, "compile", spied)
    for deterministic in (True, False):
        t = make(tmp_path, replace(CONFIG, compile=True, deterministic=deterministic))
        t.step(0)
        t.step(1)
    assert seen == [True, True, False, False]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_radam_is_torchs(betas: tuple[float, float], weight_decay: float) -> None:
    """Beside torch's over both of its phases, and with a state that torch wrote half-way."""
    settings: dict[str, Any] = {"lr": 1e-3, "betas": betas, "weight_decay": weight_decay}
    start = torch.rand(50, 20, dtype=torch.float64)
    ours, torchs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine, other = RAdam([ours], **settings), torch.optim.RAdam([torchs], **settings)
    for k in range(40):
        ours.grad = torch.randn_like(start) * 10 ** torch.empty_like(start).uniform_(-6, 2)
        torchs.grad = ours.grad.clone()
        mine.step()
        other.step()
        if k == 20:
            mine.restore(other.state_dict()["state"])
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_is_torchs_to_the_bit(decoupled: bool) -> None:
    settings: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1}
    start = torch.rand(50, 20)
    ours, torchs, unused = (torch.nn.Parameter(start.clone()) for _ in range(3))
    mine = Adam([unused, ours], **settings, decoupled=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    other = kind([torchs], **settings, fused=True)
    for _ in range(20):
        ours.grad = torch.randn_like(start)
        torchs.grad = ours.grad.clone()
        mine.step()
        other.step()
    assert torch.equal(ours, torchs)
    assert torch.equal(unused, start)


def test_the_state_of_another_optimiser_is_named() -> None:
    optimizer = Adam([torch.nn.Parameter(torch.zeros(3))])
    for state, said in (
        ({1: {}}, "no parameter 1"),
        ({0: {"step": torch.zeros(())}}, "has step, not step, exp_avg"),
        ({0: dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), torch.zeros(2))}, "has the shape"),
    ):
        with pytest.raises(ValueError, match=said):
            optimizer.restore(state)


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    t = make(tmp_path)
    t.run()
    assert (tmp_path / "samples/step-00000008.png").is_file()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    lines = read_metrics(tmp_path)
    assert {"step", "loss", "gradient_norm", "lr", "images_per_second", "N"} <= lines[0].keys()
    validations = [line for line in lines if "energy_distance" in line]
    assert len(validations) == 3
    assert all(line["energy_distance_error"] > 0 for line in validations)
    for checkpoint in t.checkpoints.all():
        names = {p.name for p in checkpoint.path.iterdir()}
        assert names == {
            "checkpoint.json",
            "optimizer.safetensors",
            "f.safetensors",
            "ema-0.9.safetensors",
            "ema-100.safetensors",
        }
        f = FlowMap.load(checkpoint.path / "ema-0.9.safetensors")
        assert f.trained.step == checkpoint.step


def test_the_last_and_the_best_checkpoints_are_kept(tmp_path: Path) -> None:
    t = make(tmp_path, replace(CONFIG, checkpoint_every=4, sample_every=4, keep=2))
    scores = iter([3.0, 1.0, 2.0, 2.5, 2.6, 2.7])
    t.validate = lambda f: (torch.zeros(8, 1, 4, 4), next(scores))
    t.run()
    assert [c.step for c in t.checkpoints.all()] == [8, 20, 24]
    best = t.checkpoints.best()
    assert best is not None
    assert best.step == 8


def test_the_error_of_a_score_is_its_spread_over_draws() -> None:
    """And that of a difference of two models on one noise, which is much less."""
    generator = torch.Generator().manual_seed(0)

    def normal(n: int) -> Tensor:
        return torch.randn(n, 3, generator=generator)

    scores, gaps = [], []
    for _ in range(60):
        z, real = normal(100), normal(300)
        scores.append((energy_distance(2.5 * z, real), energy_distance(2.6 * z + 0.1, real)))
        gaps.append(scores[-1][1] - scores[-1][0])
    one = torch.tensor([a for a, _ in scores])
    error = sum(a.error for a, _ in scores) / 60
    assert error == pytest.approx(float(one.std()), rel=0.3)
    paired = sum(b.error_of_difference(a) for a, b in scores) / 60
    assert paired == pytest.approx(float(torch.tensor(gaps).std()), rel=0.3)
    assert paired < 0.5 * error
    a, b = scores[0]
    assert a.tells(b)
    assert not b.tells(a)


def scored(folder: Path, scores: dict[int, Score]) -> tuple[Checkpoints, list[str]]:
    told: list[str] = []
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, tell=told.append)
    f = make(folder).objective.f
    for step, score in scores.items():
        f.trained = replace(f.trained, step=step)
        maps, extra = {"f": f}, {"optimizer": {"x": torch.zeros(1)}}
        checkpoints.write(Snapshot.of(step, maps, extra, default="f", score=score))
    return checkpoints, told


def test_the_best_is_the_newest_that_nothing_is_surely_better_than(tmp_path: Path) -> None:
    """Scores of the same luck but for a little: 2 and 3 cannot be told apart, 1 and 4 can."""
    luck = torch.linspace(-1, 1, 50)
    wobble = 0.1 * torch.cos(9 * luck)
    scores = {
        1: Score(0.5, luck.tolist()),
        2: Score(0.30, luck.tolist()),
        3: Score(0.31, (luck + wobble).tolist()),
        4: Score(0.4, luck.tolist()),
    }
    assert scores[4].error > 0.08  # alone none of them would tell
    checkpoints, told = scored(tmp_path, scores)
    best = checkpoints.best()
    assert best is not None
    assert best.step == 3
    assert "step 2 has an energy distance of 0.3, step 3 of 0.31" in told[-1]
    assert [c.step for c in checkpoints.all()] == [2, 3, 4]
    assert checkpoints.all()[0].score == 0.3
    del scores[3]
    checkpoints, told = scored(tmp_path / "sure", scores)
    best = checkpoints.best()
    assert best is not None
    assert (best.step, told) == (2, [])


def test_every_beginning_of_the_held_out_images_has_the_classes_of_all() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = evenly(labels, torch.randperm(100))
    assert sorted(order.tolist()) == list(range(100))
    for n in (10, 30, 77):
        counts = torch.bincount(labels[order[:n]], minlength=3)
        assert (counts - n * torch.tensor([0.6, 0.3, 0.1])).abs().max() <= 1


def test_a_validation_has_the_labels_of_the_images_that_it_is_held_against(tmp_path: Path) -> None:
    f = make(tmp_path).objective.f
    seen: list[int] = []
    f.F.register_forward_pre_hook(lambda *a: seen.extend(a[2]["label"].tolist()), with_kwargs=True)
    labels = torch.tensor([2, 2, 2, 1])
    Validation(torch.zeros(4, 1, 4, 4), 6, told=Condition(label=labels))(f)
    assert seen[:6] == [2, 2, 2, 1, 2, 2]  # what follows only fills the batch


def test_weights_of_an_input_that_is_not_given_rest(tmp_path: Path) -> None:
    """A network that is told augmentations, trained without them: nothing is amiss."""
    F = UNet((1, 4, 4), channels=4, multipliers=(1,), blocks=1, attention=(), augment=9)
    o = OBJECTIVES["ect"](FlowMap(F, EDM(eps=0.0)), CONFIG.steps)
    t = Trainer(o, pictures(), CONFIG, tmp_path, quiet=True)
    (weight,) = F.added_weights("augmentations")
    before = weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t.step(0)
    assert weight.requires_grad
    assert torch.equal(weight, before)


# What goes wrong


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_not_trained(dtype: torch.dtype, tmp_path: Path) -> None:
    objective = make(tmp_path / "a").objective.to(dtype)
    with pytest.raises(FewstepError, match=r"weights are b?float16.*f\.float\(\)"):
        Trainer(objective, pictures(), CONFIG, tmp_path / "b")


def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.run()
    make(tmp_path / "cut").run()
    newest = Checkpoints(tmp_path / "cut/checkpoints").all()[-1]
    weights_file = newest.path / "f.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-50])
    told: list[str] = []
    found = Checkpoints(tmp_path / "cut/checkpoints", tell=told.append).latest()
    assert found is not None
    assert found.step == 20
    assert str(newest.path) in told[0]
    assert "f.safetensors" in told[0]
    resumed = make(tmp_path / "cut")
    resumed.run()
    assert_same(weights(whole), weights(resumed))


def test_no_intact_checkpoint_is_an_error(tmp_path: Path) -> None:
    make(tmp_path).run()
    for checkpoint in Checkpoints(tmp_path / "checkpoints").all():
        (checkpoint.path / "checkpoint.json").write_text("{")
    with pytest.raises(FewstepError, match="intact"):
        make(tmp_path).run()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = make(tmp_path)
    write, calls = checkpoint_module.write_tensors, []

    def full(path: Path, *rest: Any) -> str:
        calls.append(path)
        if len(calls) > 5:  # four files of the first checkpoint, then one of the second
            path.write_bytes(b"cut off")
            raise OSError(28, "No space left on device")
        return write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_tensors", full)
        with pytest.raises(FewstepError, match=r"No space left.*last good one is .*step-00000005"):
            t.run()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    whole = make(tmp_path / "whole")
    whole.run()
    resumed = make(tmp_path)
    resumed.run()
    assert_same(weights(whole), weights(resumed))


def test_a_checkpoint_is_written_beside_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps go on meanwhile and change nothing in it; the next one waits for it."""
    t = make(tmp_path, replace(CONFIG, keep=9))
    made, begun, expected = threading.Event(), [], dict[str, dict[str, Tensor]]()
    write, step = Checkpoints.write, t.step

    def late(self: Checkpoints, snapshot: Snapshot) -> Any:
        begun.append((snapshot.step, made.wait(20)))
        return write(self, snapshot)

    def seen(k: int) -> dict[str, Tensor]:
        if k == 5:
            maps = {**t.objective.changing(), **t.averages.named()}
            expected.update({name: copy.deepcopy(f).tensors() for name, f in maps.items()})
        if k == 7:
            made.set()
        return step(k)

    monkeypatch.setattr(Checkpoints, "write", late)
    monkeypatch.setattr(t, "step", seen)
    t.run()
    assert begun == [(n, True) for n in (5, 10, 15, 20, 24)]
    for name, tensors in expected.items():
        assert_same(tensors, load_file(t.checkpoints.of(5).file(name)))


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    t = make(tmp_path)
    t.run()
    newest = t.checkpoints.all()[-1].path
    newest.rename(newest.with_name(newest.name + ".partial"))
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert found is not None
    assert found.step == 20


def test_a_training_that_is_done_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        make(tmp_path, replace(CONFIG, steps=2)).run()
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("has made 2 steps already, of 2: nothing is trained") == 1


def test_data_fit_the_model_by_shape_and_by_the_names_of_classes() -> None:
    data = replace(pictures(), classes=("ant", "bee", "cow"))
    f = FlowMap(MLP((1, 4, 4), num_classes=3, width=8, blocks=1), EDM())
    assert fitted(data, f) is data, "a model without names counts as the data do"
    f.trained = Trained(classes=("cow", "ant", "bee"))
    assert data.labels is not None
    assert torch.equal(fitted(data, f).labels, (data.labels + 1) % 3)  # type: ignore[arg-type]
    f.trained = Trained(classes=("cow", "ant", "dog"))
    with pytest.raises(FewstepError, match="agree by name"):
        fitted(data, f)
    two = FlowMap(MLP((1, 4, 4), num_classes=2, width=8, blocks=1), EDM())
    with pytest.raises(FewstepError, match="2 classes, but arrays has 3"):
        fitted(data, two)
    other = FlowMap(MLP((1, 8, 8), num_classes=3, width=8, blocks=1), EDM())
    with pytest.raises(FewstepError, match=r"shape \[1, 8, 8\], but arrays has \[1, 4, 4\]"):
        fitted(data, other)


def test_labels_missing_for_a_conditional_map(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match="no labels"):
        make(tmp_path, data=pictures(labels=False))


def test_a_batch_larger_than_the_data_is_said_and_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, replace(CONFIG, steps=2), data=pictures(10)).run()
    assert "more than the 10 images" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"clip": 0.0}, "clip"),
        ({"spike": 1.0}, "spike is a multiple above 1"),
        ({"spikes": "drop"}, "Known: damp, skip"),
        ({"ema": (1.0,)}, "ema"),
        ({"ema": ()}, "ema"),
        ({"ema": (math.inf,)}, "ema"),
        ({"ema": (0.9, 0.9)}, "twice"),
        ({"ema": ("0.9",)}, "ema takes numbers"),
        ({"ema": 0.9}, "ema takes a tuple"),
        ({"lr": (1e-3, 1e-4)}, "lr takes no tuple"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"lr": "1e-4"}, "lr takes numbers"),
        ({"microbatches": 3}, "microbatches"),
        ({"seed": -1}, "seed"),
        ({"optimizer": "adamx"}, "Did you mean 'adam"),
        ({"decay": "cosin"}, "Did you mean 'cosine'"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        replace(CONFIG, **wrong)


def test_a_half_life_may_be_an_int() -> None:
    names = [ema_name(value) for value in replace(CONFIG, ema=(1000, 1000.4, 0.9)).ema]
    assert names == ["ema-1000", "ema-1000.4", "ema-0.9"]


def test_energy_distance() -> None:
    """Between N(0, 1) and N(m, 1) in one dimension, against its closed form."""
    a, b = torch.randn(4000, 1), torch.randn(4000, 1) + 1.5
    normal = torch.distributions.Normal(0.0, 1.0)

    def mean_absolute(m: float) -> float:  # E|N(m, 2)|
        s = math.sqrt(2)
        phi = float(normal.log_prob(torch.tensor(m / s)).exp())
        return 2 * s * phi + m * (1 - 2 * float(normal.cdf(torch.tensor(-m / s))))

    truth = 2 * (mean_absolute(1.5) - mean_absolute(0.0))
    assert energy_distance(a, b) == pytest.approx(truth, rel=0.07)
    assert abs(energy_distance(a, torch.randn(4000, 1))) < 0.01


def test_metrics_survive_a_cut_off_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
