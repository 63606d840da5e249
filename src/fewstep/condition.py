"""What a network is conditioned on besides the noise level, as one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewstep.errors import FewstepError

EVERYWHERE = (0.0, math.inf)
"""The interval of all noise levels."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What each row of a batch is conditioned on; None where a network is told nothing.

    Args:
        label: class of each row, int64 [B]; a number of classes, one past the last, is no class.
        w: guidance weight of each row [B], for a network that was trained with it as an input.
        interval: noise levels ``sigma / alpha`` of each row [B, 2]: the weight guides above the
            first and up to the second; for a network that was trained with both as an input.
        embedding: anything else that describes what is wanted, such as a text [B, ...]; zero is
            nothing.
        augment: parameters of the augmentation that a training image went through [B, A].
    """

    label: Tensor | None = None
    w: Tensor | None = None
    interval: Tensor | None = None
    embedding: Tensor | None = None
    augment: Tensor | None = None

    def of(self, takes: Sequence[str]) -> dict[str, Tensor]:
        """The fields that are given, as the keywords of a network that takes them.

        Raises:
            FewstepError: one is given that the network does not take.
        """
        given = self.given()
        for name in given:
            if name not in takes:
                raise FewstepError(
                    f"this network takes no {name}, but {', '.join(takes) or 'nothing'}."
                )
        return given

    def rows(self, index: Tensor | slice | Sequence[int]) -> Condition:
        """Some rows of a batch."""
        return self._each(lambda x: x[index])

    def filled(self, rows: int) -> Condition:
        """As many rows as that: further ones are zero."""
        return self._each(lambda x: pad(x, (0, 0) * (x.ndim - 1) + (0, rows - len(x))))

    def to(self, device: torch.device | str) -> Condition:
        """On another device."""
        return self._each(lambda x: x.to(device))

    def hiding(self, p: float, num_classes: int) -> Condition:
        """What each row is of hidden with probability ``p``: label dropout (Ho & Salimans 2022).

        A hidden class is no class, a hidden embedding is zero.
        """
        label, embedding = self.label, self.embedding
        wanted = embedding if label is None else label
        if wanted is None or not p:
            return self
        known = torch.rand(len(wanted), device=wanted.device) >= p
        if label is not None:
            label = torch.where(known, label, num_classes)
        if embedding is not None:
            embedding = embedding * known.view(-1, *(1,) * (embedding.ndim - 1))
        return replace(self, label=label, embedding=embedding)

    def wanted(self, num_classes: int) -> Tensor | None:
        """Which rows say what is wanted, by a class or an embedding: [B]; None where none can."""
        if self.label is not None:
            return self.label < num_classes
        return None if self.embedding is None else (self.embedding != 0).flatten(1).any(1)

    def within(self, interval: Tensor) -> Condition:
        """With an interval of guidance [B, 2]; one that each row has of its own stays."""
        return self if self.interval is not None else replace(self, interval=interval)

    def null(self) -> Condition:
        """Without what is wanted: no class and no embedding."""
        return replace(self, label=None, embedding=None)

    def given(self) -> dict[str, Tensor]:
        """The fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(**{name: change(value) for name, value in self.given().items()})


def told(condition: Condition, label: Tensor | None = None) -> Condition:
    """A condition with a class that was given by itself.

    Raises:
        FewstepError: something else in the place of a condition, such as the class itself.
    """
    if not isinstance(condition, Condition):
        raise FewstepError(
            "a model is conditioned by label=..., or by condition=Condition(...), not by "
            f"{type(condition).__name__}."
        )
    return condition if label is None else replace(condition, label=label)


NONE = Condition()
"""Nothing: an unconditional network's condition, and a conditional one's for no class."""


def everywhere(rows: Tensor) -> Tensor:
    """The interval of all noise levels, for each of ``rows`` [B]: [B, 2]."""
    return torch.stack([torch.full_like(rows, level) for level in EVERYWHERE], dim=1)
