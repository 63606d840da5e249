"""``fewstep sample RUN``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from torch import Tensor

from fewstep.cli.command import Whole, command
from fewstep.cli.job import say
from fewstep.cli.sampling import ENGINE, How, coarse, opening, spent
from fewstep.data import check_place, save_images, to_uint8
from fewstep.data.images import check_pictures, is_picture, save_points
from fewstep.distributed import processes
from fewstep.exchange.graphs.engines import engine_of
from fewstep.models import as_sampled
from fewstep.precision import Precision
from fewstep.runs.opening import open_model
from fewstep.runs.prompts import Wanted, embedding_for
from fewstep.sampling import check_labels
from fewstep.sampling.shared import share_of_samples
from fewstep.version import __version__

PROMPT = Parameter(negative_iterable="")


def sample(
    model: Path,
    /,
    *,
    n: Annotated[Whole, Parameter(alias="-n")] = 64,
    how: How | None = None,
    seed: Whole = 0,
    label: str | None = None,
    prompt: Annotated[tuple[str, ...], PROMPT] = (),
    embedding: Path | None = None,
    encoder: str | None = None,
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
      fewstep sample runs/photos-edm --guidance 2 --weak runs/photos-edm/checkpoints/step-00010000
      fewstep sample runs/photos --prompt "a red roof" --guidance 3 -o roofs.png
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
    prompt
        Text of what is to be shown, for a model that was trained with texts; of several, given one
        by one, the images take turns.
    embedding
        The same as an .npy or .safetensors, [d], [n, d] or [n, tokens, d].
    encoder
        What makes an embedding of a prompt, module:function; default the model's own, if you have
        named it before.
    out
        A .png (one grid), a folder (one PNG per image), or an .npz (arr_0: uint8 NHWC); of a model
        of points an .npz (arr_0: float32).
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    batch
        Images at once, a matter of memory and speed; default 256, or 32
        on a CPU where the network is no mlp.
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
    asked = asked.opened(opening(by, group.device, precision))
    opened = open_model(
        model, checkpoint=checkpoint, ema=ema, device=group.device, precision=precision
    )
    f = by.model(as_sampled(opened))
    pictures = is_picture(f.image_shape)
    if out.suffix.lower() != ".npz":
        check_pictures(f.image_shape, model, POINTS)
    sampler = by.sampler(f, asked)
    labels = check_labels(f, label, n)
    wanted = embedding_for(f, Wanted(prompt, embedding, encoder), n)
    start = time.perf_counter()
    of = to_uint8 if pictures else Tensor.float
    mine = share_of_samples(
        f, n, sampler, group, seed=seed, batch=batch, of=of, labels=labels, embedding=wanted
    )
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
        settings |= {"prompt": list(prompt)} if prompt else {}
        classes = f.trained.classes
        if pictures:
            save_images(images, out, labels=labels, classes=classes, settings=settings)
        else:
            save_points(images, out, labels=labels, classes=classes)
        many = f"{n} {'image' if pictures else 'point'}{'' if n == 1 else 's'}"
        print(f"{out}: {many}, {spent(sampler)} by {sampler.spec}{by.said}, {seconds:.2f} s")
        say(coarse(sampler, f))


POINTS = "; give -o points.npz, which holds them as float32 [N, ...] in arr_0"

app = command(sample)
