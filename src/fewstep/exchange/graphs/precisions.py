"""Graphs in less than float32: a network in float16, or with weights of eight bits.

Only the networks are rounded: times, noise and the arithmetic between the evaluations stay in
float32, as with ``--precision`` of the other commands.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fewstep.exchange.graphs.graph import Graph, identity_of
from fewstep.exchange.graphs.onnx import part_in_onnx
from fewstep.exchange.graphs.parts import Model, Part
from fewstep.precision import Precision
from fewstep.sampling import Sampler

if TYPE_CHECKING:
    from onnx import ModelProto

INT8 = "int8"
GraphPrecision = Literal["fp32", "fp16", "int8"]
BYTES = {"fp32": 4, "fp16": 2, INT8: 1}
"""Of a weight, in each precision of a graph."""


def graph_in(f: Model, sampler: Sampler, precision: GraphPrecision) -> Graph:
    """The graph of a sampler in a precision.

    Args:
        f: the model, which stays as it is.
        sampler: which.
        precision: fp16 evaluates the network in float16; int8 is that of fp32 until its networks
            are quantised (`quantised_part`).

    Raises:
        FewstepError: see `Graph`.
    """
    exact = Graph(in_type(f, "fp32"), sampler)
    graph = exact if precision == "fp32" else Graph(_of(f, precision), sampler)
    exact.identity = graph.identity = identity_of(f)
    graph.precision, vars(graph)["exact"] = precision, exact
    return graph


def _of(f: Model, precision: GraphPrecision) -> Model:
    return in_type(f, "fp16" if precision == "fp16" else "fp32")


def in_type(f: Model, precision: Precision) -> Model:
    """A copy of a model whose network is in another type."""
    return f.frozen_copy().in_precision(precision)


def quantised_part(part: Part) -> ModelProto:
    """A network in ONNX whose products are of whole numbers of eight bits.

    Weights are rounded once. Activations are rounded in each evaluation, by the range of the whole
    batch: with them an image depends a little on those that are made beside it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, rounded = Path(folder) / "plain.onnx", Path(folder) / "rounded.onnx"
        # beside the graph, which by itself may have no 2 GiB
        onnx.save(part_in_onnx(part), plain, save_as_external_data=True, location="plain.data")
        quantize_dynamic(plain, rounded, weight_type=QuantType.QUInt8)
        return onnx.load(rounded)


@contextmanager
def _quiet() -> Iterator[None]:
    """A block in which onnxruntime does not advise what was considered."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
