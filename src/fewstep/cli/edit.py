"""``fewstep edit TASK RUN PICTURE``."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from fewstep.cli.command import Whole, command
from fewstep.cli.job import Drawing, Job
from fewstep.data.folder import ENDINGS
from fewstep.editing.masks import Marks, open_mask
from fewstep.editing.pictures import Fit, Picture
from fewstep.editing.tasks import (
    ColouriseTask,
    DeblurTask,
    InpaintTask,
    OutpaintTask,
    StrokesTask,
    SuperResolveTask,
    VaryTask,
)
from fewstep.errors import FewstepError, not_there


def inpaint(
    model: Path,
    picture: Path,
    /,
    *,
    mask: Path | None = None,
    marks: Marks | None = None,
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
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
    picture
        Picture, or folder of pictures.
    mask
        Picture of the same proportions, bright where pixels are to be generated. Where its
        transparency varies, what is painted is generated, in whatever colour. For a folder of
        pictures also a folder with a mask of the same name for each.
    marks
        What of the mask marks pixels to be generated: bright, dark, painted (opaque) or
        transparent; default painted where its transparency varies, else bright.
    box
        Left, top, width and height of what is to be generated, instead of a mask.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    if (mask is None) == (box is None):
        raise FewstepError("inpainting needs either --mask or --box.")
    if marks is not None and mask is None:
        raise FewstepError("--marks says how to read a --mask, and there is none.")
    job = Job(model, picture, o)
    if mask is not None:
        job.pictures = [_masked(p, mask, marks) for p in job.pictures]
    job.run(InpaintTask(box, fit))


def _masked(p: Picture, mask: Path, marks: Marks | None) -> Picture:
    path = _mask_of(p, mask) if mask.is_dir() else mask
    if not path.is_file():
        raise not_there("mask", path)
    return p.masked(open_mask(path, path.name, marks))


def _mask_of(p: Picture, folder: Path) -> Path:
    """The mask of a picture's name, or else of its name with another ending."""
    same = folder / p.name
    others = (same.with_suffix(ending) for ending in ENDINGS)
    return next((path for path in (same, *others) if path.is_file()), same)


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
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
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
    Job(model, picture, o).run(OutpaintTask(top, bottom, left, right))


def colourise(model: Path, picture: Path, /, *, fit: Fit = "resize", o: Drawing) -> None:
    """Give a grey picture colours; its grey values stay.

    Examples:
      fewstep edit colourise runs/photos grey.png -o colours.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model of colour
        images.
    picture
        Picture, or folder of pictures; what colours they have are not looked at.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    task = ColouriseTask(fit)
    Job(model, picture, o, task).run(task)


def superresolve(
    model: Path, picture: Path, /, *, factor: Whole = 2, fit: Fit = "tile", o: Drawing
) -> None:
    """Enlarge a picture by a whole factor; the means of its new pixels stay its old ones.

    Examples:
      fewstep edit superresolve runs/digits-cd small.png --factor 2 --label 3 -o large.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
    picture
        Small picture, or folder of them.
    factor
        How much larger; it must divide the model's size.
    fit
        tile: enlarge the picture in pieces; resize: stretch it to the model's size over the factor.
    """
    task = SuperResolveTask(factor, fit)
    Job(model, picture, o, task).run(task)


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
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
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
    Job(model, picture, o).run(DeblurTask(blur, floor, fit))


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
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
    picture
        Picture of strokes, or folder of them.
    strength
        Above 0 (stay with the strokes) to 1 (forget them), in noise alike for every process; --taus
        says it as times of the model's own.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    Job(model, picture, o).run(StrokesTask(strength, fit))


def vary(
    model: Path,
    picture: Path,
    /,
    *,
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
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
    picture
        Picture, or folder of pictures.
    strength
        How different: above 0 to 1.
    fit
        resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """
    Job(model, picture, o).run(VaryTask(strength, fit))


app = App(
    name="edit",
    help_format="plaintext",
    help="Edit pictures with a consistency model that was trained for none of it.",
    help_epilogue="""\
Examples:
  fewstep edit inpaint runs/digits-cd digit.png --box 0 4 8 4 --label 3 -o x.png
  fewstep edit superresolve runs/digits-cd small.png --label 3 -o large.png
  fewstep edit strokes runs/digits-cd drawing.png --label 3 -o image.png""",
)
for task in (inpaint, outpaint, colourise, superresolve, deblur, strokes, vary):
    app.command(command(task))
