"""What the editing commands share: their options, and pictures on their way through a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import Tensor

from fewstep.cli.command import Whole
from fewstep.cli.sample import label_of
from fewstep.data import to_float, to_uint8
from fewstep.distributed import pick_device
from fewstep.editing.pictures import (
    Fit,
    Size,
    check_out,
    cut,
    in_grey,
    read_all,
    write_all,
)
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.progress import progress
from fewstep.recipes.directory import open_model


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Files:
    """Which model, where the result goes, and how it is computed."""

    out: Annotated[
        Path,
        Parameter(
            alias="-o",
            help="Picture to write, in the format of its ending; for a folder of pictures a new "
            "folder.",
        ),
    ]
    label: Annotated[
        str | None, Parameter(help="Class, by number or name; conditional models need it.")
    ] = None
    checkpoint: Annotated[
        str, Parameter(help="Checkpoint of a run folder: last, best or a step.")
    ] = "last"
    ema: Annotated[
        str | None,
        Parameter(help="Which running average, or f for the raw weights; default the first."),
    ] = None
    batch: Annotated[Whole, Parameter(help="Images at once: a matter of memory and speed.")] = 256
    device: Annotated[
        str | None, Parameter(help="cpu, cuda, cuda:1 or mps; default a GPU where there is one.")
    ] = None

    def open(self, model: Path) -> FlowMap:
        """The model, which must be one of images."""
        f = open_model(
            model, checkpoint=self.checkpoint, ema=self.ema, device=pick_device(self.device)
        )
        if len(f.shape) != 3 or f.shape[0] not in (1, 3):
            raise FewstepError(f"{model} makes points of shape {list(f.shape)}, not images.")
        return f

    def labels(self, f: FlowMap) -> int | None:
        """The class asked for.

        Raises:
            FewstepError: one that is missing, superfluous or unknown.
        """
        if self.label is not None:
            return int(label_of(f, self.label, 1))
        if f.num_classes:
            names = f.info.get("classes") or [str(i) for i in range(f.num_classes)]
            raise FewstepError(
                f"this model is conditional: give the class with --label, such as {names[0]}. "
                f"Known: {', '.join(names)}."
            )
        return None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Drawing(Files):
    """The same, and how the unknown is drawn."""

    steps: Annotated[
        Whole | None, Parameter(help="Network evaluations; default 8, of strokes and vary 2.")
    ] = None
    taus: Annotated[
        tuple[float, ...] | None,
        Parameter(
            consume_multiple=True,
            negative_iterable="",
            help="Noise levels, decreasing, instead of --steps.",
        ),
    ] = None
    seed: Annotated[Whole, Parameter(help="Decides the noise.")] = 0

    def times(self, default: int) -> dict[str, Any]:
        """The times, or their number, as the editing functions take them.

        Raises:
            FewstepError: both were given, and differ.
        """
        if self.taus is None:
            return {"steps": default if self.steps is None else self.steps}
        if self.steps not in (None, len(self.taus)):
            raise FewstepError(
                f"{self.steps} steps take {self.steps} --taus, not {len(self.taus)}."
            )
        return {"taus": self.taus}

    def note(self, default: int) -> str:
        """How many evaluations of the network an image takes."""
        count = len(self.taus) if self.taus else self.times(default)["steps"]
        return f"{count} network evaluation" + "s" * (count > 1)


class Job:
    """Pictures that are cut, edited as one batch, put together and written.

    Args:
        model, source: what the user gave: a run, and a picture or a folder of them.
        o: the options.
        channels: to read the pictures in; default the model's.
    """

    def __init__(self, model: Path, source: Path, o: Files, channels: int | None = None) -> None:
        check_out(o.out, source)
        self.source, self.o = source, o
        self.f = o.open(model)
        self.labels = o.labels(self.f)
        self.pictures = read_all(source, channels or self.f.shape[0])
        self.seconds = 0.0

    @property
    def size(self) -> Size:
        """Height and width of the model's images."""
        return self.f.shape[1], self.f.shape[2]

    def all_in_colour(self) -> None:
        """Let results have colours though the pictures were read in grey."""
        self.pictures = [replace(p, grey=False) for p in self.pictures]

    def tiles(self, fit: Fit, size: Size | None = None) -> list[Tensor]:
        """Each picture as images in [-1, 1] [n, C, *size], by default of the model's size."""
        return [to_float(cut(p.pixels, size or self.size, fit)) for p in self.pictures]

    def run(
        self, make: Callable[..., Tensor], tiles: list[Tensor], *rest: Any, **how: Any
    ) -> list[Tensor]:
        """What an editing function makes of all images at once, as bytes, picture by picture."""
        y = torch.cat(tiles)
        how |= {"labels": self.labels, "batch": self.o.batch}
        started = time.perf_counter()
        with progress("editing", len(y)) as advance:
            x = make(self.f, y, *rest, progress=advance, **how)
        self.seconds = time.perf_counter() - started
        return list(to_uint8(x).split([len(t) for t in tiles]))

    def write(self, results: Sequence[Tensor], note: str) -> None:
        """Results [C, H, W], in grey where the picture was, and a line that says so."""
        named = [
            (p.name, in_grey(result) if p.grey else result)
            for p, result in zip(self.pictures, results, strict=True)
        ]
        write_all(named, self.o.out, self.source.is_dir())
        count = f"{len(named)} picture" + "s" * (len(named) > 1)
        print(f"{self.o.out}: {count}, {note}, {self.seconds:.2f} s")
