"""Graphs in files, each compared with this package's own sampler before it is in its place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch

from fewstep.errors import FewstepError
from fewstep.exchange.graphs.graph import Computation, Run
from fewstep.exchange.graphs.onnx import LARGEST, as_bytes, converted, size_of
from fewstep.exchange.graphs.precisions import BYTES, INT8, quantised_part
from fewstep.exchange.graphs.program import program_of
from fewstep.exchange.graphs.runtime import KEY, opened
from fewstep.files import replacing

TOLERANCE = 1e-4  # of images in [-1, 1], by a graph in float32
REPEATS = 15
WHY_NOT = {
    "fp32": ": it is not to be used",
    "fp16": ": numbers of this network leave the range of float16. Take --precision fp32 or int8",
    INT8: ": take --precision fp32 or fp16",
}
"""What is known of images that are not finite, by the graph's precision."""
PACKAGE, PROGRAM, RUNTIME = "this package", "the exported program", "onnxruntime"
"""What runs a graph."""


@dataclass(frozen=True)
class Speed:
    """A graph as something runs it.

    Args:
        runs: what.
        precision: of the network's arithmetic.
        size: bytes of the file, or of the weights.
        seconds: of one image.
        difference: the largest of a pixel in [-1, 1] from this package in float32.
    """

    runs: str
    precision: str
    size: int
    seconds: float
    difference: float

    @property
    def json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def write_torch(graph: Computation, path: Path) -> Speed:
    """The graph as a program of torch, which ``torch.export.load(path).module()`` runs.

    Raises:
        FewstepError: it gives other images than the sampler.
    """
    made = program_of(graph)
    with replacing(path) as partial:
        with partial.open("wb") as file:
            torch.export.save(made, file, extra_files={KEY: json.dumps(graph.said)})
        with partial.open("rb") as file:
            run = torch.export.load(file).module()
        return measured(graph, run, PROGRAM, partial.stat().st_size)


def write_onnx(graph: Computation, path: Path) -> Speed:
    """The graph as an ONNX file.

    Raises:
        FewstepError: the packages that write and run it are not installed; it gives other images
            than the sampler; it is too large (`TooLarge`).
    """
    model = converted(graph, quantised_part) if graph.precision == INT8 else converted(graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(graph.said)
    content = as_bytes(model, _smaller(graph.precision, size_of(model)))
    with replacing(path) as partial:
        partial.write_bytes(content)
        return measured(graph, opened(partial), RUNTIME, len(content))


def _smaller(precision: str, size: int) -> str:
    """What to do about a graph of too many bytes: another precision, or a program of torch."""
    fits = [p for p, b in BYTES.items() if size * b < LARGEST * BYTES[precision]]
    return f"take --to onnx --precision {fits[0]}" if fits else "take --to torch"


GRAPHS: dict[str, Callable[[Computation, Path], Speed]] = {"torch": write_torch, "onnx": write_onnx}
"""What writes a graph, by the name of the target."""


def eager(graph: Computation) -> Speed:
    """The graph as this package computes it itself."""
    size = sum(x.nbytes for x in graph.f.tensors().values())
    return measured(graph, cast("Run", graph), PACKAGE, size)


@torch.no_grad()
def measured(graph: Computation, run: Run, runs: str, size: int) -> Speed:
    """A graph by what runs it, beside this package in float32.

    Raises:
        FewstepError: images that are not finite, or in float32 differ by more than `TOLERANCE`.
    """
    inputs = graph.example(5)
    expected = graph.exact(*inputs)
    if not expected.isfinite().all():
        raise FewstepError(
            "this model gives images that are not finite, whatever computes it: its weights are "
            "damaged, or its training diverged. Take another checkpoint."
        )
    difference = float((run(*inputs) - expected).abs().max())
    if not difference < float("inf"):
        raise FewstepError(
            f"{runs} gives images that are not finite in {graph.precision}, and this package does "
            f"not{WHY_NOT[graph.precision]}."
        )
    if graph.precision == "fp32" and difference > TOLERANCE:
        raise FewstepError(
            f"the graph of {graph.about} gives images that differ by {difference:.1e} from "
            f"this package's, and {TOLERANCE:g} is the most: it is not to be used."
        )
    return Speed(runs, graph.precision, size, latency(run, graph.example(1)), difference)


def latency(run: Run, inputs: tuple[torch.Tensor, ...]) -> float:
    """Median seconds of a call."""
    run(*inputs)
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(*inputs)
        taken.append(time.perf_counter() - start)
    return median(taken)
