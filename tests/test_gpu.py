"""What only a CUDA GPU can show; benchmarks/gpu.py runs these tests where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

import fewstep
from fewstep.data import Dataset
from fewstep.distributed import Processes
from fewstep.evaluation import Evaluator
from fewstep.evaluation.resnet56 import ResNet56
from fewstep.flow_map import FlowMap
from fewstep.networks import NETWORKS
from fewstep.networks.convolution import without_bias
from fewstep.networks.dropout import SharedDropout, dropout
from fewstep.networks.norm import fused, group_norm
from fewstep.objectives import OBJECTIVES
from fewstep.objectives.fit import suited
from fewstep.parameterization import EDM
from fewstep.sampling import Multistep, Walk
from fewstep.trained import CONSISTENCY, DIFFUSION
from fewstep.training.config import Training
from fewstep.training.optimizers import RAdam
from fewstep.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

UNET = "unet(channels=32, multipliers=(1, 2), blocks=1, attention=(8,), dropout=0.2)"
ADM = "adm(channels=64, multipliers=(1, 1), blocks=1, attention=(8,), dropout=0.2)"
CONFIG = Training(
    steps=8,
    batch=32,
    lr=1e-3,
    clip=1.0,
    ema=(0.9,),
    flip=True,
    sample_every=0,
    checkpoint_every=3,
    log_every=4,
    cuda_graphs=False,
)


def group() -> Processes:
    return Processes(device=torch.device("cuda", 0))


def awake(spec: str) -> FlowMap:
    """A map whose network is not zero."""
    F = NETWORKS.build(spec, shape=(3, 16, 16), num_classes=4)
    for parameter in F.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return FlowMap(F, EDM())


def make(
    folder: Path, config: Training = CONFIG, objective: str = "ict", network: str = UNET, **k: Any
) -> Trainer:
    torch.manual_seed(0)
    needs = OBJECTIVES[objective].needs
    f = awake(network.replace("(", "(two_time=True, ", 1) if needs.two_time else network)
    f.p = suited(needs)
    extra = {"s1": 10} if objective in ("ct", "ict") else {}
    if needs.teacher.asked:
        extra["teacher"] = f.frozen_copy()
    o = OBJECTIVES.call(objective, {"f": f, "K": config.steps, **extra})
    images = torch.randint(0, 256, (100, 3, 16, 16), dtype=torch.uint8)
    data = Dataset.from_arrays(images, torch.arange(100) % 4)
    return Trainer(o, data, config, folder, quiet=True, **{"group": group(), **k})


def weights(trainer: Trainer) -> list[Tensor]:
    maps = [*trainer.objective.changing().values(), *trainer.averages.maps.values()]
    return [value.clone() for f in maps for value in f.state_dict().values()]


class Killed(Exception):
    """Stands for a process that dies."""


def resumed(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: Any, **settings: Any) -> bool:
    """Whether a run that died at step 5 ends with the bits of one that did not."""
    whole = make(folder / "whole", *words, **settings)
    whole.run()
    cut = make(folder / "cut", *words, **settings)
    step = cut.step

    def step_or_die(k: int) -> dict[str, Tensor]:
        if k == 5:
            raise Killed
        return step(k)

    monkeypatch.setattr(cut, "step", step_or_die)
    with pytest.raises(Killed):
        cut.run()
    again = make(folder / "cut", *words, **settings)
    again.run()
    return all(map(torch.equal, weights(whole), weights(again)))


@pytest.mark.parametrize("network", [UNET, ADM], ids=["unet", "adm"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_died_ends_with_the_same_bits(
    network: str, precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, precision=precision)
    assert resumed(tmp_path, monkeypatch, config, "ect", network)


@pytest.mark.parametrize("objective", ["score_matching", "ct", "cd", "ect"])
def test_a_step_in_bf16_is_near_that_in_float32(objective: str, tmp_path: Path) -> None:
    config, found = replace(CONFIG, precision="fp32"), {}
    for precision in ("fp32", "bf16"):
        t = make(tmp_path, replace(config, precision=precision), objective)
        found[precision] = t.step(3)["f"]
    torch.testing.assert_close(found["bf16"], found["fp32"], rtol=0.05, atol=0)


def test_float32_is_float32_and_tf32_is_not(tmp_path: Path) -> None:
    """A product and a convolution against float64: TF32 keeps 10 bits of 23."""
    torch.manual_seed(0)
    a, b = (torch.randn(512, 512, device="cuda") for _ in range(2))
    x, w = torch.randn(8, 64, 16, 16, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
    errors = {}
    for precision in ("tf32", "fp32"):
        make(tmp_path, replace(CONFIG, precision=precision))
        product, exact = a @ b, a.double() @ b.double()
        maps = torch.nn.functional.conv2d(x, w)
        exact_maps = torch.nn.functional.conv2d(x.double(), w.double())
        errors[precision] = [
            float((product - exact).norm() / exact.norm()),
            float((maps - exact_maps).norm() / exact_maps.norm()),
        ]
    assert max(errors["fp32"]) < 5e-6
    assert min(errors["tf32"]) > 5e-5


def test_radam_is_torchs() -> None:
    start = torch.rand(1000, 20, device="cuda")
    ours, torchs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine, other = RAdam([ours], lr=1e-3), torch.optim.RAdam([torchs], lr=1e-3)
    for k in range(30):
        ours.grad = torch.randn_like(start)
        torchs.grad = ours.grad.clone()
        mine.step()
        other.step()
        if k == 20:
            mine.restore(other.state_dict()["state"])
    torch.testing.assert_close(ours, torchs, rtol=0, atol=5e-7)


def test_two_passes_share_their_masks_on_the_device() -> None:
    x, shared = torch.ones(64, 64, device="cuda"), SharedDropout()
    with shared:
        first = dropout(x, 0.5, True)
    with shared:
        second = dropout(x, 0.5, True)
    with shared:
        part = dropout(x[:8], 0.5, True)
    assert torch.equal(first, second)
    assert torch.equal(first[:8], part)
    assert 0.4 < float((first == 0).float().mean()) < 0.6
    assert not torch.equal(first, dropout(x, 0.5, True))


def test_one_rank_under_ddp_makes_the_same_steps(tmp_path: Path) -> None:
    plain, wrapped = make(tmp_path / "a"), make(tmp_path / "b")
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped.learners["f"].reduce(wrapped.group.device)
        for k in range(3):
            made = wrapped.step(k)
            torch.testing.assert_close(made["f"], plain.step(k)["f"], rtol=1e-5, atol=0)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("sampler", [Multistep(taus=(0.8,)), Walk(solver="heun", budget=9)])
def test_samples_are_those_of_the_cpu(sampler: Any) -> None:
    torch.manual_seed(0)
    f = awake(UNET).eval()
    torch.backends.cudnn.allow_tf32 = False
    f.trained = DIFFUSION if isinstance(sampler, Walk) else CONSISTENCY
    there = fewstep.sample(f, 12, sampler, seed=3)
    here = fewstep.sample(f.to("cuda"), 12, sampler, seed=3, batch=5)
    torch.testing.assert_close(here, there, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 0.03), ("fp16", 0.005)])
@pytest.mark.parametrize("network", [UNET, ADM], ids=["unet", "adm"])
def test_samples_in_half_precision(network: str, precision: Any, digits: float) -> None:
    torch.manual_seed(0)
    f = awake(network).to("cuda").eval()
    f.trained = CONSISTENCY
    exact = fewstep.sample(f, 8, seed=1)
    rounded = fewstep.sample(f.in_precision(precision), 8, seed=1)
    assert float((rounded - exact).norm() / exact.norm()) < digits


def test_scores_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (400, 3, 32, 32), dtype=torch.uint8)
    torch.backends.cudnn.allow_tf32 = False
    network, scores = ResNet56().eval().requires_grad_(False), []
    for device in ("cpu", "cuda"):
        network = network.to(device)
        evaluator = Evaluator.of(network, images[:200], metrics=("fd", "is"))
        scores.append(evaluator.score(images[200:]).fd)
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


def test_a_compiled_run_that_died_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, precision="bf16", compile=True)
    assert resumed(tmp_path, monkeypatch, config, "ict")


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_have_the_bits_of_those_that_are_launched(
    parts: int, precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout and noise included, and also of a run that died."""
    config = replace(CONFIG, precision=precision, microbatches=parts, checkpoint_every=2)
    launched = make(tmp_path / "launched", config, "ect")
    launched.run()
    config = replace(config, cuda_graphs=True)
    recorded = make(tmp_path / "recorded", config, "ect")
    recorded.run()
    recorder = recorded.learners["f"].recorder
    assert recorder is not None
    assert len(recorder._recordings) == min(parts, 2)
    assert all(map(torch.equal, weights(launched), weights(recorded)))
    assert resumed(tmp_path, monkeypatch, config, "ect")


def test_what_cannot_be_recorded_is_launched_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that waits for the device: its recording breaks off."""

    def trained(folder: Path, config: Training) -> list[Tensor]:
        trainer = make(folder, config, "ect")
        loss = trainer.objective.loss_at

        def loss_at(*words: Any, **named: Any) -> Tensor:
            found = loss(*words, **named)
            return found if float(found.detach().mean()) < 1e9 else 2 * found

        trainer.objective.loss_at = loss_at  # type: ignore[method-assign]
        trainer.run()
        return weights(trainer)

    launched = trained(tmp_path / "launched", CONFIG)
    recorded = trained(tmp_path / "recorded", replace(CONFIG, cuda_graphs=True))
    assert all(map(torch.equal, launched, recorded))
    torch.cuda.empty_cache()  # which fails while torch believes that a recording goes on
    said = capsys.readouterr()
    assert "a step is not recorded as a CUDA graph" in said.out + said.err


RECORDED = ["score_matching", "ct", "cd", "ddpm", "lcm", "cmt", "ctm", "shortcut"]


@pytest.mark.parametrize("objective", RECORDED)
def test_every_loss_can_be_recorded(objective: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, replace(CONFIG, cuda_graphs=True), objective)
    for k in range(5):
        trainer.step(k)
    recorder = trainer.learners["f"].recorder
    assert recorder is not None
    assert recorder.possible
    assert recorder._recordings


def test_one_rank_of_recorded_steps_makes_the_same(tmp_path: Path) -> None:
    config = replace(CONFIG, cuda_graphs=True)
    plain, alone = make(tmp_path / "a"), make(tmp_path / "b", config)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        gradients = [torch.randn_like(p) for p in alone.objective.f.weights]
        before = [g.clone() for g in gradients]
        Processes(0, 2, torch.device("cuda", 0)).mean_of_all(gradients)  # of one of two: its half
        for g, b in zip(gradients, before, strict=True):
            torch.testing.assert_close(g, b / 2)
        for k in range(6):
            made = alone.step(k)
            torch.testing.assert_close(made["f"], plain.step(k)["f"], rtol=1e-5, atol=0)
    finally:
        dist.destroy_process_group()


# all pixels of an image in hand; of (2, 64, 40, 40) and (2, 96, 64, 64) a part at a time
NORM_SHAPES = [(4, 128, 16, 16), (3, 24, 6, 5), (2, 384, 32, 32), (5, 8, 4, 4)]
NORM_SHAPES += [(2, 64, 40, 40), (2, 96, 64, 64)]


@pytest.mark.parametrize("compiled", [False, True], ids=["launched", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_activation_are_torchs(compiled: bool, dtype: torch.dtype) -> None:
    """Values and gradients beside float64, far from zero; the layout stays."""
    torch.manual_seed(0)
    for shape in NORM_SHAPES[: 2 if compiled else None]:
        norm = group_norm(shape[1]).to("cuda")
        torch.nn.init.normal_(norm.weight)
        maps = (2 * torch.randn(shape, device="cuda") + 3).to(dtype)
        x = maps.to(memory_format=torch.channels_last).requires_grad_()
        assert fused(x)
        rows = [torch.randn(shape[:2], device="cuda", requires_grad=True) for _ in range(3)]
        g = torch.randn_like(x)
        silu = torch.compile(norm.silu, fullgraph=True) if compiled else norm.silu
        for film in (False, True):
            leaves = [x, norm.weight, norm.bias, *rows[: 3 if film else 1]]
            y = silu(x, rows[0], (rows[1], rows[2]) if film else None)
            found = [y, *torch.autograd.grad(y, leaves, g)]
            for some in found[:2]:
                assert some.is_contiguous(memory_format=torch.channels_last)
            a, w, b, s, *scale = (v.detach().double().requires_grad_() for v in leaves)
            z = functional.group_norm(a + s[:, :, None, None], norm.num_groups, w, b, norm.eps)
            if film:
                z = z * (1 + scale[0])[:, :, None, None] + scale[1][:, :, None, None]
            z = functional.silu(z)
            exact = [z, *torch.autograd.grad(z, [a, w, b, s, *scale], g.double())]
            limit = 1e-5 if dtype == torch.float32 else 0.01  # the shift's is a difference of sums
            for mine, right in zip(found, exact, strict=True):
                error = (mine - right).detach().norm() / right.detach().norm()
                assert float(error) < limit


def test_dropout_inside_the_norms_kernel() -> None:
    torch.manual_seed(0)
    norm = group_norm(64).to("cuda")
    x = torch.randn(8, 64, 16, 16, device="cuda").to(memory_format=torch.channels_last)
    x.requires_grad_()
    shared, whole = SharedDropout(), norm.silu(x)
    with shared:
        first = norm.silu(x, p=0.3)
    with shared:
        second = norm.silu(x, p=0.3)
    with shared:
        part = norm.silu(x[:3], p=0.3)
    assert torch.equal(first, second)
    assert torch.equal(first[:3], part)
    assert not torch.equal(first, norm.silu(x, p=0.3))
    kept = (first != 0).double()
    assert float(kept.mean()) == pytest.approx(0.7, abs=0.005)
    for axes in ((0, 1, 2), (0, 2, 3), (1, 2, 3)):
        assert float((kept.mean(axes) - 0.7).abs().max()) < 0.1
    torch.testing.assert_close(first, whole * kept.float() / 0.7)
    g = torch.randn_like(x)
    (mine,), (right,) = (
        torch.autograd.grad(y, x, h) for y, h in ((first, g), (whole, g * kept.float() / 0.7))
    )
    torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)
    assert torch.equal(norm.eval().silu(x, p=0.3), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_sum_with_a_bias_in_one_kernel_is_torchs(biased: bool, dtype: torch.dtype) -> None:
    from fewstep.networks.sum_kernel import Sum

    torch.manual_seed(0)
    for shape in ((4, 128, 16, 16), (3, 24, 6, 5), (2, 384, 8, 8), (64, 256, 32, 32)):
        maps = (torch.randn(shape, device="cuda", dtype=dtype) + 1 for _ in range(3))
        a, b, g = (x.to(memory_format=torch.channels_last) for x in maps)
        leaves = [a, b, *([torch.randn(shape[1], device="cuda")] if biased else [])]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        y = Sum.apply(a, b, leaves[2] if biased else None, 0.7)
        found = [y, *torch.autograd.grad(y, leaves, g)]
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        z = 0.7 * (exact[0] + exact[1] + (exact[2][:, None, None] if biased else 0))
        limit = 2e-6 if dtype == torch.float32 else 0.01
        for mine, right in zip(found, [z, *torch.autograd.grad(z, exact, g.double())], strict=True):
            assert float((mine - right).detach().norm() / right.detach().norm()) < limit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wide_convolution_is_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    conv = torch.nn.Conv2d(384, 64, 3, padding=1, bias=False, device="cuda")
    x = torch.randn(4, 384, 16, 16, device="cuda", dtype=dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y, exact = without_bias(conv, x), conv(x.float())
    g = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, conv.weight), g)
    right = torch.autograd.grad(exact, (x, conv.weight), g.float())
    for a, b in zip((y, *found), (exact, *right), strict=True):
        assert a.is_contiguous(memory_format=torch.channels_last)
        assert float((a - b).detach().norm() / b.detach().norm()) < 0.01
