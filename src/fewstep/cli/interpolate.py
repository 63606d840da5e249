"""``fewstep interpolate RUN``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from PIL import Image
from torch import Tensor

from fewstep.cli.command import Whole, command
from fewstep.cli.job import Files, say
from fewstep.cli.sampling import GUIDANCE, INTERVAL, WEAK, guided, opening
from fewstep.data import check_place, save_images, to_float, to_uint8
from fewstep.editing import decode, encode, latents, walk
from fewstep.editing.pictures import cut, placed, read
from fewstep.editing.task import lost_of
from fewstep.editing.written import to_pil
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.engines import engine_of
from fewstep.flow_map import FlowMap
from fewstep.sampling import Asked, default_taus

FILMS = (".gif", ".webp")
MOST_FRAMES = 10_000
VISIBLE = 256  # a film of tiny images is enlarged to about this many pixels


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Film(Files):
    """Which model, where the strip or film goes, and how it is computed."""

    out: Annotated[
        Path, Parameter(alias="-o", help="A strip, as .png, or a film, as .gif or .webp.")
    ]


def interpolate(
    model: Path,
    /,
    *,
    from_: Annotated[str, Parameter(name="--from")] = "0",
    to: str = "1",
    frames: Whole = 9,
    sampler: str | None = None,
    steps: Whole | None = None,
    guidance: Annotated[float | None, Parameter(help=f"{GUIDANCE}.")] = None,
    guidance_interval: Annotated[tuple[float, float] | None, INTERVAL] = None,
    weak: Annotated[str | None, WEAK] = None,
    seed: Whole = 0,
    teacher: Path | None = None,
    fps: float = 12.0,
    o: Film,
) -> None:
    """Pass from one image to another: a row of images, or a film there and back.

    The ends are samples, as fewstep sample numbers them from 0, or pictures, which a diffusion
    model turns into noise first. Between them the noise is interpolated on the sphere.

    Examples:
      fewstep interpolate runs/digits-cd --from 3 --to 13 --frames 9 -o strip.png
      fewstep interpolate runs/digits-cd --from 3 --to 13 --frames 30 -o film.gif
      fewstep interpolate runs/photos --from a.png --to b.png --teacher runs/photos-edm -o strip.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME.
    from_
        Number of a sample, or a picture.
    to
        The same.
    frames
        Images, ends included.
    sampler
        The sampler as a spec, such as jumps(gamma=0.5), as fewstep list samplers shows them;
        default the model's own.
    steps
        Network evaluations of a consistency model (default 1), or solver steps of a diffusion
        model (default 18).
    seed
        Seed of the samples.
    teacher
        Diffusion model to turn pictures into noise with; default the model, if it is one. The class
        is that of --label.
    fps
        Frames of a film per second.
    """
    _check(o.out, frames, fps)
    asked = Asked(steps, sampler=sampler, guidance=guided(guidance, guidance_interval, weak))
    f = o.open(model)
    label = _label(f, o, from_)
    coder = f if teacher is None else replace(o, checkpoint="last", ema=None).open(teacher)
    wanted = o.wanted(f)
    ends = [_latent(f, coder, word, seed, label, wanted) for word in (from_, to)]
    how = _how(f, steps, asked.opened(opening(engine_of(o.engine), f.device)))
    z = walk(torch.cat(ends), frames)
    x = decode(f, z, seed=seed, labels=label, embedding=wanted, batch=o.batch, **how)
    images = to_uint8(x)
    if o.out.suffix == ".png":
        save_images(images, o.out, columns=frames)
    else:
        _film(images, o.out, fps)
    print(f"{o.out}: {frames} frames")


def _check(out: Path, frames: int, fps: float) -> None:
    if not 2 <= frames <= MOST_FRAMES:
        raise FewstepError(f"--frames must be at least 2, at most {MOST_FRAMES:,}, got {frames}.")
    if not 0 < fps <= 100:
        raise FewstepError(f"--fps must be above 0 and at most 100, got {fps:g}.")
    if out.suffix not in (".png", *FILMS):
        raise FewstepError(f"{out}: a strip is a .png, a film a {' or a '.join(FILMS)}.")
    check_place(out.with_suffix(".png"))


def _label(f: FlowMap, o: Film, start: str) -> int | None:
    """The class of all frames: the one asked for, or that of the sample that they start from."""
    if o.label is None and f.num_classes and start.isdecimal():
        return int(start) % f.num_classes
    return o.labels(f)


def _latent(
    f: FlowMap, coder: FlowMap, word: str, seed: int, label: int | None, wanted: Tensor | None
) -> Tensor:
    """The latent [1, *shape] of a sample's number, or of a picture."""
    if word.isdecimal():
        return latents(f, [int(word)], seed)
    coder.trained.check_denoises(
        f"{word} must become noise first: that", "give the diffusion model with --teacher"
    )
    if coder.shape != f.shape or coder.num_classes != f.num_classes:
        raise FewstepError(
            f"the teacher makes images of shape {list(coder.shape)} in {coder.num_classes} "
            f"classes, the model {list(f.shape)} in {f.num_classes}."
        )
    path = Path(word)
    channels, *size = f.image_shape
    p = read(path, channels, path.name)
    say(lost_of(f, p))
    x = to_float(cut(p.pixels, (size[0], size[1]), "resize"))
    return encode(coder, x, labels=label, embedding=wanted)


def _how(f: FlowMap, steps: int | None, asked: Asked) -> dict[str, Any]:
    """What `decode` is told of the sampler."""
    if asked.sampler or asked.guidance or f.trained.guidance or f.trained.maps_to_any:
        return {"sampler": asked.of(f)}
    if f.trained.solves:
        return {"N": steps or f.trained.default_steps}
    return {"taus": default_taus(f, steps or 1)}


def _film(images: Tensor, out: Path, fps: float) -> None:
    """There and back for ever, with sharp pixels."""
    scale = max(1, VISIBLE // max(images.shape[2:]))
    large = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    first, *rest = _there_and_back([to_pil(image) for image in large])
    with placed(out) as path:
        first.save(
            path,
            save_all=True,
            append_images=rest,
            duration=round(1000 / fps),
            loop=0,
            lossless=True,  # of a .webp; a .gif always is
        )


def _there_and_back(frames: list[Image.Image]) -> list[Image.Image]:
    return frames + frames[-2:0:-1]


app = command(interpolate)
