"""A few-step sampler as one graph: noise and class in, images out.

The whole sampler is traced, its times and steps as constants in the graph: what runs it needs
neither this package nor, for ONNX, Python. The noise is an input, so that a graph gives the very
images that the sampler gives for a seed.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.files import replacing
from fewstep.flow_map import FlowMap
from fewstep.sampling import NoiseStreams, Sampler, Walk

LARGEST_BATCH = 65_536
TOLERANCE = 1e-4  # of images in [-1, 1]
REPEATS = 15
Run = Callable[..., Tensor]
"""Images [B, ...] from noise [B, draws, ...] and, of a conditional model, classes [B]."""


@dataclass
class Given:
    """Noise that is given: the draws of every step, side by side [B, draws, *shape].

    It has the face of `fewstep.sampling.NoiseStreams`.
    """

    draws: Tensor
    taken: int = 0

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The next draw [B, *shape]."""
        self.taken += 1
        return self.draws[:, self.taken - 1].to(device, dtype)


@dataclass
class Counted:
    """Noise of which the number of draws is counted."""

    noise: NoiseStreams
    taken: int = 0

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The next draw."""
        self.taken += 1
        return self.noise.normal(device, dtype)


class Graph(nn.Module):
    """``images = graph(noise[, label])`` of a model and a sampler.

    Args:
        f: the model.
        sampler: which; not one that chooses its own steps.

    Raises:
        FewstepError: an adaptive sampler, or one that the model does not admit.
    """

    def __init__(self, f: FlowMap, sampler: Sampler) -> None:
        super().__init__()
        if isinstance(sampler, Walk) and sampler.adaptive:
            raise FewstepError(
                f"{sampler.spec} chooses its own steps for every batch, and a graph has fixed "
                "ones: take another solver, such as walk(solver=heun)."
            )
        self.f, self.sampler = f.eval().float(), sampler.fitted(f)
        self.draws = self._count()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one row of the noise: the number of draws, and the shape of each."""
        return (self.draws, *self.f.shape)

    @torch.no_grad()
    def _count(self) -> int:
        """How often the sampler draws noise."""
        noise = Counted(NoiseStreams(0, (0, 1), self.f.shape))
        self._sampled(noise, torch.zeros(2, dtype=torch.int64) if self.f.num_classes else None)
        return noise.taken

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Images [B, *image_shape] in [-1, 1] from noise [B, draws, *shape] and classes [B]."""
        return self._sampled(Given(noise), label)

    def _sampled(self, noise: Any, label: Tensor | None) -> Tensor:
        streams = cast("NoiseStreams", noise)
        (x,) = deque(self.sampler.states(self.f, streams, Condition(label=label)), maxlen=1)
        return self.f.image(x).clamp(-1, 1)

    def example(self, rows: int) -> tuple[Tensor, ...]:
        """Inputs of so many rows, the same each time."""
        noise = torch.randn(rows, *self.noise_shape, generator=torch.Generator().manual_seed(0))
        label = (torch.arange(rows) % self.f.num_classes,) if self.f.num_classes else ()
        return (noise, *label)


@torch.no_grad()
def program(graph: Graph) -> ExportedProgram:
    """The graph as a program of torch, for batches of any size."""
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    inputs = graph.example(2)
    return torch.export.export(
        graph, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs), strict=False
    )


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


def write_torch(graph: Graph, path: Path) -> Written:
    """The graph as a program of torch, which ``torch.export.load(path).module()`` runs.

    Raises:
        FewstepError: it gives other images than the sampler.
    """
    made = program(graph)
    with replacing(path) as partial, partial.open("wb") as file:
        torch.export.save(made, file)
    run = torch.export.load(path).module()
    return compared(graph, {"the exported program": run})


def write_onnx(graph: Graph, path: Path) -> Written:
    """The graph as an ONNX file.

    Raises:
        FewstepError: the packages that write and run it are not installed; it gives other images
            than the sampler.
    """
    require_onnx()
    made = program(graph)
    inputs = graph.example(2)
    names = ["noise", "label"][: len(inputs)]
    with torch.no_grad(), quiet():
        file = torch.onnx.export(
            made, inputs, input_names=names, output_names=["images"], dynamo=True, verbose=False
        )
    if file is None:
        raise FewstepError(f"torch wrote no ONNX graph of {graph.sampler.spec}.")
    with replacing(path) as partial:
        file.save(str(partial), external_data=False)
    return compared(graph, {"the exported program": made.module(), "onnxruntime": session(path)})


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which torch's exporter does not tell of packages that nothing here needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        log.setLevel(level)


GRAPHS: dict[str, Callable[[Graph, Path], Written]] = {"torch": write_torch, "onnx": write_onnx}
"""What writes a graph, by the name of the target."""


def require_onnx() -> None:
    """Raise `FewstepError` unless what writes and runs ONNX files is installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise FewstepError(
            f"ONNX needs {' and '.join(missing)}, which the extra onnx brings: pip install "
            "'fewstep[onnx]'."
        )


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
def compared(graph: Graph, runs: dict[str, Run]) -> Written:
    """The graph by all that run it: the largest difference, and the times of one image.

    Raises:
        FewstepError: a difference above `TOLERANCE`.
    """
    inputs, one = graph.example(5), graph.example(1)
    expected = graph(*inputs)
    difference = max(float((run(*inputs) - expected).abs().max()) for run in runs.values())
    if not difference <= TOLERANCE:
        raise FewstepError(
            f"the graph of {graph.sampler.spec} gives images that differ by {difference:.1e} from "
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
