"""A pipeline of diffusers as data, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A component of a pipeline.

    Args:
        library, kind: where its class is, and the class.
        config: its settings.
        tensors: its weights; None of a component without any.
    """

    library: str
    kind: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of diffusers that samples as a model does.

    Args:
        kind: its class.
        parts: its components by name.
        calls: arguments of calls that sample as ours do, and what ours is then.
        notes: what was left out or should be known, a line each.
        sampler: spec of the sampler of ours that gives the same images; None is the model's own.
        more: further values of its index.
        came: whether it is as it came, so that there is nothing to compare.
    """

    kind: str
    parts: Mapping[str, Part]
    calls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sampler: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    came: bool = False
