"""Group norm whose maps stay in the channels_last memory format, on every device.

On a GPU torch's own kernel wants and gives contiguous maps: between convolutions, which are fastest
with channels last, every norm would change the layout of a map and of its gradient, several times.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.nn import functional

from fewstep.networks.dropout import dropout, dropout_seed, mask
from fewstep.precision import HALF

Film = tuple[Tensor, Tensor]


def forward_mode(x: Tensor) -> bool:
    """Whether ``x`` carries a tangent, as inside `torch.func.jvp`."""
    return forward_ad.unpack_dual(x).tangent is not None


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
        compiling = torch.compiler.is_compiling()
        # on an H100 `FusedNorm` compiled in float32 failed its test, and passed it in halves
        if loses_layout(x) and (x.dtype in HALF or not compiling):
            return self._channels_last(x)
        return super().forward(x) if x.dtype not in HALF else self._half(x)

    def _plain(self, x: Tensor) -> Tensor:
        groups = x.unflatten(1, (self.num_groups, -1))
        var, mean = torch.var_mean(groups, (2, 3, 4), correction=0, keepdim=True)
        normal = ((groups - mean) * (var + self.eps).rsqrt()).flatten(1, 2)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]

    def _half(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return functional.group_norm(x, self.num_groups, weight, bias, self.eps)

    def _channels_last(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return FusedNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)[0]
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return RelaidNorm.apply(x, weight, bias, self.num_groups, self.eps)[0]


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
        and not transformed(x)
    )


def transformed(x: Tensor) -> bool:
    """Whether ``x`` is one of `torch.func`'s, inside one of its transforms."""
    return not torch.compiler.is_compiling() and torch._C._functorch.maybe_get_level(x) >= 0


def loses_layout(x: Tensor) -> bool:
    """Whether torch's own norm would give another memory format than that of ``x``."""
    return x.device.type == "cuda" and x.is_contiguous(memory_format=torch.channels_last)


class RelaidNorm(Function):
    """torch's kernels; the map and its gradient are laid out with channels last at once.

    Otherwise everything up to the next convolution, which does it in any case, would work on two
    layouts at a time, and the convolution would do it again for its own gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        N, C, H, W = x.shape
        y, mean, rstd = torch.native_group_norm(
            x.contiguous(), weight, bias, N, C, H * W, groups, eps
        )
        return y.contiguous(memory_format=torch.channels_last), mean, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, ctx.groups, _ = inputs
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.save_for_backward(x, weight, mean, rstd)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        N, C, H, W = x.shape
        dx, dweight, dbias = torch.ops.aten.native_group_norm_backward(
            gradients[0].contiguous(),
            x.contiguous(),
            mean,
            rstd,
            weight,
            N,
            C,
            H * W,
            ctx.groups,
            [True, True, True],
        )
        return dx.contiguous(memory_format=torch.channels_last), dweight, dbias, None, None


class FusedNorm(Function):
    """Plain operations for a compiler, which fuses them with what stands before and after.

    Two passes over the maps forward and two backward, each along the channels: first sums of every
    image and channel [N, C], then one expression for each pixel.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x)
        variances, means = torch.var_mean(wide, (2, 3), correction=0)  # [N, C]
        means = means.unflatten(1, (groups, -1))
        mean = means.mean(2)  # [N, groups]
        within = variances.unflatten(1, (groups, -1)).mean(2)
        rstd = (within + (means - mean[:, :, None]).square().mean(2) + eps).rsqrt()
        scale = _spread(rstd, x) * weight
        shift = bias - _spread(mean, x) * scale
        return (wide * _pixels(scale) + _pixels(shift)).to(x.dtype), mean, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        RelaidNorm.setup_context(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        dy, n = _wide(gradients[0]), x[0].numel() // ctx.groups
        centred = _wide(x) - _pixels(_spread(mean, x))
        dweight, dbias = (dy * centred).sum((2, 3)), dy.sum((2, 3))  # [N, C]
        along, level = (
            (part * weight).unflatten(1, (ctx.groups, -1)).sum(2) / n for part in (dweight, dbias)
        )
        slope = _spread(along * rstd**3, x)
        dx = dy * _pixels(_spread(rstd, x) * weight)
        dx = dx - centred * _pixels(slope) - _pixels(_spread(level * rstd, x))
        dweight = (dweight * _spread(rstd, x)).sum(0)
        return dx.to(x.dtype), dweight.to(weight.dtype), dbias.sum(0).to(weight.dtype), None, None


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _spread(of_groups: Tensor, x: Tensor) -> Tensor:
    """One value per channel [N, C] from one per group [N, groups]."""
    return of_groups.repeat_interleave(x.shape[1] // of_groups.shape[1], dim=1)


def _pixels(of_channels: Tensor) -> Tensor:
    """[N, C] to [N, C, 1, 1]."""
    return of_channels[:, :, None, None]
