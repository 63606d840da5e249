"""The derivative of a map along a path: by forward-mode differentiation, or by a difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewstep.networks.dropout import shared
from fewstep.parameterization import expand

STEP = 1e-3
"""Of ``t``: the largest half-width of a difference, that of float32."""

Map = Callable[[Tensor, Tensor], Tensor]


def forward(X: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``X`` and ``d_t X + J_x X v`` in one pass of twice to thrice the cost; exact."""
    found: Any = torch.func.jvp(X, (x, t), (v, torch.ones_like(t)))
    return found[0], found[1]


def difference(X: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``X`` and ``(X(x + h v, t + h) - X(x - h v, t - h)) / 2h``: three passes, one dropout mask.

    For networks that have no forward mode. ``h`` is a thousandth of ``t``, less in float64, where
    the error is of order ``h^2``; the lower point is not below ``s``, beyond which a network was
    never asked. Where the map starts at its end the difference is one-sided.
    """
    h = min(STEP, torch.finfo(t.dtype).eps ** (1 / 3)) * t.clamp(min=STEP)
    low = torch.where(t >= s, torch.maximum(t - h, s), t - h)
    masks = shared()

    def at(time: Tensor) -> Tensor:
        with masks:
            return X(x + expand(time - t, x) * v, time)

    y, below, above = at(t), at(low), at(t + h)
    return y, (above - below) / expand(t + h - low, x)


TANGENTS: dict[str, Callable[[Map, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "forward": forward,
    "difference": difference,
}
"""The ways to a tangent."""
