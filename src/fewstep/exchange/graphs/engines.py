"""What evaluates a model: torch, or onnxruntime.

An engine takes the place of the networks inside a model (see `fewstep.exchange.graphs.parts`), so
that whatever asks the model, a sampler, an edit or the server, works with every engine alike. The
noise is drawn as ever, and the arithmetic between the evaluations is torch's.

A whole sampler in an exported file is an engine as well, for that sampler alone.
"""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fewstep.cache import cache_folder, expanded
from fewstep.condition import EVERYWHERE, NONE, Condition
from fewstep.digest import sha256_of, sha256_of_code, sha256_of_weights
from fewstep.errors import FewstepError, refusals, unknown
from fewstep.exchange.graphs.graph import identity_of
from fewstep.exchange.graphs.onnx import as_bytes, part_in_onnx, require_onnx
from fewstep.exchange.graphs.parts import (
    Answer,
    Model,
    Part,
    answered_by,
    check_told_by_class,
    parts_of,
)
from fewstep.exchange.graphs.runtime import OnnxFile, opened
from fewstep.files import replacing, sweep
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided, guidance_of
from fewstep.named_tensors import named_tensors
from fewstep.progress import working
from fewstep.sampling import SAMPLERS, Asked, NoiseStreams, Sampler, Walk
from fewstep.sampling.model import Model as Sampled
from fewstep.trained import Trained

FORMAT = 1
"""Of the cached graphs: another number makes all of them anew."""
CLOSE = {torch.float16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-6}
"""How far an evaluation may be from torch's, beside the largest value, by the type of weights."""


class Engine(ABC):
    """What evaluates models."""

    name: str
    """As a picture's settings record it."""
    between: str
    """What evaluates the model for all but samples: edits, interpolations."""
    steps: int | None = None
    """Steps of the only sampler that it has, where it has but one."""

    @property
    def said(self) -> str:
        """The end of a sentence that names it, where it is not the usual one."""
        return "" if self.name == Torch.name else f" on {self.name}"

    def check_any_time(self) -> None:
        """Raise `FewstepError` unless it evaluates a model at any time, as edits need it."""
        if self.steps is not None:
            raise FewstepError(
                f"{self.name} is one sampler, and what is asked for needs the model at other times "
                "too: give --engine onnx."
            )

    def device(self, asked: str | None) -> str | None:
        """The device of a model for it; None is the best there is.

        Raises:
            FewstepError: one that it cannot use.
        """
        return asked

    @abstractmethod
    def model(self, f: FlowMap) -> FlowMap:
        """The model, evaluated by it.

        Raises:
            FewstepError: a model that it cannot evaluate.
        """

    def sampler(self, f: FlowMap, asked: Asked) -> Sampler:
        """The sampler that is asked for.

        Raises:
            FewstepError: one that the model does not admit, or that the engine does not have.
        """
        return asked.of(f)


class Torch(Engine):
    """torch, on any device."""

    name = between = "torch"

    def model(self, f: FlowMap) -> FlowMap:
        return f


class Onnx(Engine):
    """onnxruntime on the CPU: each network becomes an ONNX file, which is kept in the cache."""

    name = between = "onnx"

    def device(self, asked: str | None) -> str:
        if asked not in (None, "cpu"):
            raise FewstepError(
                f"--engine onnx computes on the CPU, and the device {asked} was asked for: leave "
                "out one of the two."
            )
        return "cpu"

    def model(self, f: FlowMap) -> FlowMap:
        require_onnx()
        check_told_by_class(cast("Model", f))
        if f.dtype not in CLOSE:
            raise FewstepError(
                f"onnxruntime has no {str(f.dtype).removeprefix('torch.')} on a CPU: give "
                "--precision fp32 or fp16 with --engine onnx."
            )
        runs: dict[str, Answer] = {}

        def answer(part: Part) -> Answer:
            if part.name not in runs:
                runs[part.name] = kept(part)
            return runs[part.name]

        model = cast("Model", f)
        for part in parts_of(model):  # now, and not while somebody waits for an image
            answer(part)
        return cast("FlowMap", answered_by(model, answer))


class Exported(Engine):
    """A sampler that ``fewstep export --to onnx`` has written, for its own model.

    Args:
        path: the file.

    Raises:
        FewstepError: it is none, or holds something else than a sampler.
    """

    between = "torch"

    def __init__(self, path: Path) -> None:
        self.file = opened(path)
        if self.file.about.get("kind") != "sampler":
            raise FewstepError(
                f"{path} is no sampler that fewstep export --to onnx wrote: --engine onnx makes "
                "its graphs itself."
            )
        self.steps = int(self.file.about["steps"])
        self.name = f"onnx:{path.name} (SHA-256 {sha256_of(path)[:12]})"

    def device(self, asked: str | None) -> str:
        return Onnx().device(asked)

    def model(self, f: FlowMap) -> FlowMap:
        mine = identity_of(cast("Model", f))
        if any(self.file.about.get(key) != value for key, value in mine.items()):
            raise FewstepError(
                f"{self.file.path} is of another model, of other weights or settings: export this "
                "one, or leave out the file: --engine onnx."
            )
        return f

    def sampler(self, f: FlowMap, asked: Asked) -> Sampler:
        own = SAMPLERS.build(InFile(self.file).spec)
        wanted = own
        if asked.sampler is not None or set(asked.given) - {"guidance"}:
            wanted = asked.of(f)
        elif asked.guidance is not None:
            fields: Any = {"guidance": guidance_of(asked.guidance)}
            wanted = replace(cast("Any", own), **fields)
            wanted.fitted(f)  # which refuses what the model has not learned
        takes = {name: name in self.file.names for name in ("guidance", "interval")}
        if _said(wanted, **takes) != _said(own, **takes):
            raise FewstepError(
                f"{self.file.path} holds {own.spec}, and {wanted.spec} was asked for: ask for that "
                "alone, export the other, or leave out the file: --engine onnx."
            )
        guidance = getattr(wanted, "guidance", None)
        asked_for = isinstance(guidance, Guided) and takes["guidance"]
        return InFile(self.file, guidance if asked_for else None)


def _said(sampler: Sampler, *, guidance: bool, interval: bool) -> str:
    """A sampler's spec with its number of steps, without what the graph takes as inputs.

    Args:
        sampler: in a file, or the one that is asked for.
        guidance: whether the weight is an input.
        interval: whether its interval is.
    """
    fields: dict[str, Any] = {}
    if isinstance(sampler, Walk) and sampler.N is None and sampler.budget is None:
        fields["N"] = sampler.count
    own = getattr(sampler, "guidance", None)
    if guidance and (own is None or type(own) is Guided):
        fields["guidance"] = Guided(2.0, own.interval if own and not interval else None)
    return replace(cast("Any", sampler), **fields).spec if fields else sampler.spec


@dataclass(frozen=True)
class InFile(Sampler):
    """A whole sampler that runs in one graph; what stands on the way is not to be seen.

    Args:
        file: the graph.
        guidance: what it is given; default the file's own.
    """

    file: OnnxFile
    guidance: Guided | None = None

    @property
    def spec(self) -> str:
        return str(self.file.about["sampler"])

    @property
    def nfe(self) -> int:
        return int(self.file.about["nfe"])

    @property
    def count(self) -> int:
        return int(self.file.about["steps"])

    def check(self, trained: Trained) -> None:
        SAMPLERS.build(self.spec).check(trained)

    def states(
        self, f: Sampled, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        raise FewstepError(f"{self.file.path} gives images alone, and not what stands before them.")

    def steps(
        self, f: Sampled, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        draws = [noise.normal() for _ in range(int(self.file.about["draws"]))]
        given = {"noise": torch.stack(draws, 1), "label": condition.label}
        given |= self._given(len(draws[0]))
        inputs = [given[name] for name in self.file.names]
        yield self.file(*(x for x in inputs if x is not None))

    def _given(self, rows: int) -> dict[str, Tensor]:
        """Weight and interval of the guidance of so many rows."""
        about, own = self.file.about, self.guidance
        w = about["guidance"] if own is None else own.w
        interval = (about.get("interval") if own is None else own.interval) or EVERYWHERE
        return {
            "guidance": torch.full((rows,), w or 0.0),
            "interval": torch.tensor([tuple(interval)] * rows),
        }

    def __call__(self, f: Sampled, noise: NoiseStreams, condition: Condition = NONE) -> Tensor:
        (images,) = self.steps(f, noise, condition)
        return images


ENGINES: dict[str, Callable[[], Engine]] = {"torch": Torch, "onnx": Onnx}
"""Engines by name; an exported file is one as well."""


def engine_of(text: str, precision: str | None = None) -> Engine:
    """The engine of a name: torch, onnx, or onnx:FILE for an exported sampler.

    Args:
        text: the name.
        precision: of the model's arithmetic, where one is asked for.

    Raises:
        FewstepError: another name; a file that is none of ours, or a precision beside it, which
            has its own; onnxruntime is not installed.
    """
    name, colon, file = text.partition(":")
    if name == "onnx" and colon:
        if precision is not None:
            raise FewstepError(f"{file} has a precision of its own: leave out --precision.")
        return Exported(expanded(file))
    if name not in ENGINES or colon:
        raise unknown("engine", text, [*ENGINES, "onnx:FILE"])
    return ENGINES[name]()


def kept(part: Part) -> OnnxFile:
    """A network as an ONNX file in the cache, which is written the first time.

    Raises:
        FewstepError: the cache is not writable, or full; torch cannot convert the network, or
            onnxruntime computes something else.
    """
    path = cache_folder() / "graphs" / f"{_key(part)}.onnx"
    if path.is_file():
        with suppress(FewstepError):  # one that is damaged is written anew
            return opened(path)
    with refusals(), working(f"writing the {part.name.partition('_')[0]} as an ONNX graph"):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        content = as_bytes(part_in_onnx(part), "use --engine torch")
        with replacing(path) as partial:
            partial.write_bytes(content)
            _check_close(part, opened(partial))
    return opened(path)


def _key(part: Part) -> str:
    """Hash of all that decides a graph: weights, settings and code."""
    versions = {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")}
    network = part.network
    made = [FORMAT, part.name, str(part.dtype), network.config, versions, _code(type(network))]
    return sha256_of_weights(json.dumps(made, sort_keys=True), named_tensors(network))


def _code(network: type) -> str:
    """Hash of this package and, of a network that is not part of it, its source."""
    own = inspect.getsourcefile(network)
    return sha256_of_code() + (sha256_of(Path(own)) if own is not None else "")


@torch.no_grad()
def _check_close(part: Part, run: Answer) -> None:
    """Raise `FewstepError` where onnxruntime computes something else than torch."""
    inputs = part.example(3)
    expected = part.module()(*inputs).float()
    difference = (run(*inputs).float() - expected).abs().max() / expected.abs().max().clamp(min=1)
    if not difference <= CLOSE[part.dtype]:
        raise FewstepError(
            f"onnxruntime's {part.name} differs from torch's by {difference:.1e}, and "
            f"{CLOSE[part.dtype]:g} is the most: use --engine torch."
        )
