"""Which weights of a file are the ones to use: of several parts, under whatever names they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

FIRST = (
    *("ema", "net_ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema"),
    *("model_state_dict_ema", "ema_params", "params_ema", "shadow_params", "averaged"),
    *("net", "model", "unet", "denoiser", "network", "diffusion_model"),
    *("state_dict", "model_state_dict", "params", "weights", "state", "module", "_orig_mod"),
)
"""Under which names files keep the weights to use, best first: averages before what they are of."""
DEEPEST = 4  # parts within parts

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Chosen:
    """One part of several.

    Args:
        content: of the part.
        name: of the part, with dots between those that it lies in; empty for all of it.
        left: the other parts.
    """

    content: Any
    name: str = ""
    left: tuple[str, ...] = ()


def order(names: Mapping[str, Any]) -> list[str]:
    """Names, those of `FIRST` before others."""
    return [name for name in FIRST if name in names] + [n for n in names if n not in FIRST]


def inner_part(content: Any, is_part: Callable[[Any], bool], depth: int = 0) -> Chosen | None:
    """The best part in tables within tables; None where there is none.

    Args:
        content: of a file.
        is_part: whether a value holds weights.
        depth: how many tables it is in.
    """
    if is_part(content):
        return Chosen(content)
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return None
    tables = {str(name): value for name, value in content.items()}
    found = {name: inner_part(tables[name], is_part, depth + 1) for name in order(tables)}
    parts = {name: part for name, part in found.items() if part is not None}
    for name, part in parts.items():
        path = ".".join(filter(None, (name, part.name)))
        return Chosen(part.content, path, (*part.left, *(n for n in parts if n != name)))
    return None


def named_part(tensors: Weights, fits: Callable[[Weights], bool]) -> Chosen | None:
    """The tensors that fit, among those whose names all begin alike; None where none do.

    So ``module.``, ``_orig_mod.``, ``net_ema.`` and others before the names of a network are taken
    off, and of a file with an average and what it is of, the average is taken.

    Args:
        tensors: of a file.
        fits: whether tensors are those of a network.
    """
    return next(_named(tensors, fits, ""), None)


def _named(
    tensors: Weights, fits: Callable[[Weights], bool], before: str, depth: int = 0
) -> Iterator[Chosen]:
    if fits(tensors):
        yield Chosen(dict(tensors), before.rstrip("."))
        return
    groups = dict[str, dict[str, Tensor]]()
    for name, x in tensors.items():
        first, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(first, {})[rest] = x
    for name in order(groups) if depth <= DEEPEST else ():
        for part in _named(groups[name], fits, f"{before}{name}.", depth + 1):
            left = tuple(f"{before}{other}" for other in groups if other != name)
            yield Chosen(part.content, part.name, (*part.left, *left))
