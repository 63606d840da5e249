"""What a computation does to its inputs, recorded as a graph of torch's functions.

A sampler runs once on one row. Each tensor that depends on an input is a `Recorded` one, and every
function of it becomes a node. What depends on no input, such as times and the coefficients of a
step, is computed on the way and is a constant of the graph: nothing is left of it but its number.
The networks are not looked into: each of their evaluations is one node.

A constant of one row serves batches of any size, and a change of shape keeps the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from fewstep.errors import FewstepError

READS = frozenset(
    {"item", "tolist", "numpy", "equal", "allclose", "__array__", "__contains__"}
    | {f"__{kind}__" for kind in ("bool", "float", "int", "index", "complex")}
)
"""Functions that take a tensor's numbers out of the graph."""
RESHAPES = (Tensor.reshape, Tensor.view, torch.reshape)
EXPANDS = (Tensor.expand, Tensor.expand_as, Tensor.broadcast_to, torch.broadcast_to)


class Recorded(Tensor):
    """A tensor that depends on an input of the graph; its numbers are not looked at."""

    node: fx.Node

    @classmethod
    def of(cls, value: Tensor, node: fx.Node) -> Recorded:
        """A value, and the node that makes it."""
        recorded = value.as_subclass(cls)
        recorded.node = node
        return recorded

    @classmethod
    def __torch_function__(
        cls,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            value = function(*args, **kwargs)
        first = args[0] if args else None
        if isinstance(value, Recorded) and value is first and not _in_place(function):
            return value
        if isinstance(value, Tensor):
            return _of_function(function, args, kwargs, value)
        if isinstance(value, tuple | list) and any(isinstance(x, Tensor) for x in value):
            node = _call(function, args, kwargs)
            graph = node.graph
            return type(value)(
                Recorded.of(x, graph.call_function(_item, (node, i))) for i, x in enumerate(value)
            )
        if getattr(function, "__name__", "") in READS:
            raise FewstepError(
                f"this sampler reads the numbers of its noise on the way ({function.__name__}), "
                "and a graph is the same for every noise."
            )
        return value


def _item(values: Sequence[Tensor], i: int) -> Tensor:
    return values[i]


def _in_place(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def _of_function(
    function: Any, args: Sequence[Any], kwargs: dict[str, Any], value: Tensor
) -> Tensor:
    """The value of a function with the node that computes it, for any number of rows."""
    x = args[0]
    if function in EXPANDS and isinstance(x, Recorded) and value.shape == x.shape:
        return x  # one row, which stands for all of them
    if function in RESHAPES and value.ndim and x.ndim and value.shape[0] == x.shape[0]:
        args, kwargs = (x, (-1, *value.shape[1:])), {}
    node = _call(function, args, kwargs)
    if _in_place(function) and isinstance(x, Recorded):
        x.node = node
        return x
    return Recorded.of(value, node)


def _call(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> fx.Node:
    """A node that calls a function; tensors that are not recorded become constants."""
    graph = _graph_of((*args, *kwargs.values()))
    if getattr(function, "__name__", "") == "__get__":  # such as x.mT
        function, args = getattr, (args[0], function.__self__.__name__)
    named = map_aggregate((tuple(args), dict(kwargs)), lambda x: _named(graph, x))
    args, kwargs = named
    return graph.call_function(function, tuple(args), kwargs)


def _named(graph: fx.Graph, value: Any) -> Any:
    if isinstance(value, Recorded):
        return value.node
    return constant(graph, value) if isinstance(value, Tensor) else value


def _graph_of(values: Any) -> fx.Graph:
    found: list[fx.Graph] = []

    def look(x: Any) -> Any:
        if isinstance(x, Recorded):
            found.append(x.node.graph)
        return x

    map_aggregate(cast("Any", values), look)
    return found[0]


def root_of(graph: fx.Graph) -> nn.Module:
    """The module that holds the constants of a graph."""
    return cast("nn.Module", graph.owning_module)


def constant(graph: fx.Graph, value: Tensor) -> fx.Node:
    """A tensor that depends on no input."""
    root = root_of(graph)
    name = f"constant_{len(list(root.buffers(recurse=False)))}"
    root.register_buffer(name, value.detach().clone())
    return graph.get_attr(name)


def evaluation(name: str, *inputs: Tensor) -> Tensor:
    """One node for a module of the graph, whose result has the shape and type of the first input.

    Inputs that are constants get as many rows as the first has.
    """
    x = cast("Recorded", inputs[0])
    graph = x.node.graph
    nodes = [_named(graph, given) for given in inputs]
    if name not in dict(root_of(graph).named_children()):  # fx wants one, and others follow
        root_of(graph).add_module(name, nn.Identity())
    with torch._C.DisableTorchFunctionSubclass():
        value = torch.zeros_like(x)
    return Recorded.of(value, graph.call_module(name, tuple(nodes)))


def record(run: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> tuple[fx.Graph, nn.Module]:
    """The graph of a computation, and the module whose buffers are its constants.

    Args:
        run: called with one row of each input.
        inputs: by name; one row of each, [1, ...].

    Raises:
        FewstepError: what is done depends on the inputs' numbers.
    """
    constants = nn.Module()
    graph = fx.Graph(cast("fx.GraphModule", constants))
    given = [Recorded.of(x.clone(), graph.placeholder(name)) for name, x in inputs.items()]
    out = run(*given)
    graph.output(out.node if isinstance(out, Recorded) else constant(graph, out))
    graph.eliminate_dead_code()
    return graph, constants
