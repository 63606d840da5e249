"""One request for an edit: what is asked is looked at before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.editing.batches import check_pixels
from fewstep.editing.masks import Mask
from fewstep.editing.pictures import OPAQUE, Picture, Size
from fewstep.editing.task import How, Task
from fewstep.editing.tasks import TASKS, InpaintTask
from fewstep.errors import FewstepError, unknown
from fewstep.flow_map import FlowMap
from fewstep.serving.forms import Upload
from fewstep.serving.images import base64_png, enlarge, mask, picture, scale_of, sheet
from fewstep.serving.limits import Limits
from fewstep.serving.schemas import EditBody


def task_of(body: EditBody) -> Task:
    """The task that a request names, with its settings."""
    if body.task not in TASKS:
        raise unknown("editing task", body.task, TASKS)
    return TASKS.call(body.task, body.settings())


@dataclass(frozen=True)
class Editing:
    """An edit that fits the model and the limits.

    Args:
        task: what is done.
        p: the picture.
        how: with which numbers.
        size: height and width of a result.
        scale: how many times as large the results are given.
        notes: what was assumed, and what is lost, in sentences.
    """

    task: Task
    p: Picture
    how: How
    size: Size
    scale: int
    notes: list[str]

    @classmethod
    def of(cls, f: FlowMap, sent: Upload, task: Task, how: How, limits: Limits) -> Editing:
        """Decode the pictures and look at everything; takes a while for large ones.

        Raises:
            FewstepError: pictures, sizes or settings that do not fit.
        """
        check_pixels(f, "editing")
        p = picture(sent.image, task.channels(f), limits.pixels, "image")
        if isinstance(task, InpaintTask):
            p = p.masked(_mask(sent, p, limits))
        elif sent.mask is not None or sent.body.marks is not None:
            raise FewstepError(f"a mask is for inpaint; {sent.body.task} takes none.")
        size, parts = task.result_size(f, p.size), how.n * task.parts(f, p.size)
        if parts > limits.parts:
            raise FewstepError(
                f"the picture of {p.size[1]}x{p.size[0]} pixels is too large for this: {parts:,} "
                f"parts of the model's size; at most {limits.parts:,} are allowed."
            )
        scale = scale_of(sent.body.size, size, how.n, limits.pixels, "the result's")
        return cls(task, p, how, size, scale, task.notes(f, p))

    def __call__(self, f: FlowMap) -> list[Tensor]:
        """The results; the engine's work."""
        return self.task(f, [self.p], self.how)[0]

    @property
    def held(self) -> int:
        """Pixels that wait with it."""
        return math.prod(self.p.size)

    @property
    def pixels(self) -> int:
        """Pixels of the answer."""
        return self.how.n * math.prod(self.size) * self.scale**2

    def sheet(
        self, results: Sequence[Tensor], settings: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any], bytes | None]:
        """The results as one picture, its settings and its colour profile."""
        pixels = enlarge(sheet(results), self.scale)
        return pixels, settings, self.p.profile_of(pixels)

    def entries(self, results: Sequence[Tensor], settings: dict[str, Any]) -> list[dict[str, Any]]:
        """The answer's data."""
        return [
            {
                "b64_json": base64_png(
                    enlarge(x, self.scale), {**settings, "index": i}, self.p.profile_of(x)
                ),
                "seed": self.how.seed,
                "index": i,
            }
            for i, x in enumerate(results)
        ]


def _mask(sent: Upload, p: Picture, limits: Limits) -> Mask:
    """The mask sent, or the picture's own transparency.

    Raises:
        FewstepError: neither.
    """
    if sent.mask is not None:
        return mask(sent.mask, limits.pixels, "mask", sent.body.marks)
    if not p.transparent:
        raise FewstepError(
            "inpainting needs either a mask or a box; here a mask, or a picture that is "
            "transparent where pixels are to be generated."
        )
    alpha = p.values[-1]
    hole = alpha == 0 if bool((alpha == 0).any()) else alpha < OPAQUE
    return Mask(hole, "image", ("the transparent part of the picture is generated.",))
