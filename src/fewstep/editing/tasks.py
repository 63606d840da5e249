"""Edits of pictures, by name: what the command line and the API offer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewstep.data import to_float
from fewstep.editing.denoise import denoise, noise_level
from fewstep.editing.edit import edit, sdedit
from fewstep.editing.operators import Colourise, Deblur, Inpaint, Operator, Outpaint, SuperResolve
from fewstep.editing.pictures import Fit, Picture, Size, cut, join, resized
from fewstep.editing.task import How, Task, size_of
from fewstep.editing.written import in_grey
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.registry import Registry

TASKS: Registry[Task] = Registry("editing task")
GREY_LEVEL = 127.5  # grey levels per unit of data in [-1, 1]


@TASKS.register("inpaint")
@dataclass(frozen=True)
class InpaintTask(Task):
    """Fill in what a mask or a box covers; all other pixels stay as they are.

    Args:
        box: left, top, width and height of what is to be generated; default each picture's `hole`.
        fit: resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """

    box: tuple[int, int, int, int] | None = None
    fit: Fit = "resize"
    keeps = True

    def __post_init__(self) -> None:
        self.check_fit()

    def edit(self, f: FlowMap, y: Tensor, pictures: Sequence[Picture], **how: Any) -> Tensor:
        kept = [self._kept(self.hole(p), size_of(f)) for p in pictures]
        return edit(f, y, Inpaint(torch.cat(kept)), **how)

    def picture(self, f: FlowMap, p: Picture, x: Tensor) -> Tensor:
        return torch.where(self.hole(p), p.like(join(x, p.size, self.fit)), p.values)

    def notes(self, f: FlowMap, p: Picture) -> list[str]:
        whole = [f"the mask covers all of {p.name}: nothing of it is kept."]
        return [*super().notes(f, p), *whole * bool(self.hole(p).all())]

    def hole(self, p: Picture) -> Tensor:
        """What is to be generated of a picture: bool [H, W].

        Raises:
            FewstepError: no mask and no box, both, or one that does not fit or covers nothing.
        """
        if (p.hole is None) == (self.box is None):
            raise FewstepError("inpainting needs either a mask or a box.")
        hole = p.hole if self.box is None else _filled(p, self.box)
        assert hole is not None
        if tuple(hole.shape) != p.size:
            raise FewstepError(
                f"the mask has {hole.shape[1]}x{hole.shape[0]} pixels, but {p.name} has "
                f"{p.size[1]}x{p.size[0]}."
            )
        if not hole.any():
            raise FewstepError(
                f"the mask of {p.name} covers nothing: it must be bright, or painted on "
                "transparency, where pixels are to be generated."
            )
        return hole

    def _kept(self, hole: Tensor, size: Size) -> Tensor:
        """Which pixels of the model's images are kept [n, 1, *size]: those without any hole."""
        if self.fit == "tile":
            return ~cut(hole[None], size, self.fit)
        share = torch.nn.functional.interpolate(hole[None, None].float(), size, mode="area")
        return share == 0


def _filled(p: Picture, box: tuple[int, int, int, int]) -> Tensor:
    left, top, width, height = box
    H, W = p.size
    if min(left, top) < 0 or min(width, height) < 1 or left + width > W or top + height > H:
        raise FewstepError(
            f"the box {' '.join(map(str, box))} (left, top, width, height) does not lie inside "
            f"{p.name} with {W}x{H} pixels."
        )
    hole = torch.zeros(H, W, dtype=torch.bool)
    hole[top : top + height, left : left + width] = True
    return hole


@TASKS.register("outpaint")
@dataclass(frozen=True)
class OutpaintTask(Task):
    """Continue a picture beyond its edges; its own pixels stay as they are.

    The model's canvas is divided into the margins and, inside, the picture, which is stretched to
    it. The result is the picture with margins in proportion.

    Args:
        top, bottom, left, right: pixels of the model's canvas to generate on each side.
    """

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    fits = ("resize",)
    fit: Fit = field(default="resize", init=False)
    keeps = True

    def __post_init__(self) -> None:
        if not any((self.top, self.bottom, self.left, self.right)):
            raise FewstepError("outpainting needs a margin: top, bottom, left or right.")

    @property
    def A(self) -> Outpaint:
        """The operator."""
        return Outpaint(self.top, self.bottom, self.left, self.right)

    def images(self, f: FlowMap, p: Picture) -> Tensor:
        rows, columns = self.A.inside((1, *f.shape))
        inside = rows.stop - rows.start, columns.stop - columns.start
        return self.A.reference(to_float(cut(p.pixels, inside, "resize")))

    def edit(self, f: FlowMap, y: Tensor, pictures: Sequence[Picture], **how: Any) -> Tensor:
        return edit(f, y, self.A, **how)

    def margins(self, f: FlowMap, size: Size) -> tuple[int, int, int, int]:
        """Top, bottom, left and right in pixels of a picture of a size."""
        rows, columns = self.A.inside((1, *f.shape))
        # pixels of the picture per pixel of the canvas
        y, x = size[0] / (rows.stop - rows.start), size[1] / (columns.stop - columns.start)
        return (
            round(self.top * y),
            round(self.bottom * y),
            round(self.left * x),
            round(self.right * x),
        )

    def result_size(self, f: FlowMap, size: Size) -> Size:
        above, below, before, after = self.margins(f, size)
        return above + size[0] + below, before + size[1] + after

    def picture(self, f: FlowMap, p: Picture, x: Tensor) -> Tensor:
        H, W = p.size
        above, _, before, _ = self.margins(f, p.size)
        result = p.like(resized(x[0], self.result_size(f, p.size)))
        result[:, above : above + H, before : before + W] = p.values
        return result


@dataclass(frozen=True)
class Transformed(Task):
    """A task whose operator says all."""

    @property
    @abstractmethod
    def A(self) -> Operator:
        """The operator."""

    def images(self, f: FlowMap, p: Picture) -> Tensor:
        return self.A.reference(super().images(f, p))

    def edit(self, f: FlowMap, y: Tensor, pictures: Sequence[Picture], **how: Any) -> Tensor:
        return edit(f, y, self.A, **how)


@TASKS.register("colourise")
@dataclass(frozen=True)
class ColouriseTask(Transformed):
    """Give a grey picture colours; its grey values stay.

    Args:
        fit: resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """

    fit: Fit = "resize"
    colours = False

    def __post_init__(self) -> None:
        self.check_fit()

    @property
    def A(self) -> Operator:
        return Colourise()

    def channels(self, f: FlowMap) -> int:
        if f.shape[0] != 3:
            raise FewstepError("this model makes grey images: it knows no colours.")
        return 1

    def picture(self, f: FlowMap, p: Picture, x: Tensor) -> Tensor:
        return join(x, p.size, self.fit)


@TASKS.register("superresolve")
@dataclass(frozen=True)
class SuperResolveTask(Transformed):
    """Enlarge a picture by a whole factor; the means of its new pixels stay its old ones.

    Args:
        factor: how much larger; it must divide the model's size.
        fit: tile: enlarge the picture in pieces; resize: stretch it to the model's size over the
            factor.
    """

    factor: int = 2
    fits = ("tile", "resize")
    fit: Fit = "tile"

    def __post_init__(self) -> None:
        self.check_fit()
        SuperResolve(self.factor)  # says what is wrong with it

    @property
    def A(self) -> Operator:
        return SuperResolve(self.factor)

    def channels(self, f: FlowMap) -> int:
        H, W = size_of(f)
        if H % self.factor or W % self.factor:
            raise FewstepError(
                f"the factor {self.factor} does not divide the model's {W}x{H} pixels."
            )
        return f.shape[0]

    def seen(self, f: FlowMap) -> Size:
        H, W = size_of(f)
        return H // self.factor, W // self.factor

    def result_size(self, f: FlowMap, size: Size) -> Size:
        return self.factor * size[0], self.factor * size[1]

    def images(self, f: FlowMap, p: Picture) -> Tensor:
        return self.A.reference(to_float(cut(p.pixels, self.seen(f), self.fit)))

    def picture(self, f: FlowMap, p: Picture, x: Tensor) -> Tensor:
        pixels = join(x, self.result_size(f, p.size), self.fit)
        return in_grey(pixels) if p.grey else pixels


@TASKS.register("deblur")
@dataclass(frozen=True)
class DeblurTask(Transformed):
    """Sharpen a picture that a Gaussian has blurred; frequencies that survived are restored.

    Args:
        blur: standard deviation of the blur, in pixels of the model's images.
        floor: frequencies that the blur left less of are generated; those above are divided by
            what is left, which grows noise by at most 1 / floor.
        fit: tile: sharpen the picture in pieces; resize: stretch it to the model's size and back.
    """

    blur: float = 1.0
    floor: float = 0.1
    fits = ("tile", "resize")
    fit: Fit = "tile"

    def __post_init__(self) -> None:
        self.check_fit()
        Deblur(self.blur, self.floor)  # says what is wrong with them

    @property
    def A(self) -> Operator:
        return Deblur(self.blur, self.floor)


@TASKS.register("strokes")
@dataclass(frozen=True)
class StrokesTask(Task):
    """Turn strokes of colour into an image (SDEdit).

    Args:
        strength: above 0 (stay with the strokes) to 1 (forget them).
        fit: resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """

    strength: float = 0.6
    fit: Fit = "resize"
    default_steps = 2

    def __post_init__(self) -> None:
        self.check_fit()

    def edit(self, f: FlowMap, y: Tensor, pictures: Sequence[Picture], **how: Any) -> Tensor:
        return sdedit(f, y, strength=self.strength, **how)


@TASKS.register("vary")
@dataclass(frozen=True)
class VaryTask(StrokesTask):
    """Make variations of an image.

    Args:
        strength: how different: above 0 to 1.
        fit: resize: stretch the picture to the model's size and back; tile: edit it in pieces.
    """

    strength: float = 0.4


@TASKS.register("denoise")
@dataclass(frozen=True)
class DenoiseTask(Task):
    """Remove white noise of a known or estimated level, in one step.

    Args:
        sigma: standard deviation of the noise in grey levels of 255; default an estimate from each
            picture.
    """

    sigma: float | None = None
    default_steps = 1
    fits = ("tile",)
    fit: Fit = field(default="tile", init=False)

    def __post_init__(self) -> None:
        if self.sigma is not None and not self.sigma >= 0:
            raise FewstepError(f"sigma must be at least 0, got {self.sigma:g}.")

    def level(self, p: Picture) -> float:
        """The level given, or that of a picture, in grey levels."""
        if self.sigma is not None:
            return self.sigma
        return GREY_LEVEL * float(noise_level(to_float(p.pixels)[None]))

    def times(self, how: How) -> dict[str, Any]:
        if how.taus is not None or how.steps not in (None, 1):
            raise FewstepError("denoising is one step: it takes no steps or taus.")
        return {}

    def evaluations(self, how: How) -> int:
        return 1

    def edit(self, f: FlowMap, y: Tensor, pictures: Sequence[Picture], **how: Any) -> Tensor:
        del how["seed"]  # nothing is drawn
        counts = torch.tensor([len(self.images(f, p)) for p in pictures])
        each = [self.level(p) / GREY_LEVEL for p in pictures]
        sigma = torch.tensor(each, dtype=torch.float64).repeat_interleave(counts)
        return denoise(f, y, sigma, **how)
