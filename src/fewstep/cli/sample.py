"""``fewstep sample RUN``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from torch import Tensor

from fewstep.cli.command import Whole, command
from fewstep.cli.sampling import ENGINE, How, spent
from fewstep.data import check_place, save_images, to_uint8
from fewstep.data.images import check_pictures, is_picture, save_points
from fewstep.distributed import processes
from fewstep.exchange.graphs.engines import engine_of
from fewstep.models import as_sampled
from fewstep.precision import Precision
from fewstep.runs.directory import open_model
from fewstep.sampling import check_labels
from fewstep.sampling.shared import share_of_samples
from fewstep.version import __version__


def sample(
    model: Path,
    /,
    *,
    n: Annotated[Whole, Parameter(alias="-n")] = 64,
    how: How | None = None,
    seed: Whole = 0,
    label: str | None = None,
    out: Annotated[Path, Parameter(alias="-o")] = Path("samples.png"),
    checkpoint: str = "last",
    ema: str | None = None,
    batch: Whole | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    engine: Annotated[str, ENGINE] = "torch",
) -> None:
    """Make images with a trained model.

    The images depend on the seed alone: not on the batch size, nor on the number of images or
    processes. A PNG holds in its text chunk fewstep how it was made.

    Examples:
      fewstep sample runs/digits-cd
      fewstep sample runs/digits-cd -n 64 --steps 2 --seed 0 --label 7 -o grid.png
      fewstep sample runs/digits-edm --steps 18 --solver heun -o folder/
      fewstep sample runs/digits-edm --sampler "walk(solver=dpm3, nfe=12)" -o folder/
      fewstep sample runs/digits-edm --solver dpm3 --nfe 12 -o dpm.png
      fewstep sample runs/digits-cd --steps 2 --engine onnx -o onnx.png
      torchrun --nproc-per-node 8 -m fewstep sample runs/cifar10-ect -n 50000 -o samples.npz

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME.
    n
        Number of images.
    seed
        Decides the noise.
    label
        Class to make, by number or name; default all classes in turn.
    out
        A .png (one grid), a folder (one PNG per image), or an .npz (arr_0: uint8 NHWC); of a model
        of points an .npz (arr_0: float32).
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
    asked = (how or How()).asked()
    check_place(out)
    by = engine_of(engine, precision)
    group = processes(by.device(device))
    opened = open_model(
        model, checkpoint=checkpoint, ema=ema, device=group.device, precision=precision
    )
    f = by.model(as_sampled(opened))
    pictures = is_picture(f.image_shape)
    if out.suffix.lower() != ".npz":
        check_pictures(f.image_shape, model, POINTS)
    sampler = by.sampler(f, asked)
    labels = check_labels(f, label, n)
    start = time.perf_counter()
    of = to_uint8 if pictures else Tensor.float
    mine = share_of_samples(f, n, sampler, group, seed=seed, labels=labels, batch=batch, of=of)
    images = group.gather_shares(mine, n)
    seconds = time.perf_counter() - start
    if group.first:
        which = {} if checkpoint == "last" else {"checkpoint": checkpoint}
        which |= {} if ema is None else {"ema": ema}
        settings = {
            "fewstep": __version__,
            "model": str(model),
            "seed": seed,
            "sampler": sampler.spec,
            "engine": by.name,
            "precision": precision,
        } | which
        classes = f.trained.classes
        if pictures:
            save_images(images, out, labels=labels, classes=classes, settings=settings)
        else:
            save_points(images, out, labels=labels, classes=classes)
        many = f"{n} {'image' if pictures else 'point'}{'' if n == 1 else 's'}"
        print(f"{out}: {many}, {spent(sampler)} by {sampler.spec}{by.said}, {seconds:.2f} s")


POINTS = "; give -o points.npz, which holds them as float32 [N, ...] in arr_0"

app = command(sample)
