"""How long a step of a training takes here, measured in a few steps of that training."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fewstep.data import Dataset
from fewstep.data.sharded import Sharded
from fewstep.distributed import Processes, pick_device
from fewstep.flow_map import FlowMap
from fewstep.models import AnyModel
from fewstep.networks import FourierOperator
from fewstep.objectives import Objective
from fewstep.runs.components import make_model, make_network, make_p
from fewstep.runs.images import classes_in
from fewstep.runs.latent_space import find_latents
from fewstep.runs.opening import open_model
from fewstep.runs.parts import load_data
from fewstep.runs.run import Run
from fewstep.runs.sources import is_there
from fewstep.runs.step import build_objective
from fewstep.stages.how import cores
from fewstep.training.config import Precision
from fewstep.training.trainer import Trainer

LEAST = 3  # steps that are timed
FASTER = 1.15
"""How much faster steps in bf16 have to be, to be worth their precision."""


def seconds_per_step(
    run: Run,
    data: Dataset | None = None,
    *,
    device: str | torch.device | None = None,
    threads: int | None = None,
    seconds: float = 2.0,
    patience: float = math.inf,
) -> float:
    """Seconds of a step of a run: the median of steps of its trainer, in the middle of the run.

    The steps are the training's own: batch, data path, optimiser, averages. Nothing is kept of
    them. A teacher that the run asks for need not be there: a copy of the network stands for it.

    Args:
        run: what is to be trained.
        data: its images in memory; default those that it names.
        device: where; default a GPU where there is one.
        threads: of the CPU, as the training will have them; default torch's own number.
        seconds: how long to measure, after two steps that warm up; a slow step is timed thrice.
        patience: seconds of another way; where one warm step takes twice as long it is not measured
            any further, and `inf` is given.

    Raises:
        FewstepError: settings or data that do not work.
    """
    place = torch.device(device) if device is not None else pick_device(None)
    images = load_data(run) if data is None else data
    with _threads(threads), torch.random.fork_rng(), TemporaryDirectory() as folder:
        trainer = _trainer(run, images, place, Path(folder))
        k = run.training.steps // 2
        _timed(trainer, k)
        if _timed(trainer, k) > 2 * patience:
            return math.inf
        took: list[float] = []
        while len(took) < LEAST or sum(took) < seconds:
            took.append(_timed(trainer, k))
    return statistics.median(took)


def fastest_threads(
    run: Run, data: Dataset, device: torch.device, *, seconds: float
) -> tuple[int, float]:
    """The threads of the CPU with which a run is trained fastest, one or all; seconds of a step.

    Threads of small networks wait for each other longer than they compute, and so do those of any
    network on a busy machine.

    Args:
        run: what is to be trained.
        data: its images in memory.
        device: where; on a GPU one thread is enough.
        seconds: how long to measure each.
    """
    best, fewest = math.inf, 1
    for n in sorted({1, cores()}) if device.type == "cpu" else (1,):
        took = seconds_per_step(run, data, device=device, threads=n, seconds=seconds, patience=best)
        if took < best:
            best, fewest = took, n
    return fewest, best


def fastest_precision(
    run: Run, data: Dataset, device: torch.device, *, threads: int, seconds: float
) -> tuple[Precision, float]:
    """The arithmetic that a run is trained in on a device, and the seconds of a step in it.

    On a GPU that is bf16 where it has that. On a CPU it is where steps are `FASTER` times as fast.

    Args:
        run: what is to be trained; its own precision is not looked at.
        data: its images in memory.
        device: where.
        threads: of the CPU.
        seconds: how long to measure each.
    """

    def timed(precision: Precision, patience: float = math.inf) -> float:
        own = replace(run, training=replace(run.training, precision=precision))
        return seconds_per_step(
            own, data, device=device, threads=threads, seconds=seconds, patience=patience
        )

    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return "bf16", timed("bf16")
    in_fp32 = timed("fp32")
    in_bf16 = timed("bf16", patience=in_fp32) if device.type == "cpu" else math.inf
    return ("bf16", in_bf16) if in_fp32 > FASTER * in_bf16 else ("fp32", in_fp32)


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(trainer: Trainer, k: int) -> float:
    start = time.perf_counter()
    trainer.step(k)
    if trainer.group.device.type == "cuda":
        torch.cuda.synchronize(trainer.group.device)
    return time.perf_counter() - start


def _trainer(run: Run, images: Dataset, device: torch.device, folder: Path) -> Trainer:
    """The run's trainer, of freshly initialised weights."""
    autoencoder, origin = (_there(name) for name in (run.autoencoder, run.teacher or run.init))
    latents = find_latents(run, images, origin, device, autoencoder)
    if latents is not None:
        images = latents.encoded(images.subset(range(min(len(images), run.training.batch))))
    network = make_network(run, tuple(images.shape), classes_in(run, images))
    f = make_model(network, make_p(run), latents=latents)
    objective = build_objective(run, f)
    data = _with_columns(images, objective)
    return Trainer(objective, data, run.training, folder, group=Processes(device=device))


def _there(name: str | None) -> AnyModel | None:
    """A model that a run names, where it has been trained already."""
    return None if name is None or not is_there(name) else open_model(name)


def _with_columns(data: Dataset, objective: Objective) -> Dataset:
    """The images with numbers in the place of the columns that they do not have yet."""
    f = objective.f
    if not isinstance(f, FlowMap) or not objective.needs.columns:
        return data
    n, shape = len(data.stored), tuple(f.shape)
    M = f.network.M if isinstance(f.network, FourierOperator) else 1
    made = {
        "noise": torch.randn(1, *shape).expand(n, *shape),
        "trajectory": torch.randn(1, M, *shape).expand(n, M, *shape),
        "times": torch.tensor(f.p.t_min).expand(n, M),
    }
    wanted = [name for name in objective.needs.columns if name in made.keys() - data.columns.keys()]
    return replace(data, columns={**data.columns, **{k: Sharded([made[k]]) for k in wanted}})
