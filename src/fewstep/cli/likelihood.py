"""``fewstep likelihood RUN``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

from fewstep.cli.command import Whole, command
from fewstep.cli.reading import Reading
from fewstep.data import Dataset
from fewstep.distributed import processes
from fewstep.errors import FewstepError
from fewstep.fit_name import FitName
from fewstep.flow_map import FlowMap
from fewstep.likelihood import Likelihood
from fewstep.models import as_map
from fewstep.progress import progress
from fewstep.runs.directory import RunDirectory
from fewstep.runs.opening import open_model
from fewstep.runs.parts import load, real_data
from fewstep.runs.run import Data


def likelihood(
    model: Path,
    /,
    *,
    data: str | None = None,
    reading: Reading | None = None,
    split: str = "test",
    n: Annotated[Whole | None, Parameter(alias="-n")] = None,
    seed: Whole = 0,
    probes: Whole | None = None,
    solver: str = "rk45",
    steps: Whole = 50,
    checkpoint: str = "last",
    ema: str | None = None,
    batch: Whole = 256,
    device: str | None = None,
) -> None:
    """Bits per dimension of images under a diffusion model, by its PF-ODE.

    An upper bound in expectation, with uniform dequantisation, and its standard error over the
    images. Fewer bits are better; images of uniform noise have 8.

    Examples:
      fewstep likelihood runs/digits-edm -n 100
      fewstep likelihood runs/photos-edm --data photos/ --split val --solver "rk45(rtol=1e-4)"
      torchrun --nproc-per-node 8 -m fewstep likelihood runs/cifar10-edm

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME of a diffusion model.
    data
        8-bit images, as --data of train takes them; default the data set of the run.
    split
        Which part of it: test, val or train.
    n
        Images, drawn from all of the split; default every one.
    seed
        Decides which images, their dequantisation and the random directions.
    probes
        Random directions per image of Hutchinson's estimate of the divergence, or 0 for the exact
        trace; default exact up to 64 dimensions, else 1.
    solver
        rk45(rtol=1e-5, atol=1e-5), or a one-step method such as rk4 on a fixed grid.
    steps
        Steps of a one-step method.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average; default the first.
    batch
        Images at once: a matter of memory and speed.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    """
    group = processes(device)
    method = Likelihood(probes, solver, steps)
    stored = open_model(model, checkpoint=checkpoint, ema=ema, device=group.device)
    f = as_map(stored, "a likelihood")
    how = (reading or Reading()).data(data)
    real = group.in_turn(lambda: images_for(f, model, how, split))
    rows = drawn(len(real), n, seed)
    mine = rows[torch.tensor(list(group.share(len(rows))), dtype=torch.long)]
    batches = mine.split(check_batch(batch))

    def measure() -> Tensor:
        parts = [torch.empty(0, 2, dtype=torch.float64)]
        with progress("likelihood", len(mine)) as advance:
            for some in batches:
                parts.append(measured(method, f, real, some, seed))
                advance(len(some) if group.first else 0)
        return torch.cat(parts)

    bits, spent = group.all_gather_shares(group.as_one(measure), len(rows)).unbind(1)
    if group.first:
        probes = method.directions(f)
        trace = f"{probes} random directions" if probes else "exact trace"
        print(
            f"{with_error(bits)} bits/dim: {len(bits)} images, "
            f"{trace}, {round(float(spent.mean()))} network evaluations each"
        )


def check_batch(batch: int) -> int:
    if batch < 1:
        raise FewstepError(f"the batch must hold at least 1 image, got {batch}.")
    return batch


def measured(method: Likelihood, f: FlowMap, real: Dataset, rows: Tensor, seed: int) -> Tensor:
    """Bits per dimension and evaluations of the images in ``rows``: [B, 2]."""
    images = real.images[rows]
    labels = real.labels[rows] if f.num_classes and real.labels is not None else None
    bits, spent = method.bits_per_dim(f, images, indices=rows.tolist(), labels=labels, seed=seed)
    return torch.stack([bits, torch.full_like(bits, spent)], 1)


def drawn(total: int, n: int | None, seed: int) -> Tensor:
    """``n`` different numbers of ``total`` [n], in order; all where ``n`` is None."""
    if n is None:
        return torch.arange(total)
    if not 1 <= n <= total:
        raise FewstepError(f"-n must be from 1 to the {total} images that there are, got {n}.")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n].sort().values


def with_error(bits: Tensor) -> str:
    """The mean, and its standard error where there is more than one image."""
    mean = f"{float(bits.mean()):.4f}"
    if len(bits) == 1:
        return mean
    return f"{mean} ± {float(bits.std()) / math.sqrt(len(bits)):.4f}"


def images_for(f: FlowMap, model: Path, how: Data, split: str) -> Dataset:
    """The images, of the model's size and channels, and with its classes if it has any.

    Args:
        f: the model.
        model: its place.
        how: the images, by default those of the run, and how to read them.
        split: the part of them.

    Raises:
        FewstepError: no data given and the model is not a run; no such data; another shape.
    """
    home = RunDirectory.of(model)
    settings = real_data(home.here()) if how.data is None and home.started else how
    if settings.data is None:
        raise FewstepError(f"{model} does not say what it was trained on: give --data.")
    settings = settings.without_texts().read_as(how)
    settings = replace(settings, labels=settings.labels and f.num_classes > 0)
    if len(f.shape) == 3:
        C, *sides = f.shape
        fit: FitName = settings.fit if sides[0] == sides[1] else "pad"
        how = replace(settings, size=max(sides), channels=C, fit=fit)
        real = load(how, split, (sides[0], sides[1]))
    else:
        real = load(settings)
    if real.shape != f.shape or real.stored.is_floating_point():
        raise FewstepError(
            f"{settings.data} has {real!r}; the likelihood needs 8-bit images of the model's shape "
            f"{list(f.shape)}."
        )
    return real.with_classes(f.classes, f"the model {model}") if f.num_classes else real


app = command(likelihood)
