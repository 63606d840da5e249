"""A model is evaluated without dropout, whatever it is in the middle of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """A block in which a model is in evaluation mode; each of its parts then has its own again.

    Args:
        model: what is no module of torch has no mode, and is left alone.
    """
    training = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
