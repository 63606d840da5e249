"""Convolutions of channels_last maps in half precision, whose weights' gradient comes in parts.

For more than 256 input channels cuDNN chooses a kernel for the gradient of the weights that reaches
290 TFLOP/s on an H100, for 256 one that reaches 640. The maps that a decoder reads are such: those
of the encoder and its own, side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from fewstep.precision import HALF

WIDEST = 256  # input channels of which the gradient is found at once


def without_bias(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution of maps on a GPU, to which the caller adds the bias."""
    wide = conv.in_channels > WIDEST and conv.kernel_size != (1, 1) and conv.stride == (1, 1)
    if wide and x.dtype in HALF:
        return WideConv.apply(x, conv.weight.to(x.dtype), conv.padding)
    return functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)


class WideConv(Function):
    """``conv2d`` with stride 1; the gradient of its weights for `WIDEST` input channels at a time.

    Takes, in this order:
        x: maps [N, I, H, W], channels last.
        w: [O, I, h, w], of the same type.
        padding: zeros around the map, ``(top and bottom, left and right)``.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor, padding: tuple[int, int]) -> Tensor:
        return functional.conv2d(x, w, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, ctx.padding = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, w), dy = ctx.saved_tensors, gradients[0]
        sizes = ((1, 1), ctx.padding, (1, 1), False, (0, 0), 1)

        def backward(x: Tensor, w: Tensor, *wanted: bool) -> tuple[Tensor, ...]:
            return torch.ops.aten.convolution_backward(dy, x, w, None, *sizes, wanted)

        dx = backward(x, w, True, False, False)[0]
        parts = [
            backward(a.contiguous(memory_format=torch.channels_last), b, False, True, False)[1]
            for a, b in zip(x.split(WIDEST, 1), w.split(WIDEST, 1), strict=True)
        ]
        return dx, torch.cat(parts, 1), None
