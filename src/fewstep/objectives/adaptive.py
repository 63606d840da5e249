"""A weight of each example that its own error decides."""

from __future__ import annotations

from torch import Tensor


def adaptive(square: Tensor, power: float, c: float) -> Tensor:
    """``square / sg(square + c)^power``: large errors count less (Geng et al. 2024; MeanFlow).

    Args:
        square: error of each example, not negative [B].
        power: 0 is the plain square, 1/2 about its root, 1 makes all examples count alike.
        c: what keeps the weight of small errors bounded.
    """
    return square / (square.detach() + c) ** power if power else square
