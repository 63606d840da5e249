"""What is said of a model from elsewhere, and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fewstep.models import AnyModel


@dataclass(frozen=True)
class Wanted:
    """What the user says of a file; None where the file is to be asked.

    Args:
        consistency: whether it is a consistency model; else it is a diffusion model.
        size: side of its images.
        network: further arguments of its network, such as ``head_channels``.
        process: name and arguments of its process.
        heads_lead: whether queries, keys and values are ordered by head first, as in the first
            versions of guided-diffusion.
        earliest: the earliest time that a consistency model has learned to start at.
    """

    consistency: bool | None = None
    size: int | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    process: Mapping[str, Any] | None = None
    heads_lead: bool | None = None
    earliest: float | None = None


@dataclass(frozen=True)
class Imported:
    """A model, and what should be known of how it was read.

    Args:
        f: the model.
        project: what it was made with.
        notes: what was assumed, dropped or converted, a line each.
        sampler: spec of the sampler that walks as the model's own pipeline does, where there is
            one.
    """

    f: AnyModel
    project: str
    notes: tuple[str, ...]
    sampler: str | None = None

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        f, origin = self.f, self.f.info["origin"]
        classes = f" in {f.num_classes} classes" if f.num_classes else ""
        count = sum(x.numel() for x in f.network.parameters())
        whence = f" ({origin['source']})" if origin["source"] else ""
        licence = origin["licence"] or "not known: ask its authors"
        return (
            f"{f.trained.name} of {'x'.join(map(str, f.image_shape))}{classes}, {count:,} "
            f"parameters, {self.project}{whence}, licence {licence}"
        )
