"""What the editing commands share: their options, and pictures on their way through a model."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

from fewstep.cli.command import Whole
from fewstep.data.images import check_pictures
from fewstep.distributed import pick_device
from fewstep.editing.batches import check_pixels
from fewstep.editing.pictures import check_out, place_of, read_all, write_all
from fewstep.editing.task import How, Task
from fewstep.editing.written import check_size
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.engines import engine_of
from fewstep.flow_map import FlowMap
from fewstep.models import as_map
from fewstep.runs.opening import open_model
from fewstep.runs.prompts import Wanted, embedding_for
from fewstep.sampling import class_number


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
    prompt: Annotated[
        str | None,
        Parameter(help="Text of what is to be seen, for a model that was trained with texts."),
    ] = None
    embedding: Annotated[
        Path | None,
        Parameter(help="The same as an .npy or .safetensors, [d], [1, d] or [1, tokens, d]."),
    ] = None
    encoder: Annotated[
        str | None,
        Parameter(
            help="What makes an embedding of a prompt, module:function; default the model's own, "
            "if you have named it before."
        ),
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

    engine: Annotated[
        str,
        Parameter(
            help="What evaluates the network: torch, or onnx, which is onnxruntime on the CPU."
        ),
    ] = "torch"

    def open(self, model: Path) -> FlowMap:
        """The model, which must be one of images."""
        engine = engine_of(self.engine)
        engine.check_any_time()
        device = pick_device(engine.device(self.device))
        f = open_model(model, checkpoint=self.checkpoint, ema=self.ema, device=device)
        check_pictures(f.image_shape, model)
        return engine.model(as_map(f, "editing"))

    def labels(self, f: FlowMap) -> int | None:
        """The class asked for.

        Raises:
            FewstepError: one that is missing, superfluous or unknown.
        """
        if self.label is not None:
            return class_number(f, self.label)
        if f.num_classes:
            names = f.classes
            raise FewstepError(
                f"this model is conditional: give the class with --label, such as {names[0]}. "
                f"Known: {', '.join(names)}."
            )
        return None

    def wanted(self, f: FlowMap) -> Tensor | None:
        """The embedding of what is asked for [1, ...]; None where nothing is.

        Raises:
            FewstepError: see `embedding_for`.
        """
        prompts = () if self.prompt is None else (self.prompt,)
        return embedding_for(f, Wanted(prompts, self.embedding, self.encoder), 1)

    def how(self, label: int | None, embedding: Tensor | None) -> How:
        """The options as an editing task takes them."""
        return How(label=label, embedding=embedding, batch=self.batch)


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
            help="Times of the model's process, decreasing, instead of --steps.",
        ),
    ] = None
    seed: Annotated[Whole, Parameter(help="Decides the noise.")] = 0

    n: Annotated[
        Whole,
        Parameter(alias="-n", help="Results for each picture; they are put side by side."),
    ] = 1

    def how(self, label: int | None, embedding: Tensor | None) -> How:
        return How(self.n, self.steps, self.taus, self.seed, label, embedding, self.batch)


SAID = 10  # notes that are printed; of more, their number


def say(notes: Sequence[str]) -> None:
    """What was assumed or is lost, a line each beside the command's own output."""
    more = [f"{len(notes) - SAID} notes more, of other pictures."] * (len(notes) > SAID)
    for note in (*notes[:SAID], *more):
        print(f"note: {note}", file=sys.stderr)


class Job:
    """Pictures that are read, edited as one batch, and written.

    Args:
        model, source: what the user gave: a run, and a picture or a folder of them.
        o: the options.
        task: what is done, where it is known before the pictures are read.
        what: what a model must be able to do.
    """

    def __init__(
        self,
        model: Path,
        source: Path,
        o: Files,
        task: Task | None = None,
        what: str = "editing",
    ) -> None:
        check_out(o.out, source)
        self.source, self.o = source, o
        self.f = o.open(model)
        check_pixels(self.f, what)
        self.label, self.embedding = o.labels(self.f), o.wanted(self.f)
        self.pictures = read_all(source, task.channels(self.f) if task else self.f.shape[0])

    def run(self, task: Task, note: str | None = None) -> None:
        """Edit, write the results, and say so in a line."""
        how = self.o.how(self.label, self.embedding)
        folder = self.source.is_dir()
        for p in self.pictures:
            height, width = task.result_size(self.f, p.size)
            check_size(place_of(p, self.o.out, folder), (height, how.n * width))
        say([note for p in self.pictures for note in task.notes(self.f, p)])
        started = time.perf_counter()
        results = task(self.f, self.pictures, how)
        seconds = time.perf_counter() - started
        named = [(p, torch.cat(some, 2)) for p, some in zip(self.pictures, results, strict=True)]
        say(write_all(named, self.o.out, folder, keeps=task.keeps))
        n = task.evaluations(how)
        note = note or f"{n} network evaluation" + "s" * (n > 1)
        count = f"{len(named)} picture" + "s" * (len(named) > 1)
        print(f"{self.o.out}: {count}, {note}, {seconds:.2f} s")
