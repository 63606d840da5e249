"""What a recipe would need, without training and, where its image size is known, without data."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from fewstep.distributed import pick_device
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.memory import free_memory
from fewstep.networks import Autoencoder, Network, skeleton
from fewstep.objectives.base import weights_of
from fewstep.parameterization import Parameterization
from fewstep.runs.activations import activations, of_vgg
from fewstep.runs.components import make_model, make_network, make_p, objective_of
from fewstep.runs.estimate import BYTES, DryRun, Memory, gib
from fewstep.runs.latent_space import open_autoencoder
from fewstep.runs.parts import load_data
from fewstep.runs.recipe import RECIPES
from fewstep.runs.requirements import asks
from fewstep.runs.run import Run
from fewstep.runs.sources import is_there
from fewstep.runs.step import Speed, build_objective, evaluations, speed

MOST_COPIES = 8  # of the weights that any training holds


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
    shape, num_classes, images = _examples(run, family)
    if run.autoencoder is not None:
        shape = _latent_shape(run.autoencoder, shape, family)
    found = needs_of(run, shape, num_classes, device=pick_device(device), timed=timed)
    return replace(found, asks=asks(run, family), images=images)


def _latent_shape(path: str, shape: tuple[int, ...], family: str) -> tuple[int, ...]:
    """Of the autoencoder that a run names; one that is to be trained is built from its recipe."""
    name = f"{family}/autoencoder"
    if is_there(path) or name not in RECIPES:
        return open_autoencoder(path).latent_shape
    with skeleton():
        F = make_network(RECIPES[name](), shape, 0)
    assert isinstance(F, Autoencoder)
    return F.latent_shape


def needs_of(
    run: Run, shape: tuple[int, ...], num_classes: int, *, device: torch.device, timed: bool = False
) -> DryRun:
    """What a run needs whose examples are known."""
    arguments = {"shape": shape, "num_classes": num_classes, **run.network.arguments}

    make = partial(make_network, run, shape, num_classes)
    with skeleton():
        F = make()
    p = make_p(run)
    bf16 = run.training.precision == "bf16"
    kept = activations(run.network.name, arguments, bf16=bf16)
    count = evaluations(run, F, p)
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    copies = _copies(run, F, p)
    parameters = sum(x.numel() for x in F.parameters())
    memory = Memory(
        state=round(sum(copies.values()) * parameters * BYTES),
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
        evaluations=count.cost,
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
    with skeleton():
        F = make_network(run, shape, num_classes)
    weights = BYTES * sum(x.numel() for x in F.parameters())
    if weights * here > free:
        raise FewstepError(
            f"the network's weights take {gib(weights)}, and {gib(free)} of memory are free on "
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
            f"this training needs about {gib(need.peak * here)} of memory, and {gib(free)} are "
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


def _examples(run: Run, family: str) -> tuple[tuple[int, ...], int, str]:
    """Shape and classes, from the settings or else from the data; and what was found of these."""
    size, channels = run.data.size, run.data.channels
    told = run.network.arguments.get("num_classes")
    if size is not None and channels is not None and (told is not None or not run.data.labels):
        return (channels, size, size), told or 0, ""
    if (
        objective_of(run).needs.columns
        and f"{family}/edm" in RECIPES
        and not Path(run.data.data or "").exists()
    ):
        return _examples(RECIPES[f"{family}/edm"](), "")  # whose model makes the pairs
    data = load_data(run)
    found = f"{len(data):,} found in {data.source or data.name}, the train split"
    skipped = f"; {data.skipped:,} cannot be read" if data.skipped else ""
    return tuple(data.shape), data.num_classes if run.data.labels else 0, found + skipped


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


def _copies(run: Run, F: Network, p: Parameterization) -> dict[str, float]:
    """How many numbers training holds per parameter of the map, by what they are."""
    averages = len(run.training.ema)
    copies: dict[str, float] = {"weights": 1, "gradients": 1, "optimiser": 2, "averages": averages}
    if objective_of(run).needs.teacher.asked:
        copies["teacher"] = 1
    if run.weak is not None:
        copies["weak model"] = 1  # at most: it is seldom the larger one
    objective = build_objective(run, make_model(F, p))
    trained, changing = objective.trained_modules(), objective.changing()
    if "f_minus" in changing:
        copies["target"] = 1
    parameters = max(1, sum(x.numel() for x in F.parameters()))
    for name in trained.keys() - {"f"}:
        held = 4 + averages * (name in objective.averaged())
        copies[name] = held * sum(x.numel() for x in weights_of(trained[name])) / parameters
    return copies
