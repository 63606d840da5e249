"""The derivative of a map along a path: by forward-mode differentiation, or by a difference."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewstep.errors import FewstepError, unknown
from fewstep.networks.dropout import shared
from fewstep.parameterization import expand

R = TypeVar("R")
STEP = 1e-3
"""Of ``t``: the largest half-width of a difference, that of float32."""

Map = Callable[[Tensor, Tensor], Tensor]


def forward(
    X: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor, rate: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``X`` and ``d_t X + J_x X v`` in one pass of twice to thrice the cost; exact.

    The derivative is taken times the ``rate`` [B], where one is given, from the start of the pass:
    so none of its parts is large where the rate is small.
    """
    pace = torch.ones_like(t) if rate is None else rate
    moved = v if rate is None else expand(rate, x) * v
    found: Any = torch.func.jvp(X, (x, t), (moved, pace))
    return found[0], found[1]


def difference(
    X: Map,
    x: Tensor,
    t: Tensor,
    s: Tensor,
    v: Tensor,
    rate: Tensor | None = None,
    *,
    step: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``X`` and ``(X(x + h v, t + h) - X(x - h v, t - h)) / 2h``: three passes, one dropout mask.

    For networks that have no forward mode. ``h`` is ``step`` times ``t``, by default a thousandth
    and less in float64; the error is of order ``h^2``, and that of rounding of ``1 / h``. The lower
    point is not below ``s``, beyond which a network was never asked. Where the map starts at its
    end the difference is one-sided.
    """
    step = min(STEP, torch.finfo(t.dtype).eps ** (1 / 3)) if step is None else step
    h = step * t.clamp(min=STEP)
    low = torch.where(t >= s, torch.maximum(t - h, s), t - h)
    masks = shared()

    def at(time: Tensor) -> Tensor:
        with masks:
            return X(x + expand(time - t, x) * v, time)

    y, below, above = at(t), at(low), at(t + h)
    width = t + h - low
    return y, (above - below) / expand(width if rate is None else width / rate, x)


TANGENTS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "forward": forward,
    "difference": difference,
}
"""The ways to a tangent."""


def derivative(
    how: str, network: str, X: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor, rate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``X`` and its derivative by one of the `TANGENTS`; ``network`` is what a refusal names.

    Raises:
        FewstepError: another way; a network that has no forward mode.
    """
    found = TANGENTS[checked_tangent(how)]
    return _or_refused(network, lambda: found(X, x, t, s, v, rate))


def derivative_by_end(
    how: str, network: str, X: Callable[[Tensor], Tensor], s: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """``X(s)`` and ``dX/ds``, of a map by the end ``s`` [B] that it leads to from ``t`` [B].

    Gradients go through both. In forward mode it is exact and takes twice to thrice the cost of
    ``X``; a difference takes three passes of one dropout mask, and is one-sided at 0 and at ``t``.

    Raises:
        FewstepError: another way; a network that has no forward mode.
    """
    if checked_tangent(how) == "forward":
        found: Any = _or_refused(network, lambda: torch.func.jvp(X, (s,), (torch.ones_like(s),)))
        return found[0], found[1]
    h = min(STEP, torch.finfo(s.dtype).eps ** (1 / 3)) * t.clamp(min=STEP)
    low, high = (s - h).clamp(min=0.0), torch.minimum(s + h, t)
    masks = shared()

    def at(end: Tensor) -> Tensor:
        with masks:
            return X(end)

    y, below, above = at(s), at(low), at(high)
    return y, (above - below) / expand(high - low, y)


def _or_refused(network: str, call: Callable[[], R]) -> R:
    """What is computed, or a refusal that names the network."""
    if torch.compiler.is_compiling():
        return call()
    try:
        return call()
    except (RuntimeError, NotImplementedError) as error:
        raise _without_forward_mode(network, error) or error from error


def _without_forward_mode(network: str, error: Exception) -> FewstepError | None:
    """What to say of a network that cannot be differentiated forwards; None of another error."""
    reason = str(error).strip().partition("\n")[0]
    if not re.search(r"forward[- ](AD|mode)|jvp", reason, re.IGNORECASE):
        return None
    return FewstepError(
        f"a part of the network {network} has no forward-mode derivative ({reason[:200]}): take "
        'the tangent by finite differences, tangent="difference", --objective.tangent difference.'
    )


def checked_tangent(how: str) -> str:
    """A way to a tangent.

    Raises:
        FewstepError: another.
    """
    if how not in TANGENTS:
        raise unknown("way to a tangent", how, TANGENTS)
    return how
