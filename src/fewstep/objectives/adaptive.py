"""Weights that losses decide: of an example by its error, of a part by its gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def adaptive(square: Tensor, power: float, c: float) -> Tensor:
    """``square / sg(square + c)^power``: large errors count less (Geng et al. 2024; MeanFlow).

    Args:
        square: error of each example, not negative [B].
        power: 0 is the plain square, 1/2 about its root, 1 makes all examples count alike.
        c: what keeps the weight of small errors bounded.
    """
    return square / (square.detach() + c) ** power if power else square


def balance(first: Tensor, second: Tensor, weight: Tensor, most: float = 1e4) -> Tensor:
    """How much a second loss counts so that it moves a weight as far as the first: a scalar.

    ``|d first / d weight| / (|d second / d weight| + 1e-4)``, at most ``most``, held fixed (Esser,
    Rombach, Ommer 2021, Eq. 7; of the last layer, as in CTM's published code). Where no gradient is
    wanted it is 1.

    Args:
        first: a loss, a scalar.
        second: another.
        weight: a parameter on which both depend.
        most: the largest.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return torch.ones_like(first)
    norms = [torch.autograd.grad(x, weight, retain_graph=True)[0].norm() for x in (first, second)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=most).detach()
