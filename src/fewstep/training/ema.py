"""Running averages of the weights, several at once."""

from __future__ import annotations

from fewstep.flow_map import FlowMap
from fewstep.training.config import Training


class Averages:
    """``theta_ema <- mu theta_ema + (1 - mu) theta`` for each average that the training asks for.

    Args:
        f: the map in training.
        config: its ``ema`` names the averages.
    """

    def __init__(self, f: FlowMap, config: Training) -> None:
        self.config = config
        self.maps = {value: f.frozen_copy().eval() for value in config.ema}

    @property
    def first(self) -> FlowMap:
        """The average that is sampled and evaluated."""
        return next(iter(self.maps.values()))

    def update(self, f: FlowMap, k: int) -> None:
        """Follow ``f`` after step ``k``."""
        for value, average in self.maps.items():
            average.average_(f, self.config.ema_decay(value, k))

    def named(self) -> dict[str, FlowMap]:
        """The averages under the names that checkpoints use."""
        return {ema_name(value): average for value, average in self.maps.items()}


def ema_name(value: float) -> str:
    """``ema-0.9999`` for a decay, ``ema-38400`` for a half-life in images."""
    return f"ema-{value:g}" if value < 1 else f"ema-{value:.0f}"
