"""Group norm whose maps stay in the channels_last memory format, on every device.

On a GPU torch's own kernel wants and gives contiguous maps: between convolutions, which are fastest
with channels last, every norm would change the layout of a map and of its gradient, several times.
There it is a kernel of this package, where Triton and a C compiler are at hand, as on Linux.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fewstep.networks.dropout import dropout, dropout_seed, mask
from fewstep.networks.forward_mode import forward_mode, standardized
from fewstep.precision import HALF
from fewstep.tracing import transformed

Film = tuple[Tensor, Tensor]
PIXEL_EPS = 1e-8  # of a pixel norm (Karras et al. 2018)


def film_of(e: Tensor, *, double_norm: bool) -> Film:
    """Scale and offset of ``norm(x) (1 + scale) + offset`` from a layer's result [N, 2 C].

    With ``double_norm`` it is ``norm(x) pnorm(1 + scale) + pnorm(offset)``, where ``pnorm(a)`` is
    ``a / sqrt(mean a^2 + 1e-8)`` over the channels: the adaptive double normalisation of Lu & Song
    2024, Section 4.1, which keeps the derivative in the time bounded.
    """
    scale, offset = e.chunk(2, dim=1)
    return (_pnorm(1 + scale) - 1, _pnorm(offset)) if double_norm else (scale, offset)


def _pnorm(a: Tensor) -> Tensor:
    wide = a.to(torch.promote_types(a.dtype, torch.float32))
    return (wide * (wide.square().mean(1, keepdim=True) + PIXEL_EPS).rsqrt()).to(a.dtype)


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` whose forward-mode derivative exists for channels_last maps as well.

    A map in half precision stays in it, which halves what the norm and the activation after it
    move; mean and variance are sums in float32. Left to itself, autocast would widen the map.
    """

    def silu(
        self, x: Tensor, shift: Tensor | None = None, film: Film | None = None, p: float = 0.0
    ) -> Tensor:
        """``dropout(silu(norm(x + shift) (1 + scale) + offset))``.

        Args:
            x: maps [N, C, H, W]; the shift may be added to them in place.
            shift: [N, C].
            film: scale and offset of every image and channel, each [N, C].
            p: probability of zeroing an element, in training.
        """
        if fused(x):
            return self._in_one_kernel(x, shift, film, p, activated=True)
        y = self(x if shift is None else x.add_(shift[:, :, None, None]))
        if film is not None:
            scale, offset = (part[:, :, None, None] for part in film)
            y = torch.addcmul(offset, y, 1 + scale)
        return dropout(functional.silu(y), p, self.training)

    def _in_one_kernel(
        self, x: Tensor, shift: Tensor | None, film: Film | None, p: float, *, activated: bool
    ) -> Tensor:
        from fewstep.networks.norm_kernel import Norm

        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if film is not None:
            scale, offset = film
            weight, bias = weight * (1 + scale), torch.addcmul(offset, bias, 1 + scale)
        p = p if self.training else 0.0
        seed = mask(lambda: dropout_seed(x.device)) if p else None
        words = (shift, weight, bias, seed, self.num_groups, activated, p, self.eps)
        return Norm.apply(x, *words)[0]

    def forward(self, x: Tensor) -> Tensor:
        if fused(x):
            return self._in_one_kernel(x, None, None, 0.0, activated=False)
        if forward_mode(x):
            return self._plain(x)
        return super().forward(x) if x.dtype not in HALF else self._half(x)

    def _plain(self, x: Tensor) -> Tensor:
        groups = x.permute(0, 2, 3, 1).unflatten(3, (self.num_groups, -1))
        normal = standardized(groups, (1, 2, 4), self.eps).flatten(3)
        return (normal * self.weight + self.bias).permute(0, 3, 1, 2)

    def _half(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not (transformed() or torch.compiler.is_compiling()):
            y: Tensor = _Widened.apply(x, self.weight, self.bias, self.num_groups, self.eps)
            return y
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


class _Widened(torch.autograd.Function):
    """A group norm on a CPU of maps in half precision, computed in float32.

    Torch's own kernel for such maps takes four times as long as that for float32. What is kept for
    the backward pass is the narrow map.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        wide = x.float()
        ctx.sizes = (*x.shape[:2], x.shape[2:].numel(), groups)
        y, mean, rstd = torch.ops.aten.native_group_norm(
            wide, weight.float(), bias.float(), *ctx.sizes, eps
        )
        ctx.save_for_backward(x, mean, rstd, weight)
        narrow: Tensor = y.to(x.dtype)
        return narrow

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        dx, dw, db = torch.ops.aten.native_group_norm_backward(
            grad.float(), x.float(), mean, rstd, weight.float(), *ctx.sizes, wanted
        )
        narrow = [None if d is None else d.to(t) for d, t in ((dx, x.dtype), (dw, weight.dtype))]
        return (*narrow, None if db is None else db.to(weight.dtype), None, None)


def group_norm(channels: int, eps: float = 1e-6) -> GroupNorm:
    """At most 32 groups of at least 4 channels each, as many as divide the channels evenly."""
    groups = min(32, channels // 4)
    while channels % groups:
        groups -= 1
    return GroupNorm(groups, channels, eps=eps)


COMPILERS = ("cc", "gcc", "clang")  # one of them Triton needs for what launches its kernels
HAS_TRITON = find_spec("triton") is not None and any(
    which(name) for name in (os.environ.get("CC", "cc"), *COMPILERS)
)


def fused(x: Tensor) -> bool:
    """Whether norm, activation and what is added before are one kernel for such a map."""
    return (
        x.device.type == "cuda"
        and HAS_TRITON
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.dtype in (torch.float32, *HALF)
        and not forward_mode(x)
        and not transformed()  # of which kernels know nothing
    )
