"""Which weights of a file are the ones to use: of several parts, under whatever names they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.exchange.files.averages import is_average, lists_in

FIRST = (
    *("net", "model", "unet", "denoiser", "network", "diffusion_model"),
    *("state_dict", "model_state_dict", "params", "weights", "state", "module", "_orig_mod"),
)
"""Under which names files keep the weights to use, best first; averages come before all of them."""
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


def best(parts: Iterator[Chosen]) -> list[Chosen]:
    """Parts in the order in which they are to be used: averages before what they are of."""
    return sorted(parts, key=lambda part: not is_average(part.name))


def inner_part(
    content: Any, is_part: Callable[[Any], bool], fits: Callable[[Any], bool]
) -> Chosen | None:
    """The best part in tables within tables; None where there is none.

    A part that is of a known network comes before others, such as the state of an optimizer.

    Args:
        content: of a file.
        is_part: whether a value holds weights.
        fits: whether weights are those of a network that is known.
    """
    parts = best(_inner(content, is_part))
    return next((part for part in parts if fits(part.content)), next(iter(parts), None))


def _inner(
    content: Any, is_part: Callable[[Any], bool], before: str = "", depth: int = 0
) -> Iterator[Chosen]:
    if is_part(content):
        yield Chosen(content, before.rstrip("."))
        return
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    tables = {str(name): value for name, value in content.items()}
    within = {n: [*_inner(tables[n], is_part, f"{before}{n}.", depth + 1)] for n in order(tables)}
    others = {name: f"{before}{name}" for name, parts in within.items() if parts}
    others |= {name: f"{before}{name} (tensors without names)" for name in lists_in(tables)}
    for name, parts in within.items():
        left = tuple(said for other, said in others.items() if other != name)
        yield from (Chosen(p.content, p.name, (*p.left, *left)) for p in parts)


def named_part(tensors: Weights, fits: Callable[[Weights], bool]) -> Chosen | None:
    """The tensors that fit, among those whose names all begin alike; None where none do.

    So ``module.``, ``_orig_mod.``, ``net_ema.`` and others before the names of a network are taken
    off, and of a file with an average and what it is of, the average is taken.

    Args:
        tensors: of a file.
        fits: whether tensors are those of a network.
    """
    return next(iter(best(_named(tensors, fits, ""))), None)


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
