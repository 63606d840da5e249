"""A target that is the map in training, or its running average."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fewstep.flow_map import FlowMap
from fewstep.networks.dropout import check_dropout
from fewstep.objectives.base import Objective


class Targeted(Objective):
    """An objective that compares the map with its target ``f_minus``.

    Args:
        f: the map in training.
        K: total number of training steps.
        mu: decay ``mu(k)`` of ``f_minus``; without it ``f_minus`` is ``f`` under stop-gradient.
    """

    def __init__(self, f: FlowMap, K: int, *, mu: Callable[[int], float] | None) -> None:
        super().__init__(f, K)
        check_dropout(f.F)
        self.mu = mu
        self._f_minus = f.frozen_copy() if mu else None

    @property
    def f_minus(self) -> FlowMap:
        """The target map; call it without gradients."""
        return self.f if self._f_minus is None else self._f_minus

    def after_step(self, k: int) -> None:
        if self._f_minus is not None and self.mu is not None:
            self._f_minus.average_(self.f, self.mu(k))

    def changing(self) -> dict[str, nn.Module]:
        more = {} if self._f_minus is None else {"f_minus": self._f_minus}
        return super().changing() | more
