"""What torch makes of what is computed: its values at once, a graph for later, or a derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_as_graph: ContextVar[bool] = ContextVar("as_graph", default=False)


@contextmanager
def as_graph() -> Iterator[None]:
    """A block that computes what a graph computes, of which every replay has the same operations.

    It is one that is recorded, or one whose bits must be those of a recording.
    """
    before = _as_graph.set(True)
    try:
        yield
    finally:
        _as_graph.reset(before)


def in_graph() -> bool:
    """Whether branches and shapes must not depend on numbers: while compiling, or in `as_graph`."""
    return torch.compiler.is_compiling() or _as_graph.get()


def transformed() -> bool:
    """Whether this is inside one of the transforms of `torch.func`.

    There also a tensor that carries no tangent may be one that ends with the transform.
    """
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
