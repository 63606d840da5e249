"""Running averages in files: what they are called, and those that are lists without names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

_WORD = re.compile(r"(?<![a-z])(ema|averag\w*|avg|shadow|polyak|swa)(?![a-z])", re.IGNORECASE)
DEEPEST = 4  # tables within tables

Weights = Mapping[str, Tensor]


def is_average(name: str) -> bool:
    """Whether a name has a word of running averages in it, as unet_ema and ema_0.9999 have."""
    return bool(_WORD.search(name))


def is_list(value: Any) -> bool:
    """Whether a value is tensors without names."""
    tensors = isinstance(value, list | tuple) and bool(value)
    return tensors and all(isinstance(x, Tensor) for x in value)


def lists_in(tables: Mapping[str, Any]) -> Iterator[str]:
    """The names under which there are averages without names, at most one table deeper."""
    for name, value in tables.items():
        inner = value if isinstance(value, Mapping) else {}
        if (is_list(value) and is_average(name)) or any(
            is_list(x) and is_average(str(n)) for n, x in inner.items()
        ):
            yield name


def with_names(
    content: Any, is_weights: Callable[[Any], bool], beside: Sequence[Weights] = (), depth: int = 0
) -> Any:
    """The content of a file, in which averages that are lists have the names of what they are of.

    torch_ema, score_sde and diffusers keep averages as ``shadow_params``: tensors in the order of
    ``parameters()``, which is that of the state dict without its buffers. They get the names of the
    state dict beside them, and its buffers, where shapes leave one way alone to do so.

    Args:
        content: tables within tables.
        is_weights: whether a table is a state dict.
        beside: the state dicts of the tables around, the nearest first.
        depth: how many tables it is in.
    """
    if not isinstance(content, Mapping) or is_weights(content) or depth > DEEPEST:
        return content
    own = [value for value in content.values() if is_weights(value)]
    raw = (*own, *beside)

    def named(name: Any, value: Any) -> Any:
        if is_list(value) and is_average(str(name)):
            found = (_aligned(value, weights) for weights in raw)
            return next((table for table in found if table is not None), value)
        return with_names(value, is_weights, raw, depth + 1)

    return {name: named(name, value) for name, value in content.items()}


def _aligned(tensors: Sequence[Tensor], raw: Weights) -> dict[str, Any] | None:
    """A state dict with these tensors in place of its own; None where it is not clear of which.

    The first and the last way to find the shapes in their order are the same where there is one.
    """
    places = [(name, x.shape) for name, x in raw.items() if isinstance(x, Tensor)]
    shapes = [x.shape for x in tensors]
    first, last = _found(shapes, places), _found(shapes[::-1], places[::-1])
    if None in first or first != last[::-1]:
        return None
    return {**raw, **{str(name): x for name, x in zip(first, tensors, strict=True)}}


def _found(shapes: Iterable[Any], places: Iterable[tuple[str, Any]]) -> list[str | None]:
    """For each shape the next name that has it."""
    rest = iter(places)
    return [next((name for name, there in rest if there == shape), None) for shape in shapes]
