"""Running averages of the weights, several at once, each without the weights it started from."""

from __future__ import annotations

import math
from pathlib import Path

from fewstep.stored_model import StoredModel
from fewstep.training.config import Training
from fewstep.training.restored import restore_map


class Averages:
    """The average that each of ``ema`` asks for, of the weights that the steps have given.

    ``theta_ema <- m_k theta_ema + (1 - m_k) theta`` with the decay of `corrected_decay`. A map is
    therefore, after every step, ``(avg - w theta_0) / (1 - w)`` of the plain average ``avg`` that
    starts at ``theta_0``, whose share in it ``w`` is the product of the decays; ``theta_0`` itself
    is not needed.

    Args:
        f: the map in training.
        config: its ``ema`` names the averages.
        name: of the map, before the names of its averages; none for the map that is sampled.
    """

    def __init__(self, f: StoredModel, config: Training, name: str = "") -> None:
        self.config, self._of = config, f"{name}-" if name else ""
        self.maps = {value: f.frozen_copy().eval() for value in config.ema}
        for value, average in self.maps.items():
            average.info["average"] = {
                "ema": value,
                "rampup": config.ema_rampup,
                "corrected": True,
            }

    @property
    def first(self) -> StoredModel:
        """The average that is sampled and evaluated."""
        return next(iter(self.maps.values()))

    def update(self, f: StoredModel, k: int) -> None:
        """Follow ``f`` after step ``k``."""
        for value, average in self.maps.items():
            average.average_(f, corrected_decay(self.config, value, k))

    def named(self) -> dict[str, StoredModel]:
        """The averages under the names that checkpoints use."""
        return {self._of + ema_name(value): average for value, average in self.maps.items()}

    def restore(self, folder: Path) -> None:
        """Put back the averages of a checkpoint.

        One of a fewstep that did not correct averages goes on as it is: the share of the initial
        weights in it falls with each step.
        """
        for value, average in self.maps.items():
            path = folder / f"{self._of}{ema_name(value)}.safetensors"
            restore_map(average, path if path.is_file() else _rounded_name(folder, value))


def corrected_decay(config: Training, value: float, k: int) -> float:
    """``mu_k (1 - w_{k-1}) / (1 - w_k)`` with ``w_k = mu_0 ... mu_k``; 0 at the first step."""
    before = math.expm1(log_start_share(config, value, k))
    after = math.expm1(log_start_share(config, value, k + 1))
    return config.ema_decay(value, k) * (before / after)


def log_start_share(config: Training, value: float, steps: int) -> float:
    """``ln w``: of the share that the plain average has in its start after so many steps.

    Step ``k`` multiplies it by the larger of two rates: that of the average itself, and the
    ramp-up's ``0.5^(1 / (ema_rampup (k + 1)))``, whose product is one of harmonic numbers.
    """
    rate = math.log(value) if value < 1 else -math.log(2) * config.batch / value
    if not config.ema_rampup:
        return rate * steps
    ramp = -math.log(2) / config.ema_rampup
    ramped = min(steps, int(ramp / rate))
    return ramp * _harmonic(ramped) + rate * (steps - ramped)


def _harmonic(n: int) -> float:
    """``1 + 1/2 + ... + 1/n``, to the rounding of a float."""
    if n < 64:
        return sum(1 / j for j in range(1, n + 1))
    euler = 0.5772156649015329
    return math.log(n) + euler + 1 / (2 * n) - 1 / (12 * n**2) + 1 / (120 * n**4)


def ema_name(value: float) -> str:
    """``ema-0.9999`` for a decay, ``ema-38400`` for a half-life in images; no two have the same."""
    value = float(value)  # an int is a half-life too
    return f"ema-{int(value) if value.is_integer() else value!r}"


def _rounded_name(folder: Path, value: float) -> Path:
    """Where a checkpoint of the fewstep that rounded the names has an average."""
    rounded = f"{value:g}" if value < 1 else f"{value:.0f}"
    return folder / f"ema-{rounded}.safetensors"
