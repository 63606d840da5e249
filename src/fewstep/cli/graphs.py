"""``fewstep export --to onnx`` and ``--to torch``: a graph, and a table of what it costs."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fewstep.data import to_uint8
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator
from fewstep.evaluation.choice import feature_network
from fewstep.exchange.graphs.engines import InFile
from fewstep.exchange.graphs.graph import Computation, Graph
from fewstep.exchange.graphs.onnx import TooLarge
from fewstep.exchange.graphs.precisions import INT8, GraphPrecision, graph_in
from fewstep.exchange.graphs.runtime import opened
from fewstep.exchange.graphs.written import GRAPHS, Speed, eager, write_onnx, write_torch
from fewstep.files import write_json
from fewstep.flow_map import FlowMap
from fewstep.progress import working
from fewstep.runs.real import Real, labels_like
from fewstep.runs.run import Data
from fewstep.sampling import Sampler, sample

MOST = 2000  # samples of each precision that are scored
BATCH_NOTE = "in int8 an image depends a little on those that are made in one batch with it"


@dataclass(frozen=True)
class Wish:
    """What is to be written.

    Args:
        model: where the model is from, which may say what its images were.
        out: the file.
        to: onnx or torch.
        precision: of the network's arithmetic.
        data: images to score with, and how to read them; default those that the model was trained
            on.
        compare: whether to time and score it beside other ways to run it.
    """

    model: Path
    out: Path
    to: str
    precision: GraphPrecision
    data: Data
    compare: bool


@dataclass(frozen=True)
class Score:
    """What a precision costs in Fréchet distance, or why that is not known."""

    fd: dict[str, float]
    about: str

    @property
    def json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"fd": self.fd, "about": self.about}


def write_graph(f: FlowMap, sampler: Sampler, wish: Wish) -> None:
    """Write a graph, print what it is, and write the same beside it as JSON.

    Raises:
        FewstepError: a sampler that is no graph; packages that are missing; other images than the
            sampler's; a place that is not writable, or full.
    """
    graph = graph_in(f, sampler, wish.precision)
    with working(f"{wish.out}: converting and checking {graph.sampler.spec}"):
        speeds = [GRAPHS[wish.to](graph, wish.out)]
    score = None
    if wish.compare:
        with tempfile.TemporaryDirectory() as folder:
            speeds = [*_others(graph, f, wish, Path(folder)), *speeds]
            score = _scored(f, wish, Path(folder))
    _say(graph, speeds, score, wish)
    about = graph.said | {"speeds": [speed.json for speed in speeds], "machine": _machine()}
    if score is not None:
        about |= {"score": score.json}
    write_json(wish.out.with_name(wish.out.name + ".json"), about)


def _others(graph: Graph, f: FlowMap, wish: Wish, folder: Path) -> list[Speed]:
    """The graph by all else that runs it, in float32 and in its own precision."""
    graphs = [graph] if graph.exact is graph else [graph.exact, graph]
    with working(f"{wish.out}: timing it beside other ways to run it"):
        speeds = [eager(one) for one in graphs if one.precision != INT8]
        if wish.to == "torch":
            return speeds
        programs = [one for one in graphs if one.precision != INT8]
        speeds += [write_torch(one, folder / f"{one.precision}.pt2") for one in programs]
        return speeds + [speed for one in graphs[:-1] for speed in _in_float32(one, folder)]


def _in_float32(graph: Computation, folder: Path) -> list[Speed]:
    """The graph in float32 as an ONNX file, where one is large enough."""
    try:
        return [write_onnx(graph, folder / "fp32.onnx")]
    except TooLarge:
        print("note: no ONNX file is large enough for fp32: it is left out.")
        return []


def _scored(f: FlowMap, wish: Wish, folder: Path) -> Score | None:
    """What the precision costs; None in float32."""
    if wish.precision == "fp32":
        return None
    written = {"fp32": folder / "fp32.onnx", wish.precision: wish.out}
    files = {name: file for name, file in written.items() if file.is_file()}
    try:
        real = Real.of(wish.model, wish.data)
        network = feature_network(None, data=real.data)
        evaluator = Evaluator(network, real.as_seen_by(network), metrics=("fd",))
        n = min(evaluator.n, MOST)
        with working(f"{wish.out}: scoring {n} images of each precision"):
            fd = {name: _fd(f, file, evaluator, n) for name, file in files.items()}
    except FewstepError as error:
        return Score({}, f"FD was not measured: {error}")
    return Score(fd, f"FD of {n} images to {evaluator.reference.name}, {network.name}")


def _fd(f: FlowMap, file: Path, evaluator: Evaluator, n: int) -> float:
    labels, _ = labels_like(evaluator, f, n)
    images = to_uint8(sample(f, n, InFile(opened(file)), labels=labels))
    return evaluator.score(images, labels, f.classes).fd


def _say(graph: Graph, speeds: Sequence[Speed], score: Score | None, wish: Wish) -> None:
    rows = ", ".join(["batch", *map(str, graph.noise_shape)])
    more = " and label [batch] int64" if graph.f.num_classes else ""
    more += " and guidance [batch]" if graph.guidance is not None else ""
    many = f"{graph.sampler.nfe} network evaluation{'' if graph.sampler.nfe == 1 else 's'}"
    print(f"{wish.out}: {graph.sampler.spec}, {many}, {graph.precision}")
    print(f"  noise [{rows}] standard normal{more} -> images in [-1, 1]")
    print(f"  largest difference from this package {speeds[-1].difference:.1e}")
    for note in _notes(graph):
        print(f"  note: {note}.")
    fd = {} if score is None else score.fd
    print(
        f"  {'one image by':<22}{'':6}{'MiB':>8}{'ms':>9}{'difference':>12}"
        + f"{'FD':>8}" * bool(fd)
    )
    for s in speeds:
        line = f"  {s.runs:<22}{s.precision:6}{s.size / 2**20:8.2f}{1000 * s.seconds:9.2f}"
        shown = f"{fd[s.precision]:8.2f}" if s.runs == speeds[-1].runs and s.precision in fd else ""
        print(f"{line}{s.difference:12.1e}{shown}")
    if score is not None:
        print(f"  {score.about}")


def _notes(graph: Graph) -> list[str]:
    """What a user of the file should know."""
    licence = graph.said["licence"]
    notes = [f"its weights are under {licence}"] if licence else []
    return notes + [BATCH_NOTE] * (graph.precision == INT8)


def _machine() -> dict[str, Any]:
    """On what the times were taken."""
    versions = {name: version(name) for name in ("torch",)}
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        **versions,
    }
