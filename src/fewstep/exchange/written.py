"""Graphs in files, each compared with this package's own sampler as soon as it is there."""

from __future__ import annotations

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
from fewstep.exchange.onnx_graph import converted
from fewstep.exchange.program import program
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
    with replacing(path) as partial, partial.open("wb") as file:
        torch.export.save(made, file)
    run = torch.export.load(path).module()
    return compared(graph, {"the exported program": run})


def write_onnx(graph: Computation, path: Path) -> Written:
    """The graph as an ONNX file.

    Raises:
        FewstepError: the packages that write and run it are not installed; it gives other images
            than the sampler.
    """
    content = converted(graph).SerializeToString()
    with replacing(path) as partial:
        partial.write_bytes(content)
    return compared(graph, {"onnxruntime": session(path)})


GRAPHS: dict[str, Callable[[Computation, Path], Written]] = {
    "torch": write_torch,
    "onnx": write_onnx,
}
"""What writes a graph, by the name of the target."""


def session(path: Path) -> Run:
    """A graph in an ONNX file, run by onnxruntime on the CPU with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in made.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(made.run(None, given)[0])

    return run


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
