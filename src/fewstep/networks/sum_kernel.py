"""A sum of two channels_last maps and a bias on a GPU, times a number: one kernel each way.

``y = (a + b + bias) gain``. Left to itself, torch adds the bias of every convolution in a pass of
its own over the map, sums and scales in two more, and reads the gradient again for each bias.
Sums over pixels are in float32, in an order that depends on the shape alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

TILE = 4096  # numbers of a map that a program has in hand
TURNS = 16  # tiles of a program, at most
PROGRAMS = 1024  # of which no fewer are made for the sake of more turns


@triton.jit
def _forward_kernel(
    a, b, bias, y, gain, rows, C, CB: tl.constexpr, RB: tl.constexpr, biased: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * RB + tl.arange(0, RB)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    here = (row < rows)[:, None] & (channel < C)[None, :]
    place = row[:, None] * C + channel[None, :]
    total = tl.load(a + place, mask=here, other=0.0).to(tl.float32)
    total += tl.load(b + place, mask=here, other=0.0).to(tl.float32)
    if biased:
        total += tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    tl.store(y + place, (total * gain).to(y.dtype.element_ty), mask=here)


@triton.jit
def _backward_kernel(
    dy, da, sums, gain, rows, C, CB: tl.constexpr, RB: tl.constexpr, turns: tl.constexpr
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    total = tl.zeros([RB, CB], tl.float32)
    for turn in range(turns):
        row = (program * turns + turn) * RB + tl.arange(0, RB)
        here = (row < rows)[:, None] & (channel < C)[None, :]
        place = row[:, None] * C + channel[None, :]
        g = tl.load(dy + place, mask=here, other=0.0).to(tl.float32) * gain
        total += g
        tl.store(da + place, g.to(da.dtype.element_ty), mask=here)
    tl.store(sums + program * C + channel, tl.sum(total, axis=0), mask=channel < C)


def _tile(rows: int, C: int) -> dict[str, int]:
    """Channels and rows, which are pixels, of a tile."""
    CB = min(256, 1 << (C - 1).bit_length())
    return {"CB": CB, "RB": min(TILE // CB, 1 << (rows - 1).bit_length())}


class Sum(Function):
    """``(a + b + bias) gain``.

    Takes, in this order:
        a: maps [N, C, H, W], channels last.
        b: like `a`.
        bias: [C], or None.
        gain: a number.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, bias: Tensor | None, gain: float) -> Tensor:
        a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
        y, C = torch.empty_like(a), a.shape[1]
        rows = a.numel() // C
        tile = _tile(rows, C)
        grid = (-(-rows // tile["RB"]), -(-C // tile["CB"]))
        with torch.cuda.device_of(a):
            _forward_kernel[grid](a, b, bias, y, gain, rows, C, **tile, biased=bias is not None)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, bias, ctx.gain = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy = gradients[0]
        # Without a bias, and where somebody wants a derivative of this one.
        if ctx.bias_dtype is None or torch.is_grad_enabled():
            da = dy * ctx.gain
            dbias = da.sum((0, 2, 3), dtype=torch.float32) if ctx.bias_dtype else None
        else:
            da, dbias = _backward(dy.contiguous(memory_format=torch.channels_last), ctx.gain)
        return da, da, None if dbias is None else dbias.to(ctx.bias_dtype), None


def _backward(dy: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    C = dy.shape[1]
    rows = dy.numel() // C
    tile = _tile(rows, C)
    tiles = -(-rows // tile["RB"])
    turns = max(1, min(TURNS, tiles // PROGRAMS))
    grid = (-(-tiles // turns), -(-C // tile["CB"]))
    da, sums = torch.empty_like(dy), dy.new_empty((grid[0], C), dtype=torch.float32)
    with torch.cuda.device_of(dy):
        _backward_kernel[grid](dy, da, sums, gain, rows, C, **tile, turns=turns)
    return da, sums.sum(0)
