"""Graphs as ONNX: each network is one function, called as often as the sampler evaluates it.

A sampler of 18 steps evaluates its network 35 times. The network is converted once, as a function
of the ONNX file, and its weights are stored once; so a long walk is written nearly as fast as a
single step. What is between the evaluations is converted apart, and the two are put together.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.exchange.graphs.graph import Computation
from fewstep.exchange.graphs.parts import Part, of_rows
from fewstep.exchange.graphs.program import convertible, program

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto, TensorProto

LARGEST = 2**31 - 2**24  # bytes of all tensors of an ONNX file, and 16 MiB for its nodes
DOMAIN = "fewstep"
"""Of the functions that are a model's networks."""


class _Call(nn.Module):
    """Stands for a part: one node of ONNX that calls its function."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        inputs = [x, *of_rows(x, given)]
        shape = [x.shape[0], *self.part.network.shape]
        name = f"{DOMAIN}::{self.part.name}"
        return torch.onnx.ops.symbolic(name, inputs, dtype=x.dtype, shape=shape, version=1)


@dataclass
class Weights:
    """The tensors of several functions, each of which is stored once."""

    stored: dict[str, TensorProto] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, tensor: TensorProto, owner: str) -> str:
        """Take a tensor; the name under which it is stored."""
        content = tensor.SerializeToString() if not tensor.raw_data else tensor.raw_data
        kind = f"{tensor.data_type} {list(tensor.dims)} "
        digest = hashlib.sha256(kind.encode() + content).hexdigest()
        if digest not in self._names:
            name = tensor.name if tensor.name not in self.stored else f"{owner}.{tensor.name}"
            self._names[digest] = name
            self.stored[name] = type(tensor)()
            self.stored[name].CopyFrom(tensor)
            self.stored[name].name = name
        return self._names[digest]


def converted(
    graph: Computation, part_in: Callable[[Part], ModelProto] | None = None
) -> ModelProto:
    """A graph in ONNX.

    Args:
        graph: which.
        part_in: how its networks are converted; default `part_in_onnx`.

    Raises:
        FewstepError: the packages that write it are not installed; torch cannot convert it.
    """
    require_onnx()
    plan, convert = graph.plan(), part_in or part_in_onnx
    around = _converted(plan.with_modules(_Call), graph.example(2), graph.names, graph.output)
    return _assembled(around, {name: convert(part) for name, part in plan.parts.items()})


def part_in_onnx(part: Part) -> ModelProto:
    """A network, or a decoder, in ONNX."""
    return _converted(part.module(), part.example(2), part.inputs, "out")


def _converted(
    module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], output: str
) -> ModelProto:
    """A module in ONNX."""
    with torch.no_grad(), quiet(), convertible():
        made = program(module, inputs)
        file = torch.onnx.export(
            made,
            tuple(inputs),
            input_names=list(names),
            output_names=[output],
            dynamo=True,
            verbose=False,
        )
    assert file is not None
    model = file.model_proto
    _forget_the_way(model)
    return model


def _forget_the_way(model: ModelProto) -> None:
    """Remove what tells of the machine that wrote a graph: stack traces, for each node."""
    for thing in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    del model.graph.value_info[:]
    del model.metadata_props[:]


def _assembled(around: ModelProto, parts: dict[str, ModelProto]) -> ModelProto:
    """A graph, and functions for the networks that it calls."""
    weights, taken = Weights(), {}
    for name, model in parts.items():
        function, tensors = as_function(model, name)
        around.functions.append(function)
        taken[name] = [weights.add(tensor, name) for tensor in tensors]
        for opset in model.opset_import:
            _import(around, opset)
    for node in around.graph.node:
        if node.domain == DOMAIN:
            node.input.extend(f"{DOMAIN}.{given}" for given in taken[node.op_type])
    for given, tensor in weights.stored.items():
        tensor.name = f"{DOMAIN}.{given}"
        around.graph.initializer.append(tensor)
    return around


def as_function(model: ModelProto, name: str) -> tuple[FunctionProto, list[TensorProto]]:
    """A model as a function, whose last inputs are the weights, and these."""
    from onnx import helper

    graph = model.graph
    tensors = list(graph.initializer)
    inputs = [*(x.name for x in graph.input), *(x.name for x in tensors)]
    outputs = [x.name for x in graph.output]
    nodes: list[NodeProto] = list(graph.node)
    function = helper.make_function(DOMAIN, name, inputs, outputs, nodes, model.opset_import)
    return function, tensors


def _import(model: ModelProto, opset: Any) -> None:
    if all(known.domain != opset.domain for known in model.opset_import):
        model.opset_import.append(opset)


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


class TooLarge(FewstepError):
    """A graph that no ONNX file holds."""


def size_of(model: ModelProto) -> int:
    """Bytes of all tensors of a graph, as its types say: a message of 2 GiB is not counted."""
    from onnx import helper

    return sum(
        math.prod(x.dims) * helper.tensor_dtype_to_np_dtype(x.data_type).itemsize
        for x in model.graph.initializer
    )


def as_bytes(model: ModelProto, remedy: str) -> bytes:
    """The content of an ONNX file.

    Args:
        model: the graph.
        remedy: what to do about one that is too large.

    Raises:
        TooLarge: it is larger than the format allows.
    """
    if (size := size_of(model)) >= LARGEST:
        raise TooLarge(
            f"the graph has {size / 2**30:.1f} GiB, and an ONNX file holds less than 2: {remedy}."
        )
    return model.SerializeToString()


def require_onnx(*names: str) -> None:
    """Raise `FewstepError` unless what writes and runs ONNX files is installed.

    Args:
        names: packages that are enough; default all.
    """
    wanted = names or ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise FewstepError(
            f"ONNX needs {' and '.join(missing)}, which the extra onnx brings: pip install "
            "'fewstep[onnx]'."
        )
