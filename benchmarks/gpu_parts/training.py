"""Training steps of CIFAR-10's network and of ADM, whole: batch, loss, optimiser, averages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fewstep.data import Dataset
from fewstep.distributed import Processes
from fewstep.flow_map import FlowMap
from fewstep.networks import ADM, Network, UNet, convolution, layers
from fewstep.networks.adm import IMAGENET64
from fewstep.objectives import OBJECTIVES, TeacherUse
from fewstep.parameterization import EDM
from fewstep.training.config import Training
from fewstep.training.recording import WARM
from fewstep.training.trainer import Trainer
from gpu_parts.stage import H100_BF16, Stage, first_call, profiled, replaced, timed

METHODS: dict[str, tuple[str, dict[str, Any], float, int]] = {
    # objective, its settings, dropout of the recipe, forward passes' worth of work in a step
    "edm": ("score_matching", {}, 0.13, 3),
    "ct": ("ct", {"distance": "pseudo_huber"}, 0.0, 4),
    "cd": ("cd", {}, 0.0, 6),
    "ect": ("ect", {}, 0.2, 4),
}
TINY: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1}


def cifar10_network(stage: Stage, dropout: float) -> Network:
    """EDM's for CIFAR-10, 55.7 million parameters."""
    if stage.rehearse:
        return UNet((3, 8, 8), dropout=dropout, **TINY)
    return UNet((3, 32, 32), channels=128, multipliers=(2, 2, 2), blocks=4, dropout=dropout)


def adm_network(stage: Stage) -> Network:
    """ADM's for ImageNet 64x64, 295.9 million parameters."""
    if stage.rehearse:
        return ADM((3, 8, 8), attention=(4,), head_channels=8, **TINY)
    return ADM((3, 64, 64), **IMAGENET64)


Make = Callable[[], Network]


def awake(stage: Stage, make: Make) -> Network:
    """The network on the device; layers that start at zero get weights: zeros compute faster."""
    with stage.device:
        F = make()
    for parameter in F.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return F


def flops(make: Make) -> int:
    """Operations of one evaluation of one image, attention included."""
    with torch.device("meta"):
        F = make().eval()
        x, c_noise = torch.empty(1, *F.shape), torch.empty(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        F(x, c_noise)
    return counter.get_total_flops()


def make(stage: Stage, method: str, batch: int, network: Make, **settings: Any) -> Trainer:
    """A trainer on random images; K is long, so that no step is special."""
    name, arguments, _, _ = METHODS[method]
    F = awake(stage, network)
    f = FlowMap(F, EDM(eps=0.0 if method == "ect" else 0.002))
    if OBJECTIVES[name].needs.teacher is TeacherUse.DISTIL:
        arguments = {**arguments, "teacher": f.frozen_copy()}
    objective = OBJECTIVES.call(name, {"f": f, "K": 100_000, **arguments})
    images = torch.randint(0, 256, (4 * batch, *F.shape), dtype=torch.uint8)
    config = Training(steps=100_000, batch=batch, lr=1e-5, ema=(0.9999,), **settings)
    folder = tempfile.mkdtemp(prefix="fewstep-gpu-")
    group = Processes(device=stage.device)
    return Trainer(objective, Dataset.from_arrays(images), config, folder, group=group, quiet=True)


def stepper(trainer: Trainer) -> Callable[[], object]:
    """One step after another, from the middle of the training on."""
    counter = iter(range(50_000, 60_000))
    return lambda: trainer.step(next(counter))


def rates(batch: int, ms: float, work: float) -> dict[str, float]:
    """From the operations of an image's part in a step."""
    per_s = 1e3 * batch / ms
    return {
        "images_per_s": per_s,
        "tflops": per_s * work / 1e12,
        "of_bf16_peak": per_s * work / H100_BF16,
    }


def measure(
    stage: Stage, what: str, method: str, batch: int, *, profile: bool = True, **settings: Any
) -> None:
    """One line of the table: a method at a batch size and in an arithmetic."""
    _, _, dropout, passes = METHODS[method]
    batch = 4 if stage.rehearse else batch
    with stage.trying(what):
        network = partial(cifar10_network, stage, dropout)
        work, trainer = passes * flops(network), make(stage, method, batch, network, **settings)
        _measured(stage, what, stepper(trainer), batch, work, profile=profile, settings=settings)
    if "failed" in stage.records[-1] and settings.get("deterministic", True):
        free = {**settings, "deterministic": False}
        measure(stage, f"{what}, any algorithms", method, batch, profile=profile, **free)


def _measured(
    stage: Stage,
    what: str,
    step: Callable[[], object],
    batch: int,
    work: float,
    *,
    profile: bool = True,
    settings: dict[str, Any],
) -> None:
    started = time.time()
    seconds = first_call(stage, step)
    for _ in range(WARM + 1 if settings.get("cuda_graphs") else 0):
        step()
    with stage.alone():
        times = timed(stage, step)
        kernels = profiled(stage, step) if profile else {}
    stage.report(
        what,
        batch=batch,
        settings=settings,
        first_call_s=seconds,
        waited_s=time.time() - started,
        memory_gib=stage.memory(),
        **times,
        **rates(batch, times["ms"], work),
        **kernels,
    )


def eager(stage: Stage) -> None:
    """Every method without a compiler."""
    _ceilings(stage)
    for method in METHODS:
        profile = method in ("edm", "ct")
        measure(stage, f"{method} bf16", method, 512, profile=profile, precision="bf16")
    if stage.rehearse:
        return
    for precision in ("fp32", "tf32"):
        for method in ("edm", "ct"):
            what = f"{method} {precision}"
            measure(stage, what, method, 128, precision=precision, profile=False)


def _ceilings(stage: Stage) -> None:
    """What the card gives to a large matrix product and to a copy."""
    n = 64 if stage.rehearse else 8192
    with stage.trying("ceilings"):
        a, b = (torch.randn(n, n, device=stage.device, dtype=torch.bfloat16) for _ in range(2))
        with stage.alone():
            product = timed(stage, lambda: a @ b, 0.3)["ms"]
            copy = timed(stage, a.clone, 0.1)["ms"]
        stage.report(
            "ceilings",
            matmul_tflops=2 * n**3 / product / 1e9,
            copy_gb_per_s=2 * 2 * n * n / copy / 1e6,
        )


def compiled(stage: Stage, name: str, batch: int) -> None:
    """The whole loss as one graph, launched and recorded.

    "-any" after the method also takes what differs in its bits, "-whole" finds the gradient of the
    weights of wide convolutions at once.
    """
    if stage.rehearse:
        torch.compiler.set_stance("force_eager")
    method, _, how = name.partition("-")
    settings: dict[str, Any] = {"precision": "bf16", "compile": True, "deterministic": how != "any"}
    what = f"{method} bf16 compiled" + {"any": ", any algorithms", "whole": ", whole"}.get(how, "")
    wide = torch.iinfo(torch.int64).max if how == "whole" else convolution.WIDEST
    with replaced(convolution, "WIDEST", wide):
        for graphs in (True,) if how == "whole" else (False, True):
            said = what + ", recorded" * graphs
            measure(stage, said, method, batch, cuda_graphs=graphs, **settings)
    if not how and not stage.rehearse:
        with read_twice():
            said = f"{what}, recorded, norms read twice"
            measure(stage, said, method, batch, cuda_graphs=True, **settings)


@contextmanager
def read_twice() -> Iterator[None]:
    """The norm's kernel keeps no image."""
    from fewstep.networks import norm_kernel

    with replaced(norm_kernel, "HELD", 0):
        yield


SHARE = 16  # of ECT's batch of 128, on one of eight GPUs


def recorded(stage: Stage) -> None:
    """ECT's batch of 128 on eight GPUs: launched, and as CUDA graphs; CT's of 512 alike."""
    for method, batch in (("ect", SHARE), ("ct", 512)):
        for graphs in (False, True):
            how = "recorded" if graphs else "launched"
            what = f"{method} bf16, {batch} images, {how}"
            measure(stage, what, method, batch, precision="bf16", cuda_graphs=graphs)


def graphs(stage: Stage) -> None:
    """ECT's batch of 128 on eight GPUs: compiled, and that as CUDA graphs."""
    if stage.rehearse:
        torch.compiler.set_stance("force_eager")
    for graphs in (False, True):
        what = f"ect bf16, {SHARE} images, compiled" + ", recorded" * graphs
        measure(stage, what, "ect", SHARE, precision="bf16", compile=True, cuda_graphs=graphs)


def adm(stage: Stage) -> None:
    """ADM at 64 pixels, in micro-batches of 32: launched, and as CUDA graphs."""
    batch, parts = (4, 2) if stage.rehearse else (64, 2)
    for graphs in (False, True):
        what = f"adm64 ct bf16, micro-batches of {batch // parts}" + ", recorded" * graphs
        with stage.trying(what):
            network = partial(adm_network, stage)
            settings = {"precision": "bf16", "microbatches": parts, "cuda_graphs": graphs}
            step = stepper(make(stage, "ct", batch, network, **settings))
            _measured(stage, what, step, batch, 4 * flops(network), settings=settings)


def choices(stage: Stage) -> None:
    """What each choice of the step gains: EDM, bf16, without a compiler."""
    batch = 256
    measure(stage, "as it is", "edm", batch, precision="bf16")
    with replaced(convolution, "WIDEST", torch.iinfo(torch.int64).max):
        measure(stage, "gradients of wide weights at once", "edm", batch, precision="bf16")
    with sums_apart():
        measure(stage, "biases and sums apart", "edm", batch, precision="bf16")
    if not stage.rehearse:
        with read_twice():
            measure(stage, "norms read twice", "edm", batch, precision="bf16")
    free = {"precision": "bf16", "deterministic": False}
    measure(stage, "cuDNN times its algorithms", "edm", batch, profile=False, **free)
    _host(stage)


@contextmanager
def sums_apart() -> Iterator[None]:
    """Without the kernel of biases, sum and factor."""
    never = replaced(layers, "summed_at_once", lambda a, b: False)
    with never, replaced(layers, "branches_sum", _branches_apart):
        yield


def _branches_apart(
    conv: nn.Conv2d, h: Tensor, skip: nn.Module, x: Tensor, *, balanced: bool
) -> Tensor:
    return layers.balanced_sum(conv(h), skip(x)) if balanced else conv(h) + skip(x)


def _host(stage: Stage) -> None:
    """Host time of what a step does besides the loss."""
    with stage.trying("host"):
        batch = 4 if stage.rehearse else 128
        trainer = make(stage, "edm", batch, partial(cifar10_network, stage, 0.13), precision="bf16")
        objective, f, device = trainer.objective, trainer.objective.f, stage.device
        trainer.step(0)
        for weight in f.weights:
            weight.grad = torch.randn_like(weight) * 1e-3
        indices = torch.arange(batch)
        torchs = torch.optim.RAdam(f.weights, lr=1e-5, foreach=True)
        with stage.alone():
            parts: dict[str, Callable[[], object]] = {
                "radam": trainer.learners["f"].optimizer.step,
                "torch_radam": torchs.step,
                "average": lambda: trainer.averages.update(f, 0),
                "norm": trainer.learners["f"].clip,
                "batch": lambda: trainer.data.batch(indices, device, flip=True),
                "manual_seed": lambda: torch.manual_seed(1),
                "train": objective.train,
            }
            times = {name: timed(stage, step, 0.2) for name, step in parts.items()}
        stage.report("host", **times)
