"""Numbers of a program that is being traced.

While torch traces a sampler into a graph, tensors stand for values that are not there yet, and a
number cannot be read from one. The times and steps of a sampler are numbers that depend on no
input: they are computed beside the trace, and the graph has them as constants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose result, plain numbers, is a constant of any graph that is being traced."""

    @wraps(function)
    def beside(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_exporting():
            return function(*args, **kwargs)
        from torch._subclasses.fake_tensor import unset_fake_temporarily
        from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

        with (
            torch._C.DisableTorchFunction(),
            unset_fake_temporarily(),
            disable_proxy_modes_tracing(),
        ):
            return function(*args, **kwargs)

    return beside
