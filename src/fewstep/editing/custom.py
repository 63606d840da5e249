"""Operators of your own: an invertible linear map, as functions or a matrix, and a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.editing.operators import Operator
from fewstep.errors import FewstepError

Map = Callable[[Tensor], Tensor]

CONDITION = 1e4  # of a matrix: float32 keeps about three digits of a known coordinate


class Linear(Operator):
    """``A`` and ``A^-1`` given as functions of a batch, with the paper's mask.

    Nothing can check that ``A`` is linear and that ``inverse`` undoes it: an orthogonal ``A`` keeps
    white noise white, and is the safe choice.

    Args:
        A: images [B, *shape] to coordinates [B, ...].
        inverse: coordinates back to images.
        Omega: 1 or True where a coordinate is to be *generated* [...], one mask for all images.
    """

    def __init__(self, A: Map, inverse: Map, Omega: Tensor) -> None:
        self.A, self._inverse, self.Omega = A, inverse, Omega.bool()

    def __call__(self, x: Tensor) -> Tensor:
        return self.A(x)

    def inverse(self, u: Tensor) -> Tensor:
        return self._inverse(u)

    def known(self, shape: tuple[int, ...]) -> Tensor:
        sizes = tuple(self.A(torch.zeros(1, *shape[1:])).shape[1:])
        if tuple(self.Omega.shape) != sizes:
            raise FewstepError(
                f"the mask Omega has shape {list(self.Omega.shape)}, but A gives coordinates of "
                f"shape {list(sizes)}."
            )
        return ~self.Omega[None]


class Matrix(Linear):
    """``A`` as a matrix on flattened images: ``u = A vec(x)``.

    Args:
        A: [n, n] for images of ``n`` numbers, C H W of them.
        shape: shape (C, H, W) of the images.
        Omega: 1 or True where a coordinate is to be *generated* [n].

    Raises:
        FewstepError: a matrix that does not fit, or that cannot be inverted in float32 (condition
            above 1e4).
    """

    def __init__(self, A: Tensor, shape: tuple[int, ...], Omega: Tensor) -> None:
        n = torch.Size(shape).numel()
        if tuple(A.shape) != (n, n):
            raise FewstepError(
                f"images of shape {list(shape)} need a matrix of {n}x{n}, got {list(A.shape)}."
            )
        A = A.double()
        if not torch.linalg.cond(A) <= CONDITION:
            raise FewstepError(
                f"the matrix A is not invertible, or its condition is above {CONDITION:g}."
            )
        A_inverse = torch.linalg.inv(A)
        super().__init__(
            lambda x: x.flatten(1) @ A.T.to(x),
            lambda u: (u @ A_inverse.T.to(u)).reshape(-1, *shape),
            Omega,
        )
