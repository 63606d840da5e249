"""Modules as programs of torch, for batches of any size.

A network that a program evaluates many times is one subgraph of it, which is traced once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from fewstep.errors import FewstepError, out_of_memory
from fewstep.exchange.graphs.graph import Computation
from fewstep.exchange.graphs.parts import Part, of_rows

LARGEST_BATCH = 65_536
WAY = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")
"""What torch notes of where a node comes from: paths of this machine, and no use to others."""


class _OneByOne(nn.Module):
    """A module whose inputs are a list, whatever names its own have."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)


@contextmanager
def convertible() -> Iterator[None]:
    """A block in which a network that torch cannot convert is refused in one line.

    Raises:
        FewstepError: in the place of torch's errors, with the first cause.
    """
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error) is not None:
            raise
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:200]
        raise FewstepError(f"torch cannot make a graph of this network: {reason}") from error


@torch.no_grad()
def program(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """A module as a program of torch.

    Args:
        module: of tensors [B, ...].
        inputs: an example, of at least two rows.
    """
    from torch._dynamo.exc import UserError  # here, since torch takes a second for it

    try:
        return _traced(module, inputs, Dim("batch", min=1, max=LARGEST_BATCH))
    except UserError:  # code of others that branches on the batch, as diffusers' does at 64 rows
        return _traced(module, inputs, Dim.AUTO)


def _traced(module: nn.Module, inputs: Sequence[Tensor], batch: Any) -> ExportedProgram:
    shapes = tuple({0: batch} for _ in inputs)
    return torch.export.export(
        _OneByOne(module), tuple(inputs), dynamic_shapes=(shapes,), strict=False
    )


def program_of(graph: Computation) -> ExportedProgram:
    """A graph as a program of torch."""
    with convertible():
        made = program(graph.plan().with_modules(_Subgraph), graph.example(2))
    for part in made.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                for name in WAY:
                    node.meta.pop(name, None)
    return made


class _Subgraph(nn.Module):
    """A part as one subgraph, whose first inputs are its weights and constants."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        traced = program(part.module(), part.example(2))
        self.subgraph, self.name = traced.graph_module, part.name
        values: dict[str, Any] = {**traced.state_dict, **traced.constants}
        signature = traced.graph_signature
        targets = [spec.target for spec in signature.input_specs if spec.target is not None]
        self.weights = [f"weight_{i}" for i, _ in enumerate(targets)]
        for name, target in zip(self.weights, targets, strict=True):
            self.register_buffer(name, values[target].detach())

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        weights = (getattr(self, name) for name in self.weights)
        invoke = torch.ops.higher_order.invoke_subgraph
        (out,) = invoke(self.subgraph, self.name, *weights, x, *of_rows(x, given))
        return out
