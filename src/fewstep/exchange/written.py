"""Graphs in files, each compared with this package's own sampler as soon as it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.exchange.graph import Computation, Run
from fewstep.exchange.onnx_graph import as_bytes, converted
from fewstep.exchange.program import program
from fewstep.exchange.runtime import KEY, opened
from fewstep.files import replacing

TOLERANCE = 1e-4  # of images in [-1, 1]
REPEATS = 15


@dataclass(frozen=True)
class Written:
    """A graph in a file, beside this package's own sampler.

    Args:
        difference: the largest of an image's numbers.
        seconds: of one image, by what ran it.
    """

    difference: float
    seconds: dict[str, float]

    @property
    def latencies(self) -> str:
        """The times, in words."""
        return ", ".join(f"{1000 * s:.1f} ms by {name}" for name, s in self.seconds.items())


def write_torch(graph: Computation, path: Path) -> Written:
    """The graph as a program of torch, which ``torch.export.load(path).module()`` runs.

    Raises:
        FewstepError: it gives other images than the sampler.
    """
    made = program(graph.plan().with_modules(lambda part: part.module()), graph.example(2))
    with replacing(path) as partial:
        with partial.open("wb") as file:
            torch.export.save(made, file, extra_files={KEY: json.dumps(graph.said)})
        with partial.open("rb") as file:
            run = torch.export.load(file).module()
        return compared(graph, {"the exported program": run})


def write_onnx(graph: Computation, path: Path) -> Written:
    """The graph as an ONNX file.

    Raises:
        FewstepError: the packages that write and run it are not installed; it gives other images
            than the sampler.
    """
    model = converted(graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(graph.said)
    content = as_bytes(model)
    with replacing(path) as partial:
        partial.write_bytes(content)
        return compared(graph, {"onnxruntime": opened(partial)})


GRAPHS: dict[str, Callable[[Computation, Path], Written]] = {
    "torch": write_torch,
    "onnx": write_onnx,
}
"""What writes a graph, by the name of the target."""


@torch.no_grad()
def compared(graph: Computation, runs: dict[str, Run]) -> Written:
    """The graph by all that run it: the largest difference, and the times of one image.

    Raises:
        FewstepError: a difference above `TOLERANCE`.
    """
    inputs, one = graph.example(5), graph.example(1)
    expected = graph(*inputs)
    difference = max(float((run(*inputs) - expected).abs().max()) for run in runs.values())
    if not difference <= TOLERANCE:
        raise FewstepError(
            f"the graph of {graph.about} gives images that differ by {difference:.1e} from "
            f"this package's, and {TOLERANCE:g} is the most: it is not to be used."
        )
    everything = {"this package": cast("Run", graph), **runs}
    return Written(difference, {name: latency(run, one) for name, run in everything.items()})


def latency(run: Run, inputs: tuple[Tensor, ...]) -> float:
    """Median seconds of a call."""
    run(*inputs)
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(*inputs)
        taken.append(time.perf_counter() - start)
    return median(taken)
