"""Invertible linear maps in whose coordinates a part of an image is known.

Zero-shot editing (Song et al. 2023, Section 6 and Algorithm 4) needs of a task an invertible
linear ``A`` and the coordinates of ``A x`` that the given image decides. The paper's mask
``Omega`` is 1 where something is to be *generated*; `Operator.known` is its complement.

    task              A                                     known
    inpaint           identity                              the pixels that are kept
    outpaint          identity                              the pixels inside the margins
    colourise         rotation of the colours               the grey coordinate
    superresolve      rotation of each p x p patch          the patch's mean
    deblur            cosine transform (DCT-II)             frequencies that survived the blur

All of them are orthogonal: white noise stays white, and an error in one coordinate is an error of
the same size in the pixels. Your own task is a `Linear` or a `Matrix`
(`fewstep.editing.custom`), or a subclass with the three abstract methods.

Quantisation, JPEG and clipping are not here: what they keep is an interval around a value, not
a coordinate of an invertible linear map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.registry import Registry

OPERATORS: Registry[Operator] = Registry("editing operator")

GREY = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue in a grey value (ITU-R BT.601), as in the paper."""
WIDEST = 1e6  # pixels of a blur: nothing but the mean survives far less


class Operator(ABC):
    """An invertible linear ``A`` and the coordinates of ``A x`` that are known."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """``u = A x``: images [B, *shape] to coordinates [B, ...].

        Raises:
            FewstepError: images of this shape cannot be transformed.
        """

    @abstractmethod
    def inverse(self, u: Tensor) -> Tensor:
        """``x = A^-1 u``: coordinates [B, ...] to images [B, *shape]."""

    @abstractmethod
    def known(self, shape: tuple[int, ...]) -> Tensor:
        """``1 - Omega``: which coordinates are kept, for images of ``shape`` [B, *shape].

        Returns:
            bool [1 or B, ...] that broadcasts against ``A x``.
        """

    def observe(self, x: Tensor) -> Tensor:
        """What an observer sees of images ``x`` [B, *shape], such as their grey values."""
        known = self.known(tuple(x.shape)).to(x.device)
        return self.inverse(self(x) * known)

    def reference(self, observed: Tensor) -> Tensor:
        """An image [B, *shape] whose known coordinates are those of what was observed."""
        return observed


@OPERATORS.register("inpaint")
class Inpaint(Operator):
    """``A = I``: the pixels that a mask keeps are known.

    Args:
        keep: True or 1 where a pixel is kept: [H, W], [C, H, W] or one per image [B, C, H, W]
            (or anything that broadcasts against the images).

    Raises:
        FewstepError: a mask of more than two values: a pixel is kept, or it is not.
    """

    def __init__(self, keep: Tensor | Sequence) -> None:
        keep = torch.as_tensor(keep)
        kept = keep[keep != 0]
        soft = keep.is_floating_point() and bool((kept != 1).any())
        if soft or (len(kept) and bool((kept != kept[0]).any())):
            raise FewstepError(
                "a mask keeps a pixel (True or 1) or it does not (False or 0); this one has "
                f"{_few(keep.unique().tolist())}: compare it with a threshold."
            )
        self.keep = keep.bool()

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, u: Tensor) -> Tensor:
        return u

    def known(self, shape: tuple[int, ...]) -> Tensor:
        missing = len(shape) - self.keep.ndim
        sizes = (1,) * missing + tuple(self.keep.shape)
        if missing < 0 or any(k not in (1, n) for k, n in zip(sizes, shape, strict=True)):
            raise FewstepError(
                f"a mask of shape {list(self.keep.shape)} does not fit images of shape "
                f"{list(shape[1:])}."
            )
        return self.keep.reshape(sizes)


def _few(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:3]) + (", ..." if len(values) > 3 else "")


@OPERATORS.register("outpaint")
class Outpaint(Operator):
    """``A = I``: what lies inside margins of a canvas is known.

    Args:
        top, bottom, left, right: pixels of the canvas to generate on each side.
    """

    def __init__(self, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> None:
        self.margins = (top, bottom, left, right)
        if min(self.margins) < 0:
            raise FewstepError(f"margins must be whole numbers >= 0, got {self.margins}.")

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, u: Tensor) -> Tensor:
        return u

    def known(self, shape: tuple[int, ...]) -> Tensor:
        rows, columns = self.inside(shape)
        keep = torch.zeros(1, 1, *shape[-2:], dtype=torch.bool)
        keep[..., rows, columns] = True
        return keep

    def inside(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the known part of a canvas [..., H, W].

        Raises:
            FewstepError: the margins leave nothing.
        """
        top, bottom, left, right = self.margins
        H, W = _image_shape(shape)
        if top + bottom >= H or left + right >= W:
            raise FewstepError(
                f"margins of {top} + {bottom} rows and {left} + {right} columns leave nothing of "
                f"a canvas of {H}x{W} pixels."
            )
        return slice(top, H - bottom), slice(left, W - right)

    def observe(self, x: Tensor) -> Tensor:
        """The part inside the margins: [B, C, H - top - bottom, W - left - right]."""
        return x[(..., *self.inside(tuple(x.shape)))]

    def reference(self, observed: Tensor) -> Tensor:
        """The observed part on a canvas that is zero elsewhere."""
        top, bottom, left, right = self.margins
        return functional.pad(observed, (left, right, top, bottom))


@OPERATORS.register("colourise")
class Colourise(Operator):
    """``A`` rotates the colours so that the first coordinate is the grey value, which is known.

    The rotation's first row is proportional to ``GREY``; the two others complete it (Song et al.
    2023, Appendix D, colorization). Which two they are changes nothing: both are generated.
    """

    def __init__(self) -> None:
        self.Q = rotation(torch.tensor(GREY, dtype=torch.float64))

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise FewstepError(f"colours need images of 3 channels, got {list(x.shape[1:])}.")
        return torch.einsum("ij,bjhw->bihw", self.Q.to(x), x)

    def inverse(self, u: Tensor) -> Tensor:
        return torch.einsum("ji,bjhw->bihw", self.Q.to(u), u)

    def known(self, shape: tuple[int, ...]) -> Tensor:
        return _first(3).reshape(1, 3, 1, 1)

    def observe(self, x: Tensor) -> Tensor:
        """Grey values [B, 1, H, W]: a weighted mean of the colours."""
        weights = self.Q[0] / self.Q[0].sum()
        return torch.einsum("j,bjhw->bhw", weights.to(x), x)[:, None]

    def reference(self, observed: Tensor) -> Tensor:
        """The grey value in every colour: [B, 3, H, W]."""
        return observed.expand(-1, 3, -1, -1)


@OPERATORS.register("superresolve")
class SuperResolve(Operator):
    """``A`` turns each p x p patch so that the first coordinate is ``p`` times its known mean.

    The first row of the orthogonal matrix is constant, ``1/p`` (Song et al. 2023, Appendix D,
    super-resolution); which others complete it changes nothing, since all of them are generated.
    It is Householder's reflection ``I - 2 v v^T / v^T v`` with ``v = e_1 - (1/p, ..., 1/p)``, which
    needs no matrix and is its own inverse. Coordinates are [B, C, p^2, H/p, W/p].

    Args:
        p: factor, at least 2; it must divide the images' height and width.
    """

    def __init__(self, p: int = 2) -> None:
        if p < 2:
            raise FewstepError(f"the factor of super-resolution must be at least 2, got {p}.")
        self.p = p

    @property
    def Q(self) -> Tensor:
        """The matrix [p^2, p^2], which is symmetric."""
        return self._reflect(torch.eye(self.p**2, dtype=torch.float64)[None], 1)[0]

    def _reflect(self, x: Tensor, dim: int) -> Tensor:
        """``x - 2 v (v^T x) / v^T v`` along a dimension of ``p^2`` values."""
        first = x.narrow(dim, 0, 1)
        k = (first - x.sum(dim, keepdim=True) / self.p) / (1 - 1 / self.p)
        reflected = x + k / self.p
        reflected.narrow(dim, 0, 1).sub_(k)
        return reflected

    def _check(self, shape: tuple[int, ...]) -> None:
        H, W = _image_shape(shape)
        if H % self.p or W % self.p:
            raise FewstepError(f"the factor {self.p} does not divide images of {H}x{W} pixels.")

    def __call__(self, x: Tensor) -> Tensor:
        self._check(tuple(x.shape))
        return self._reflect(functional.pixel_unshuffle(x[:, :, None], self.p), 2)

    def inverse(self, u: Tensor) -> Tensor:
        return functional.pixel_shuffle(self._reflect(u, 2), self.p)[:, :, 0]

    def known(self, shape: tuple[int, ...]) -> Tensor:
        self._check(shape)
        return _first(self.p**2).reshape(1, 1, -1, 1, 1)

    def observe(self, x: Tensor) -> Tensor:
        """The means of the patches: [B, C, H/p, W/p]."""
        return functional.avg_pool2d(x, self.p)

    def reference(self, observed: Tensor) -> Tensor:
        """Each pixel p x p times."""
        return observed.repeat_interleave(self.p, 2).repeat_interleave(self.p, 3)


@OPERATORS.register("deblur")
class Deblur(Operator):
    """``A`` is the cosine transform: frequencies that survived a Gaussian blur are known.

    A symmetric blur with reflecting edges multiplies the coefficients of the orthonormal DCT-II by
    gains, here ``g(i, j) = exp(-blur^2/2 ((pi i/H)^2 + (pi j/W)^2))``. Where ``g >= floor`` the
    coefficient is restored by division; the rest is generated. Not in the paper.

    Args:
        blur: standard deviation of the blur in pixels.
        floor: smallest gain to trust. Noise and rounding grow by at most ``1 / floor``.
    """

    def __init__(self, blur: float = 1.0, floor: float = 0.1) -> None:
        if not (0 <= blur <= WIDEST and 0 < floor <= 1):
            raise FewstepError(
                f"need blur >= 0, at most {WIDEST:g} pixels, and 0 < floor <= 1, got {blur=}, "
                f"{floor=}."
            )
        self.blur, self.floor = blur, floor

    def __call__(self, x: Tensor) -> Tensor:
        H, W = _image_shape(tuple(x.shape))
        return cosines(H).to(x) @ x @ cosines(W).T.to(x)

    def inverse(self, u: Tensor) -> Tensor:
        H, W = u.shape[-2:]
        return cosines(H).T.to(u) @ u @ cosines(W).to(u)

    def known(self, shape: tuple[int, ...]) -> Tensor:
        return (self.gains(shape) >= self.floor)[None, None]

    def gains(self, shape: tuple[int, ...]) -> Tensor:
        """What the blur leaves of each frequency: [H, W], at most 1."""
        i, j = (torch.arange(n, dtype=torch.float64) * math.pi / n for n in _image_shape(shape))
        return torch.exp(-(self.blur**2) / 2 * (i[:, None] ** 2 + j**2))

    def observe(self, x: Tensor) -> Tensor:
        """The blurred image."""
        return self.inverse(self(x) * self.gains(tuple(x.shape)).to(x))

    def reference(self, observed: Tensor) -> Tensor:
        """The surviving frequencies with their gains undone, zero elsewhere."""
        gains = self.gains(tuple(observed.shape)).to(observed)
        return self.inverse(self(observed) * (gains >= self.floor) / gains.clamp(min=self.floor))


def rotation(first: Tensor) -> Tensor:
    """An orthogonal matrix [n, n] whose first row is proportional to ``first`` [n], by QR."""
    n = len(first)
    columns = torch.eye(n, dtype=first.dtype)
    columns[:, 0] = first
    Q, R = torch.linalg.qr(columns)
    return (Q * R.diagonal().sign()).T.contiguous()


def cosines(n: int) -> Tensor:
    """The orthonormal DCT-II [n, n]: row ``i`` is ``sqrt(2/n) cos(pi i (k + 1/2) / n)``."""
    k = torch.arange(n, dtype=torch.float64)
    rows = (2 / n) ** 0.5 * torch.cos(math.pi / n * k[:, None] * (k + 0.5))
    rows[0] /= 2**0.5
    return rows


def _first(n: int) -> Tensor:
    return torch.arange(n) == 0


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 4:
        raise FewstepError(f"expected images [B, C, H, W], got shape {list(shape)}.")
    return shape[2], shape[3]
