"""The pieces of the U-Net: resampling, residual blocks, self-attention.

They are those of DDPM++ and NCSN++ (Song et al. 2021) with EDM's settings (Karras et al. 2022):
group norms with ``eps = 1e-6``, a sum of two branches divided by ``sqrt(2)``, Xavier-uniform
weights, zero biases. Where EDM multiplies the initial weights of a last layer by 1e-5, they are
exactly zero here: every block starts as its (scaled) skip connection.

Feature maps are [B, C, H, W] in the channels_last memory format, of which [B H W, C] is a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.networks.convolution import without_bias
from fewstep.networks.forward_mode import Conv2d, Linear, attend
from fewstep.networks.norm import film_of, fused, group_norm

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
Direction = Literal["up", "down"]
Taps = tuple[float, ...]


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer with Xavier-uniform weights times ``gain`` and a zero bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3x3(
    inputs: int, outputs: int, *, gain: float = 1.0, stride: int = 1, padding: int = 1
) -> nn.Conv2d:
    return xavier(Conv2d(inputs, outputs, 3, stride, padding), gain)


def conv_and_shift(conv: nn.Conv2d, x: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """``conv(x)`` and a shift [N, C] that is to be added to it by the norm that follows.

    Where that norm is one kernel, the convolution's bias is a part of the shift, and spares a pass
    over the map, and its gradient another.
    """
    if not fused(x):
        return conv(x), shift
    return without_bias(conv, x), shift if conv.bias is None else shift + conv.bias


def balanced_sum(a: Tensor, b: Tensor) -> Tensor:
    """``(a + b) / sqrt(2)``, which keeps the variance of independent summands."""
    if summed_at_once(a, b):
        return _summed(a, b, None, math.sqrt(0.5))
    return (a + b).mul_(math.sqrt(0.5))


def branches_sum(
    conv: nn.Conv2d, h: Tensor, skip: nn.Module, x: Tensor, *, balanced: bool
) -> Tensor:
    """``conv(h) + skip(x)``, balanced or not; the skip is a convolution of one pixel or nothing.

    Where that is one kernel, it adds the biases as well, and a compiler does that by itself.
    """
    if torch.compiler.is_compiling() or not (fused(h) and fused(x)):
        a, b = conv(h), skip(x)
        return balanced_sum(a, b) if balanced else a + b
    layers = [layer for layer in (conv, skip) if isinstance(layer, nn.Conv2d)]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    a = without_bias(conv, h)
    b = without_bias(skip, x) if isinstance(skip, nn.Conv2d) else x
    bias = sum(biases[1:], biases[0]) if biases else None
    return _summed(a, b.to(a.dtype), bias, math.sqrt(0.5) if balanced else 1.0)


def summed_at_once(a: Tensor, b: Tensor) -> bool:
    """Whether a sum of such maps is one kernel."""
    compiling = torch.compiler.is_compiling()
    return not compiling and fused(a) and fused(b) and a.dtype == b.dtype and a.shape == b.shape


def _summed(a: Tensor, b: Tensor, bias: Tensor | None, gain: float) -> Tensor:
    from fewstep.networks.sum_kernel import Sum

    return Sum.apply(a, b, bias, gain)


def doubled(x: Tensor) -> Tensor:
    """Every pixel four times: [B, C, H, W] -> [B, C, 2 H, 2 W].

    The backward pass of torch's own compiles to a scatter, that of a view to a sum.
    """
    if not torch.compiler.is_compiling():
        return functional.interpolate(x, scale_factor=2)
    B, C, H, W = x.shape
    pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None]
    return pixels.expand(B, H, 2, W, 2, C).reshape(B, 2 * H, 2 * W, C).permute(0, 3, 1, 2)


class Resample(nn.Module):
    """Halve or double height and width through a separable low-pass filter.

    Args:
        direction: "down" to halve, "up" to double.
        taps: the filter along each axis, of even length and any scale; ``(1, 1)`` averages 2x2
            pixels and repeats them, ``(1, 3, 3, 1)`` is smoother.
        padding: zeros around the image; by default as many as halve or double exactly.
    """

    kernel: Tensor

    def __init__(self, direction: Direction, taps: Taps, padding: int | None = None) -> None:
        super().__init__()
        self.up = direction == "up"
        self.box = len(taps) == 2 and taps[0] == taps[1]
        self.padding = len(taps) // 2 - 1 if padding is None else padding
        # On the CPU also in a skeleton: nothing stores it.
        row = torch.tensor(taps, dtype=torch.float32, device="cpu")
        row *= (2 if self.up else 1) / row.sum()
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.box and self.up:  # the same as below, several times faster
            return doubled(x)
        if self.box:
            return functional.avg_pool2d(x, 2)
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        convolve = functional.conv_transpose2d if self.up else functional.conv2d
        return convolve(x, kernel, stride=2, padding=self.padding, groups=x.shape[1])


class ResampleConv(nn.Module):
    """DDPM's resampling: a 3x3 convolution, of stride 2 on the way down, after doubling up."""

    def __init__(self, channels: int, direction: Direction, taps: Taps) -> None:
        super().__init__()
        up = direction == "up"
        self.enlarge = Resample("up", taps) if up else nn.Identity()
        self.conv = conv3x3(channels, channels, stride=1 if up else 2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.conv(self.enlarge(x))


class ResidualInput(nn.Module):
    """A 3x3 convolution and halving of the image path that NCSN++ adds at every lower level."""

    def __init__(self, inputs: int, outputs: int, taps: Taps) -> None:
        super().__init__()
        # The filter's border is computed by the convolution instead of being padded with zeros.
        self.conv = conv3x3(inputs, outputs, padding=len(taps) // 2)
        self.shrink = Resample("down", taps, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(self.conv(x))


class Attention(nn.Module):
    """``(x + proj(softmax(q k^T / sqrt(D)) v)) / sqrt(2)`` over all pixels, ``q, k, v`` of norm(x).

    Args:
        channels: channels ``C`` of ``x``.
        heads: heads of ``D = C / heads`` channels each; few wide heads are fastest.
        balanced: divide by ``sqrt(2)``.
        eps: of the norm.
    """

    def __init__(
        self, channels: int, heads: int, *, balanced: bool = True, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.heads, self.balanced = heads, balanced
        self.norm = group_norm(channels, eps)
        self.qkv = xavier(Linear(channels, 3 * channels), math.sqrt(0.2))
        self.proj = xavier(Linear(channels, channels), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(-1, C)
        qkv = self.qkv(tokens).view(B, H * W, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        a = attend(q, k, v).transpose(1, 2).reshape(-1, C)
        a = self.proj(a).view(B, H, W, C).permute(0, 3, 1, 2)
        return balanced_sum(x, a) if self.balanced else x + a


@dataclass(frozen=True)
class BlockSettings:
    """What all residual blocks of a network have in common."""

    condition: int  # width of the condition vector e
    dropout: float
    head_channels: int | None  # None is one head
    taps: Taps
    double_norm: bool = False

    def attention(self, channels: int) -> Attention:
        return Attention(channels, channels // (self.head_channels or channels))


class Block(nn.Module):
    """``(skip(x) + conv1(drop(silu(norm1(conv0(silu(norm0(x))) + affine(e)))))) / sqrt(2)``.

    With a direction, ``x`` and ``silu(norm0(x))`` are resampled first; with attention,
    self-attention follows. With ``double_norm``, ``norm1(conv0(...))`` is scaled and shifted
    instead, see `fewstep.networks.norm.film_of`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        settings: BlockSettings,
        *,
        direction: Direction | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.norm0 = group_norm(inputs)
        self.conv0 = conv3x3(inputs, outputs)
        self.double_norm = settings.double_norm
        parts = 2 if self.double_norm else 1
        self.affine = xavier(Linear(settings.condition, parts * outputs))
        self.norm1 = group_norm(outputs)
        self.conv1 = conv3x3(outputs, outputs, gain=0.0)
        plain = inputs == outputs and direction is None
        self.resample = Resample(direction, settings.taps) if direction else nn.Identity()
        self.skip = nn.Identity() if plain else xavier(Conv2d(inputs, outputs, 1))
        self.attention = settings.attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.resample(self.norm0.silu(x))
        if self.double_norm:
            film = film_of(self.affine(e), double_norm=True)
            h = self.norm1.silu(self.conv0(h), film=film, p=self.dropout)
        else:
            h, shift = conv_and_shift(self.conv0, h, self.affine(e))
            h = self.norm1.silu(h, shift, p=self.dropout)
        return self.attention(
            branches_sum(self.conv1, h, self.skip, self.resample(x), balanced=True)
        )
