"""``fewstep sample RUN``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.data import check_place, save_images
from fewstep.distributed import processes
from fewstep.precision import Precision
from fewstep.runs.directory import open_model
from fewstep.sampling import Sampler, Walk, check_labels, sampler_for
from fewstep.sampling.shared import share_of_samples


def sample(
    model: Path,
    /,
    *,
    n: Annotated[Whole, Parameter(alias="-n")] = 64,
    steps: Whole | None = None,
    nfe: Whole | None = None,
    seed: Whole = 0,
    label: str | None = None,
    taus: Annotated[
        tuple[float, ...] | None, Parameter(consume_multiple=True, negative_iterable="")
    ] = None,
    solver: str | None = None,
    grid: str | None = None,
    clip: bool = False,
    out: Annotated[Path, Parameter(alias="-o")] = Path("samples.png"),
    checkpoint: str = "last",
    ema: str | None = None,
    batch: Whole | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> None:
    """Make images with a trained model.

    The images depend on the seed alone: not on the batch size, nor on the number of images or
    processes.

    Examples:
      fewstep sample runs/digits-cd
      fewstep sample runs/digits-cd -n 64 --steps 2 --seed 0 --label 7 -o grid.png
      fewstep sample runs/digits-edm --steps 18 --solver heun -o folder/
      fewstep sample runs/digits-edm --solver dpm3 --nfe 12 -o dpm.png
      torchrun --nproc-per-node 8 -m fewstep sample runs/cifar10-ect -n 50000 -o samples.npz

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file.
    n
        Number of images.
    steps
        Network evaluations of a consistency model (default 1), or solver steps of a diffusion
        model (default 18).
    nfe
        Network evaluations to spend exactly, instead of --steps.
    seed
        Decides the noise.
    label
        Class to make, by number or name; default all classes in turn.
    taus
        Time points after the first step, decreasing; default those that came with the model.
    solver
        Solver of a diffusion model, by default heun: euler, ddim(eta=1), dpm3, rk45(rtol=1e-4), ...
        as fewstep list solvers shows them.
    grid
        Times of a diffusion model's steps: karras(rho=7), time, quadratic or log_snr; default
        that of the solver's paper.
    clip
        Clip the denoised image to [-1, 1] at every evaluation of a diffusion model. It keeps a
        model with large errors at the strongest noise from leaving the range; it harms a good one.
    out
        A .png (one grid), a folder (one PNG per image), or an .npz (arr_0: uint8 NHWC).
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    batch
        Images at once, a matter of memory and speed; default 256, or 32 where
        convolutions run on a CPU.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    precision
        Arithmetic of the network: fp32, bf16 or fp16; default that of its weights. Times and noise
        stay in float32.
    """
    check_place(out)
    group = processes(device)
    f = open_model(model, checkpoint=checkpoint, ema=ema, device=group.device, precision=precision)
    if solver or grid or clip:
        f.trained.check_solver("a solver, its time grid or --clip")
    sampler = sampler_for(
        f, steps, taus=taus, solver=solver or "heun", nfe=nfe, grid=grid, clip=clip
    )
    labels = check_labels(f, label, n)
    start = time.perf_counter()
    mine = share_of_samples(f, n, sampler, group, seed=seed, labels=labels, batch=batch)
    images = group.gather_shares(mine, n)
    seconds = time.perf_counter() - start
    if group.first:
        save_images(images, out, labels=labels, classes=f.trained.classes)
        print(f"{out}: {n} image{'' if n == 1 else 's'}, {spent(sampler)}, {seconds:.2f} s")


def spent(sampler: Sampler) -> str:
    """The evaluations of an image: exact, or an adaptive solver's mean."""
    many = f"{sampler.nfe} network evaluation{'' if sampler.nfe == 1 else 's'} each"
    return f"{many} on average" if isinstance(sampler, Walk) and sampler.adaptive else many


app = command(sample)
