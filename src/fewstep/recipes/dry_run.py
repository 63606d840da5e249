"""What a recipe would need, without training and, where its image size is known, without data."""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fewstep.distributed import pick_device
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.memory import free_memory
from fewstep.networks import NETWORKS, Autoencoder, Network, skeleton
from fewstep.objectives import OBJECTIVES, TeacherUse
from fewstep.parameterization import Parameterization, from_config
from fewstep.recipes.activations import activations, of_vgg
from fewstep.recipes.latent_space import open_autoencoder
from fewstep.recipes.parts import load_data, teacher_use
from fewstep.recipes.run import RECIPES, Run
from fewstep.recipes.step import Speed, build_objective, evaluations, speed
from fewstep.training.config import Training

BYTES = 4  # of a weight, a gradient and a moment in float32
MOST_COPIES = 8  # of the weights that any training holds
PROCESS = 400 << 20  # of Python, torch and its libraries; on a GPU of the context there
PASSING = 1.1  # of the activations, with the gradients that pass through the largest of them
GPUS, GPU_BYTES = 8, 80e9  # the machine of the papers' recipes
FILLED = 0.92  # share of a memory that fragments and buffers leave for what is counted


@dataclass(frozen=True)
class Memory:
    """Of a training, on one device.

    Args:
        state: bytes of weights, gradients, moments, averages and other maps.
        fixed: bytes of activations that do not depend on the batch.
        per_image: bytes of activations for each image of a micro-batch.
        batch: images of a step.
        parts: micro-batches of a step, over all processes.
    """

    state: int
    fixed: int
    per_image: int
    batch: int
    parts: int

    @property
    def images(self) -> int:
        """Images that a device holds at once."""
        return math.ceil(self.batch / self.parts)

    @property
    def peak(self) -> int:
        """Bytes at the end of a forward pass."""
        return self.peak_at(self.parts)

    def peak_at(self, parts: int) -> int:
        """Bytes with another number of micro-batches."""
        images = math.ceil(self.batch / parts)
        return PROCESS + self.state + int(PASSING * (self.fixed + self.per_image * images))

    def parts_for(self, bytes_: float, processes: int = 1) -> int | None:
        """The fewest micro-batches with which a device of so much memory has enough; or none."""
        for parts in range(processes, self.batch + 1, processes):
            if self.batch % parts == 0 and self.peak_at(parts) <= FILLED * bytes_:
                return parts
        return None


@dataclass(frozen=True)
class DryRun:
    """What a run needs.

    Args:
        shape: of an image (C, H, W), or of a latent.
        num_classes: 0 for an unconditional network.
        parameters: trained ones.
        flops: floating-point operations of one network evaluation of one image.
        copies: of all parameters that training holds, by what they are.
        memory: of a training.
        step_flops: operations of a step, over all processes.
        training: how.
        device: where it would train.
        free: bytes that are free there; None where the system does not tell.
        speed: of this machine; None where it was not measured.
        asks: what will be asked for, as sentences.
        processes: that train together.
    """

    shape: tuple[int, ...]
    num_classes: int
    parameters: int
    flops: int
    copies: dict[str, int]
    memory: Memory
    step_flops: float
    training: Training
    device: torch.device
    free: int | None
    speed: Speed | None
    asks: tuple[str, ...]
    processes: int = 1

    @property
    def state_bytes(self) -> int:
        """Memory of all copies, in bytes; activations come on top."""
        return sum(self.copies.values()) * self.parameters * BYTES

    @property
    def seconds_per_step(self) -> float | None:
        """On this machine."""
        if self.speed is None:
            return None
        return self.step_flops / self.processes / self.speed.flops

    def __str__(self) -> str:
        classes = f"{self.num_classes} classes" if self.num_classes else "no classes"
        held = ", ".join(f"{n} x {what}" if n > 1 else what for what, n in self.copies.items())
        memory = self.memory
        lines = {
            "examples": f"{self.shape}, {classes}",
            "network": f"{self.parameters:,} parameters",
            "evaluation": f"{self.flops / 1e9:,.4g} GFLOPs an image",
            "state": f"{_gib(memory.state)} for {held}",
            "activations": f"{memory.per_image / 2**20:,.4g} MiB an image, "
            f"{memory.images} images at once"
            + (f", and {_gib(memory.fixed)}" if memory.fixed > 1 << 27 else ""),
            "memory": f"{_gib(memory.peak)} at the peak; {self._fits()}",
            f"{GPUS} GPUs": self._on_gpus(),
            "a step": self._time(),
            "asks for": "; ".join(self.asks) or "nothing else",
        }
        return "\n".join(f"{name:<14}{text}" for name, text in lines.items())

    def _fits(self) -> str:
        if self.free is None:
            return "what is free here, the system does not tell"
        there = f"{_gib(self.free)} free on {self.device}"
        if self.memory.peak <= self.free:
            return there
        return f"{there}: too little. {self._remedy(self.free)}"

    def _remedy(self, free: float) -> str:
        parts = self.memory.parts_for(free, self.processes)
        if parts is None:
            return "No number of micro-batches fits: choose a smaller network."
        return f"It fits with --microbatches {parts}."

    def _on_gpus(self) -> str:
        """By arithmetic: whether it fits the machine of the papers' recipes."""
        parts = self.training.microbatches or GPUS
        if parts % GPUS or self.memory.batch % parts:
            return f"a batch of {self.memory.batch} in {parts} parts is not shared evenly"
        need = self.memory.peak_at(parts) / 1e9
        fits = need <= FILLED * GPU_BYTES / 1e9
        least = None if fits else self.memory.parts_for(GPU_BYTES, GPUS)
        how = f"{self.memory.batch // parts} images at once in {parts} micro-batches"
        return f"{how}: {need:,.3g} of {GPU_BYTES / 1e9:.0f} GB each" + (
            "" if fits else f", too much; --microbatches {least} fits" if least else ", too much"
        )

    def _time(self) -> str:
        if self.speed is None or self.seconds_per_step is None:
            return f"{self.step_flops / 1e12:,.3g} TFLOPs"
        whole = self.seconds_per_step * self.training.steps
        return (
            f"{_duration(self.seconds_per_step)} on {self.device} here, {_duration(whole)} for "
            f"{self.training.steps:,} steps; by {self.speed.how}"
        )


def dry_run(
    run: Run, *, recipe: str = "", device: str | None = None, timed: bool = False
) -> DryRun:
    """Count what a run needs, on tensors without numbers.

    Args:
        run: what to train.
        recipe: its name. Pairs or an autoencoder that are not there yet are taken to be those that
            the recipes of its family make.
        device: where; default a GPU where there is one.
        timed: also measure this machine's speed, for some seconds.

    Raises:
        FewstepError: settings that do not work; data that cannot be read where they are needed to
            know the size of an image or the number of classes; no autoencoder where one is named.
    """
    family = recipe.partition("/")[0]
    shape, num_classes = _shape_and_classes(run, family)
    if run.autoencoder is not None:
        shape = _latent_shape(run.autoencoder, shape, family)
    found = needs_of(run, shape, num_classes, device=pick_device(device), timed=timed)
    return replace(found, asks=asks(run, family))


def _latent_shape(path: str, shape: tuple[int, ...], family: str) -> tuple[int, ...]:
    """Of the autoencoder that a run names; one that is to be trained is built from its recipe."""
    name = f"{family}/autoencoder"
    if Path(path).exists() or name not in RECIPES:
        return open_autoencoder(path).latent_shape
    network = RECIPES[name]().network
    with skeleton():
        F = NETWORKS.call(network.name, {"shape": shape, **network.arguments})
    assert isinstance(F, Autoencoder)
    return F.latent_shape


def needs_of(
    run: Run, shape: tuple[int, ...], num_classes: int, *, device: torch.device, timed: bool = False
) -> DryRun:
    """What a run needs whose examples are known."""
    arguments = {"shape": shape, "num_classes": num_classes, **run.network.arguments}

    def make() -> Network:
        return NETWORKS.call(run.network.name, arguments)

    with skeleton():
        F = make()
    p = from_config({"name": run.p.name, **run.p.arguments})
    bf16 = run.training.precision == "bf16"
    kept = activations(run.network.name, arguments, bf16=bf16)
    count = evaluations(run, F, p)
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    copies = _copies(run, F, p)
    parameters = sum(x.numel() for x in F.parameters())
    memory = Memory(
        state=sum(copies.values()) * parameters * BYTES,
        fixed=kept.fixed,
        per_image=int(kept.per_image * count.kept) + _of_distance(run, shape, bf16),
        batch=run.training.batch,
        parts=run.training.microbatches or processes,
    )
    return DryRun(
        shape=shape,
        num_classes=F.num_classes,
        parameters=parameters,
        flops=kept.flops,
        copies=copies,
        memory=memory,
        step_flops=kept.flops * count.cost * run.training.batch,
        training=run.training,
        device=device,
        free=free_on(device),
        speed=_speed(make, kept.flops, memory, device, bf16) if timed else None,
        asks=(),
        processes=processes,
    )


def check_memory(
    run: Run, shape: tuple[int, ...], num_classes: int, device: torch.device, here: int = 1
) -> None:
    """Warn of a training that needs more memory than is free.

    A bound that takes milliseconds comes first: only large trainings are counted.

    Args:
        run: what to train.
        shape: of its examples.
        num_classes: of its network.
        device: where.
        here: processes that share the device's memory.

    Raises:
        FewstepError: one copy of the network does not fit.
    """
    free = free_on(device)
    if free is None:
        return
    arguments = {"shape": shape, "num_classes": num_classes, **run.network.arguments}
    with skeleton():
        F = NETWORKS.call(run.network.name, arguments)
    weights = BYTES * sum(x.numel() for x in F.parameters())
    if weights * here > free:
        raise FewstepError(
            f"the network's weights take {_gib(weights)}, and {_gib(free)} of memory are free on "
            f"{device}: choose a smaller network."
        )
    at_once = run.training.batch // (run.training.microbatches or here)
    if (MOST_COPIES * weights + _bound(F) * at_once) * here < free:
        return
    need = needs_of(run, shape, num_classes, device=device).memory
    if need.peak * here > free:
        parts = need.parts_for(free / here, here)
        how = f"--microbatches {parts} fits" if parts else "choose a smaller network"
        warnings.warn(
            f"this training needs about {_gib(need.peak * here)} of memory, and {_gib(free)} are "
            f"free on {device}: it may be killed. {how}.",
            FewstepWarning,
            stacklevel=2,
        )


def _bound(F: Network) -> int:
    """More bytes than an evaluation of one image keeps: every map at the full size, twice."""
    outputs = sum(x.shape[0] for x in F.parameters() if x.ndim > 1)
    return 2 * BYTES * outputs * math.prod(F.shape[1:])


def free_on(device: torch.device) -> int | None:
    """Bytes that are free on a device; an Apple GPU shares the machine's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def _shape_and_classes(run: Run, family: str) -> tuple[tuple[int, ...], int]:
    """From the settings, or from the data where they do not say."""
    size, channels = run.data.size, run.data.channels
    told = run.network.arguments.get("num_classes")
    if size is not None and channels is not None and (told is not None or not run.data.labels):
        return (channels, size, size), told or 0
    pairs = getattr(OBJECTIVES[run.objective.name], "columns", ())
    if pairs and f"{family}/edm" in RECIPES and not Path(run.data.data or "").exists():
        return _shape_and_classes(RECIPES[f"{family}/edm"](), "")  # whose model makes the pairs
    data = load_data(run)
    return tuple(data.shape), data.num_classes if run.data.labels else 0


def _speed(
    make: Callable[[], Network], flops: int, memory: Memory, device: torch.device, bf16: bool
) -> Speed:
    with torch.random.fork_rng(devices=[]):
        return speed(make, flops, memory.images, device, bf16=bf16)


def _of_distance(run: Run, shape: tuple[int, ...], bf16: bool) -> int:
    """Bytes an image that a learned distance keeps."""
    if not str(run.objective.arguments.get("distance", "")).startswith("lpips"):
        return 0
    return of_vgg(max(shape[1:]), bf16=bf16).per_image


def _copies(run: Run, F: Network, p: Parameterization) -> dict[str, int]:
    """How many numbers training holds per parameter, by what they are."""
    copies = {"weights": 1, "gradients": 1, "optimiser": 2, "averages": len(run.training.ema)}
    if teacher_use(run) is TeacherUse.DISTIL:
        copies["teacher"] = 1
    if "f_minus" in build_objective(run, FlowMap(F, p)).changing():
        copies["target"] = 1
    return copies


def asks(run: Run, family: str = "") -> tuple[str, ...]:
    """What a run needs besides this package, and has not been given."""
    such = f" such as {family}/edm trains" if f"{family}/edm" in RECIPES else ""
    objective = OBJECTIVES[run.objective.name]
    found = []
    if teacher_use(run) is not TeacherUse.NONE:
        found.append(f"--teacher {run.teacher or f'RUN, a diffusion model{such}'}")
    if columns := getattr(objective, "columns", ()):
        found.append(f"--data with pairs ({', '.join(columns)}), which fewstep pairs makes")
    elif run.data.data is None:
        found.append("--data with images")
    else:
        found.append(f"--data {run.data.data}")
    if run.autoencoder is not None:
        found.append(f"--autoencoder {run.autoencoder}")
    found += [f"pip install 'fewstep[{extra}]'" for extra in extras(run)]
    return tuple(found)


def extras(run: Run) -> list[str]:
    """Extras of the package that a run needs and that are not installed."""
    source = run.data.data or ""
    wanted = {
        "lpips": ("lpips", str(run.objective.arguments.get("distance", "")).startswith("lpips")),
        "hub": ("datasets", source.startswith("hub:") or source.endswith(".parquet")),
        "digits": ("sklearn", source == "digits"),
    }
    return [
        extra
        for extra, (module, needed) in wanted.items()
        if needed and importlib.util.find_spec(module) is None
    ]


def _gib(n: float) -> str:
    return f"{n / 2**30:,.2f} GiB" if n >= 2**28 else f"{n / 2**20:,.3g} MiB"


def _duration(seconds: float) -> str:
    """In the unit that reads best."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length:
            n = seconds / length
            return f"{n:,.0f} {unit}" if n >= 100 else f"{n:.3g} {unit}"
    return f"{seconds:.2g} s"
