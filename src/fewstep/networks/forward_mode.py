"""What networks are made of, with a forward-mode derivative that is right and cheap.

`torch.func.jvp` differentiates along one direction as it evaluates. Torch's own formulas take the
weights for inputs that may move as well, and multiply by their tangent, which is zero: a layer
costs three products, where two are enough. The fused attention kernels have no such derivative at
all, and that of the layer norm has a wrong gradient. Without a tangent everything here is torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Of an input, weights and a bias."""


def forward_mode(x: Tensor) -> bool:
    """Whether ``x`` carries a tangent, as inside `torch.func.jvp`.

    A compiler is told whether it is inside one: it cannot ask a tensor outside of it.
    """
    if torch.compiler.is_compiling():
        return _differentiating()
    return forward_ad.unpack_dual(x).tangent is not None


def _differentiating() -> bool:
    return forward_ad._current_level >= 0


# What torch.compiler.assume_constant_result does, without the second that its compiler's import
# takes and the packages that it looks for.
_differentiating._dynamo_marked_constant = True  # type: ignore[attr-defined]


def affine(x: Tensor, w: Tensor, b: Tensor | None, product: Product) -> Tensor:
    """``product(x, w, b)``, linear in ``x`` but for ``b``; its tangent is ``product(dx, w)``."""
    if not forward_mode(x):
        return product(x, w, b)
    primal, dx = forward_ad.unpack_dual(x)
    weights = [w] if b is None else [w, b]
    if dx is None or any(forward_ad.unpack_dual(a).tangent is not None for a in weights):
        return product(x, w, b)
    dual: Tensor = forward_ad.make_dual(product(primal, w, b), product(dx, w, None))
    return dual


class Linear(nn.Linear):
    """``x W^T + b``."""

    def forward(self, x: Tensor) -> Tensor:
        return affine(x, self.weight, self.bias, functional.linear)


class Conv2d(nn.Conv2d):
    """A convolution of maps."""

    def forward(self, x: Tensor) -> Tensor:
        return affine(x, self.weight, self.bias, self._conv_forward)


def layer_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """`standardized` over the last dimension.

    The forward-mode derivative of torch's own is right, and faster, but the gradient of that
    derivative is not: it takes mean and variance for constants.
    """
    if forward_mode(x) and torch.is_grad_enabled():
        return standardized(x, (-1,), eps)
    return functional.layer_norm(x, x.shape[-1:], eps=eps)


def standardized(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """``y = (x - mean) r`` with ``r = 1 / sqrt(var + eps)``, and its tangent where ``x`` has one.

    ``dy = r (dx - mean dx - y mean (y dx))``.
    """
    primal, dx = forward_ad.unpack_dual(x)
    var, mean = torch.var_mean(primal, dims, correction=0, keepdim=True)
    r = (var + eps).rsqrt()
    y = (primal - mean) * r
    if dx is None:
        return y
    along = dx - dx.mean(dims, keepdim=True)
    dual: Tensor = forward_ad.make_dual(
        y, torch.addcmul(along, y, (y * dx).mean(dims, keepdim=True), value=-1) * r
    )
    return dual


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(D)) v`` of queries, keys and values [..., N, D].

    By the fused kernel; in forward mode by matrix products of all pairs of tokens.
    """
    if not forward_mode(q):
        return functional.scaled_dot_product_attention(q, k, v)
    (q_, dq), (k_, dk), (v_, dv) = (forward_ad.unpack_dual(x) for x in (q, k, v))
    if dq is None or dk is None or dv is None:
        with sdpa_kernel(SDPBackend.MATH):
            return functional.scaled_dot_product_attention(q, k, v)
    y, dy = _attended(q_, dq, k_, dk, v_, dv)
    dual: Tensor = forward_ad.make_dual(y.to(v.dtype), dy.to(v.dtype))
    return dual


def _attended(
    q: Tensor, dq: Tensor, k: Tensor, dk: Tensor, v: Tensor, dv: Tensor
) -> tuple[Tensor, Tensor]:
    """``y = A v`` with ``A = softmax(S)``, and ``dy = A dv + (A dS) v - sum(A dS) y``.

    ``A dS`` is element by element, and its sum over the keys; all in at least float32.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q, dq = (x.to(wide) / q.shape[-1] ** 0.5 for x in (q, dq))
    k, dk, v, dv = (x.to(wide) for x in (k, dk, v, dv))
    A = (q @ k.mT).softmax(-1)
    AdS = A * (dq @ k.mT + q @ dk.mT)
    y = A @ v
    return y, A @ dv + AdS @ v - AdS.sum(-1, keepdim=True) * y
