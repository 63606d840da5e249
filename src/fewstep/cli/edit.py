"""``fewstep edit TASK RUN PICTURE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import App, Parameter
from torch import Tensor

from fewstep.cli.command import Whole, command
from fewstep.cli.job import Drawing, Job
from fewstep.editing import (
    Colourise,
    Deblur,
    Inpaint,
    Operator,
    Outpaint,
    SuperResolve,
    edit,
    sdedit,
)
from fewstep.editing.pictures import Fit, Picture, cut, join, read_mask, resized
from fewstep.errors import FewstepError

STEPS, STROKES = 8, 2  # default network evaluations


def inpaint(
    model: Path,
    picture: Path,
    /,
    *,
    mask: Path | None = None,
    box: tuple[int, int, int, int] | None = None,
    fit: Fit = "resize",
    o: Drawing,
) -> None:
    """Fill in what a mask or a box covers; all other pixels stay as they are.

    Examples:
      fewstep edit inpaint runs/digits-cd digit.png --box 0 4 8 4 --label 3 -o filled.png
      fewstep edit inpaint runs/photos photo.jpg --mask hole.png --steps 16 -o filled.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    picture
        Picture, or folder of pictures.
    mask
        Picture of the same size, bright where pixels are to be generated.
    box
        Left, top, width and height of what is to be generated, instead of a mask.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    job = Job(model, picture, o)
    holes = [_hole(p, mask, box) for p in job.pictures]
    keep = torch.cat([_kept(hole, job.size, fit) for hole in holes])
    parts = job.run(edit, job.tiles(fit), Inpaint(keep), seed=o.seed, **o.times(STEPS))
    results = [
        torch.where(hole, join(part, p.size, fit), p.pixels)
        for p, hole, part in zip(job.pictures, holes, parts, strict=True)
    ]
    job.write(results, o.note(STEPS))


def _hole(p: Picture, mask: Path | None, box: tuple[int, int, int, int] | None) -> Tensor:
    """What is to be generated of a picture: bool [H, W]."""
    if (mask is None) == (box is None):
        raise FewstepError("inpainting needs either --mask or --box.")
    hole = read_mask(mask) if mask is not None else _filled(p, box or (0, 0, 0, 0))
    if tuple(hole.shape) != p.size:
        raise FewstepError(
            f"the mask {mask} has {hole.shape[1]}x{hole.shape[0]} pixels, but {p.name} has "
            f"{p.size[1]}x{p.size[0]}."
        )
    return hole


def _filled(p: Picture, box: tuple[int, int, int, int]) -> Tensor:
    left, top, width, height = box
    H, W = p.size
    if min(left, top) < 0 or min(width, height) < 1 or left + width > W or top + height > H:
        raise FewstepError(
            f"--box {' '.join(map(str, box))} (left, top, width, height) does not lie inside "
            f"{p.name} with {W}x{H} pixels."
        )
    hole = torch.zeros(H, W, dtype=torch.bool)
    hole[top : top + height, left : left + width] = True
    return hole


def _kept(hole: Tensor, size: tuple[int, int], fit: Fit) -> Tensor:
    """Which pixels of the model's images are kept [n, 1, *size]: those without any hole."""
    if fit == "tile":
        return ~cut(hole[None], size, fit)
    share = torch.nn.functional.interpolate(hole[None, None].float(), size, mode="area")
    return share == 0


def outpaint(
    model: Path,
    picture: Path,
    /,
    *,
    top: Whole = 0,
    bottom: Whole = 0,
    left: Whole = 0,
    right: Whole = 0,
    o: Drawing,
) -> None:
    """Continue a picture beyond its edges; its own pixels stay as they are.

    The model's canvas is divided into the margins and, inside, the picture, which is stretched to
    it. The result is the picture with margins in proportion.

    Examples:
      fewstep edit outpaint runs/digits-cd half.png --right 4 --label 3 -o whole.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    picture
        Picture, or folder of pictures.
    top
        Pixels of the model's canvas to generate above the picture.
    bottom
        Below it.
    left
        On its left.
    right
        On its right.
    """
    A = Outpaint(top, bottom, left, right)
    job = Job(model, picture, o)
    rows, columns = A.inside((1, *job.f.shape))
    inside = rows.stop - rows.start, columns.stop - columns.start
    y = [A.reference(tiles) for tiles in job.tiles("resize", inside)]
    parts = job.run(edit, y, A, seed=o.seed, **o.times(STEPS))
    results = [_framed(p, part[0], A) for p, part in zip(job.pictures, parts, strict=True)]
    job.write(results, o.note(STEPS))


def _framed(p: Picture, canvas: Tensor, A: Outpaint) -> Tensor:
    """The picture itself, at its own size, inside margins from the canvas [C, h, w]."""
    (H, W), (h, w) = p.size, canvas.shape[1:]
    top, bottom, left, right = A.margins
    y, x = H / (h - top - bottom), W / (w - left - right)  # pixels per pixel of the canvas
    above, before = round(top * y), round(left * x)
    size = above + H + round(bottom * y), before + W + round(right * x)
    result = resized(canvas, size).clone()
    result[:, above : above + H, before : before + W] = p.pixels
    return result


def colourise(model: Path, picture: Path, /, *, fit: Fit = "resize", o: Drawing) -> None:
    """Give a grey picture colours; its grey values stay.

    Examples:
      fewstep edit colourise runs/photos grey.png -o colours.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model of colour images.
    picture
        Picture, or folder of pictures; what colours they have are not looked at.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    A = Colourise()
    job = Job(model, picture, o, channels=1)
    if job.f.shape[0] != 3:
        raise FewstepError(f"{model} makes grey images: it knows no colours.")
    job.all_in_colour()
    _transformed(job, A, job.tiles(fit), fit, o)


def superresolve(
    model: Path, picture: Path, /, *, factor: Whole = 2, fit: Fit = "tile", o: Drawing
) -> None:
    """Enlarge a picture by a whole factor; the means of its new pixels stay its old ones.

    Examples:
      fewstep edit superresolve runs/digits-cd small.png --factor 2 --label 3 -o large.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    picture
        Small picture, or folder of them.
    factor
        How much larger; it must divide the model's size.
    fit
        tile: enlarge the picture in pieces; resize: stretch it to the model's size over the factor.
    """
    A = SuperResolve(factor)
    job = Job(model, picture, o)
    H, W = job.size
    if H % factor or W % factor:
        raise FewstepError(f"--factor {factor} does not divide the model's {W}x{H} pixels.")
    _transformed(job, A, job.tiles(fit, (H // factor, W // factor)), fit, o, factor)


def deblur(
    model: Path,
    picture: Path,
    /,
    *,
    blur: float = 1.0,
    floor: float = 0.1,
    fit: Fit = "tile",
    o: Drawing,
) -> None:
    """Sharpen a picture that a Gaussian has blurred; frequencies that survived are restored.

    Examples:
      fewstep edit deblur runs/digits-cd blurred.png --blur 1 --label 3 -o sharp.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    picture
        Blurred picture, or folder of them.
    blur
        Standard deviation of the blur, in pixels of the model's images.
    floor
        Frequencies that the blur left less of are generated; those above are divided by what is
        left, which grows noise by at most 1 / floor.
    fit
        tile: sharpen the picture in pieces; resize: stretch it to the model's size and back.
    """
    job = Job(model, picture, o)
    _transformed(job, Deblur(blur, floor), job.tiles(fit), fit, o)


def _transformed(
    job: Job, A: Operator, observed: list[Tensor], fit: Fit, o: Drawing, scale: int = 1
) -> None:
    """Edit what was observed and write pictures ``scale`` times as large."""
    y = [A.reference(tiles) for tiles in observed]
    parts = job.run(edit, y, A, seed=o.seed, **o.times(STEPS))
    sizes = [(scale * H, scale * W) for H, W in (p.size for p in job.pictures)]
    results = [join(part, size, fit) for part, size in zip(parts, sizes, strict=True)]
    job.write(results, o.note(STEPS))


def strokes(
    model: Path,
    picture: Path,
    /,
    *,
    strength: float = 0.6,
    fit: Fit = "resize",
    o: Drawing,
) -> None:
    """Turn strokes of colour into an image (SDEdit).

    Examples:
      fewstep edit strokes runs/digits-cd drawing.png --label 3 -o image.png
      fewstep edit strokes runs/photos drawing.png --taus 5.38 2.24 -o image.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    picture
        Picture of strokes, or folder of them.
    strength
        Above 0 (stay with the strokes) to 1 (forget them); --taus says it as noise levels.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    _redrawn(Job(model, picture, o), strength, 1, fit, o)


def vary(
    model: Path,
    picture: Path,
    /,
    *,
    n: Annotated[Whole, Parameter(alias="-n")] = 1,
    strength: float = 0.4,
    fit: Fit = "resize",
    o: Drawing,
) -> None:
    """Make variations of an image.

    Examples:
      fewstep edit vary runs/digits-cd digit.png -n 4 --label 3 -o variations.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    picture
        Picture, or folder of pictures.
    n
        How many variations; they are put side by side.
    strength
        How different: above 0 to 1.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    if n < 1:
        raise FewstepError(f"the number of variations must be at least 1, got -n {n}.")
    _redrawn(Job(model, picture, o), strength, n, fit, o)


def _redrawn(job: Job, strength: float, n: int, fit: Fit, o: Drawing) -> None:
    """`sdedit` of every picture ``n`` times, the results side by side."""
    y = [tiles.repeat(n, 1, 1, 1) for tiles in job.tiles(fit)]
    times = o.times(STROKES)
    parts = job.run(sdedit, y, seed=o.seed, strength=strength, **times)
    results = [
        torch.cat([join(tiles, p.size, fit) for tiles in part.chunk(n)], 2)
        for p, part in zip(job.pictures, parts, strict=True)
    ]
    job.write(results, o.note(STROKES))


app = App(
    name="edit",
    help_format="plaintext",
    help="Edit pictures with a consistency model that was trained for none of it.",
    help_epilogue="""\
Examples:
  fewstep edit inpaint runs/digits-cd digit.png --box 0 4 8 4 --label 3 -o filled.png
  fewstep edit superresolve runs/digits-cd small.png --factor 2 --label 3 -o large.png
  fewstep edit strokes runs/digits-cd drawing.png --label 3 -o image.png""",
)
for task in (inpaint, outpaint, colourise, superresolve, deblur, strokes, vary):
    app.command(command(task))
