"""Group norm of channels_last maps on a GPU with what stands around it: one kernel each way.

``y = dropout(silu(norm(x + shift) weight + bias))``, the shift one number for each image and
channel; shift, activation and dropout are optional. A program of the kernel works on all pixels of
an image and on some whole groups. Where these are few enough it has them all in hand, and each
number is read once. Of larger images it reads them twice, for the sums and then for the values, the
second time from the cache. Nothing but ``x``, the means and the deviations is kept for the backward
pass, which computes the rest again, the dropout's mask from its seed. Sums are in float32, about
the first pixel of each channel so that they do not cancel, and in an order that depends on the
shape alone: the bits are the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

WIDTH = 128  # channels of a program: 256 bytes of each pixel in half precision
TILE = 4096  # numbers of a map that a program has in hand at a time
HELD = 16384  # numbers of an image that a program can keep; 0 to keep none
SHARE = 8192  # of those it takes no more than these where its channels are not too few:
NARROW = 16  # 32 bytes, the least that memory moves

Settings = tuple[int, bool, float]  # groups, activated, p
Results = tuple[Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


@triton.jit
def _channels(group, C, D: tl.constexpr, DB: tl.constexpr, GB: tl.constexpr):
    """The program's channels, and which of its places have one."""
    place = tl.arange(0, GB * DB)
    if D == DB:
        channel = group * D + place
        real = channel < C
    else:
        channel = (group + place // DB) * D + place % DB
        real = (channel < C) & (place % DB < D)
    return channel, real


@triton.jit
def _of_group(values, D: tl.constexpr, DB: tl.constexpr, GB: tl.constexpr):
    """Each place's mean over its group; places without a channel hold zeros."""
    mean = tl.sum(tl.reshape(values, [GB, DB]), axis=1) / D
    return tl.reshape(tl.broadcast_to(mean[:, None], [GB, DB]), [GB * DB])


@triton.jit
def _per_channel(pointer, index, real, present: tl.constexpr):
    if present:
        return tl.load(pointer + index, mask=real, other=0.0).to(tl.float32)
    else:
        return tl.zeros(index.shape, tl.float32)


@triton.jit
def _mixed(h):
    """A permutation of 32-bit numbers in which every bit depends on every other (C. Wellons)."""
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def _kept(seed, index, threshold, gain):
    """``gain`` where a number of 24 bits, a function of seed and index, reaches the threshold."""
    key = tl.load(seed)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    number = (_mixed(_mixed(index.to(tl.uint32) ^ low) + high) >> 8).to(tl.int32)
    return tl.where(number >= threshold, gain, 0.0)


@triton.jit
def _forward_kernel(
    x, shift, weight, bias, seed, y, means, rstds, threshold, gain, C, groups, eps,
    P: tl.constexpr, D: tl.constexpr, DB: tl.constexpr, GB: tl.constexpr, PB: tl.constexpr,
    shifted: tl.constexpr, each: tl.constexpr, activated: tl.constexpr, dropped: tl.constexpr,
):  # fmt: skip
    n, group = tl.program_id(1).to(tl.int64), tl.program_id(0) * GB
    channel, real = _channels(group, C, D, DB, GB)
    pixel = tl.arange(0, PB)
    x += n * P * C + channel[None, :]
    y += n * P * C + channel[None, :]
    first = tl.load(x, mask=real[None, :], other=0.0).to(tl.float32)
    if PB >= P:
        here = (pixel < P)[:, None] & real[None, :]
        held = tl.load(x + pixel[:, None] * C, mask=here, other=0.0).to(tl.float32)
        total = tl.where(here, held - first, 0.0)
        squares = total * total
    else:
        total = tl.zeros([PB, GB * DB], tl.float32)
        squares = tl.zeros([PB, GB * DB], tl.float32)
        for start in range(0, P, PB):
            at = start + pixel
            here = (at < P)[:, None] & real[None, :]
            value = tl.load(x + at[:, None] * C, mask=here, other=0.0).to(tl.float32)
            value = tl.where(here, value - first, 0.0)
            total += value
            squares += value * value
    own = tl.sum(total, axis=0) / P  # about the first pixel
    spread = tl.sum(squares, axis=0) / P - own * own
    added = _per_channel(shift, n * C + channel, real, shifted)
    own += tl.sum(first, axis=0) + added
    mean = _of_group(own, D, DB, GB)
    spread += tl.where(real, (own - mean) * (own - mean), 0.0)
    rstd = tl.rsqrt(_of_group(spread, D, DB, GB) + eps)
    row = n * C * each
    scale = rstd * _per_channel(weight, row + channel, real, True)
    offset = _per_channel(bias, row + channel, real, True) + (added - mean) * scale
    which = channel // D
    head = real & (channel % D == 0)
    tl.store(means + n * groups + which, mean, mask=head)
    tl.store(rstds + n * groups + which, rstd, mask=head)
    for start in range(0, P, PB):
        at = start + pixel
        here = (at < P)[:, None] & real[None, :]
        if PB >= P:
            value = held
        else:
            value = tl.load(x + at[:, None] * C, mask=here, other=0.0).to(tl.float32)
        value = value * scale[None, :] + offset[None, :]
        if activated:
            value = value * tl.sigmoid(value)
        if dropped:
            index = (n * P + at)[:, None] * C + channel[None, :]
            value = value * _kept(seed, index, threshold, gain)
        tl.store(y + at[:, None] * C, value.to(y.dtype.element_ty), mask=here)


@triton.jit
def _slope(value, gradient, activated: tl.constexpr):
    """The gradient before the activation."""
    if activated:
        s = tl.sigmoid(value)
        gradient = gradient * s * (1 + value * (1 - s))
    return gradient


@triton.jit
def _normal_and_gradient(
    x, dy, n, at, channel, C, real, w, b, rstd, centre, seed, threshold, gain,
    P: tl.constexpr, activated: tl.constexpr, dropped: tl.constexpr,
):  # fmt: skip
    """Of some pixels the normal values, and the gradient before activation and dropout."""
    here = (at < P)[:, None] & real[None, :]
    place = n * P * C + channel[None, :] + at[:, None] * C
    normal = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    normal = normal * rstd[None, :] + centre[None, :]
    g = tl.load(dy + place, mask=here, other=0.0).to(tl.float32)
    if dropped:
        g = g * _kept(seed, place, threshold, gain)
    return normal, _slope(normal * w[None, :] + b[None, :], g, activated)


@triton.jit
def _backward_kernel(
    x, shift, weight, bias, seed, means, rstds, dy, dx, dshift, dweight, dbias, threshold, gain,
    C, groups,
    P: tl.constexpr, D: tl.constexpr, DB: tl.constexpr, GB: tl.constexpr, PB: tl.constexpr,
    shifted: tl.constexpr, each: tl.constexpr, activated: tl.constexpr, dropped: tl.constexpr,
):  # fmt: skip
    n, group = tl.program_id(1).to(tl.int64), tl.program_id(0) * GB
    channel, real = _channels(group, C, D, DB, GB)
    pixel = tl.arange(0, PB)
    base = n * P * C + channel[None, :]
    row = n * C * each
    w = _per_channel(weight, row + channel, real, True)
    b = _per_channel(bias, row + channel, real, True)
    mean = tl.load(means + n * groups + channel // D, mask=real, other=0.0)
    rstd = tl.load(rstds + n * groups + channel // D, mask=real, other=0.0)
    centre = (_per_channel(shift, n * C + channel, real, shifted) - mean) * rstd
    if PB >= P:
        normal, g = _normal_and_gradient(
            x, dy, n, pixel, channel, C, real, w, b, rstd, centre, seed, threshold, gain,
            P, activated, dropped,
        )  # fmt: skip
        level, along = g, g * normal
        normals = tl.where((pixel < P)[:, None] & real[None, :], normal, 0.0)
    else:
        level = tl.zeros([PB, GB * DB], tl.float32)
        along = tl.zeros([PB, GB * DB], tl.float32)
        normals = tl.zeros([PB, GB * DB], tl.float32)
        for start in range(0, P, PB):
            at = start + pixel
            normal, g = _normal_and_gradient(
                x, dy, n, at, channel, C, real, w, b, rstd, centre, seed, threshold, gain,
                P, activated, dropped,
            )  # fmt: skip
            level += g
            along += g * normal
            if shifted:
                normals += tl.where((at < P)[:, None] & real[None, :], normal, 0.0)
    level_c = tl.sum(level, axis=0)
    along_c = tl.sum(along, axis=0)
    tl.store(dbias + n * C + channel, level_c, mask=real)
    tl.store(dweight + n * C + channel, along_c, mask=real)
    level_g = _of_group(w * level_c, D, DB, GB) / P
    along_g = _of_group(w * along_c, D, DB, GB) / P
    if shifted:
        moved = w * level_c - P * level_g - along_g * tl.sum(normals, axis=0)
        tl.store(dshift + n * C + channel, rstd * moved, mask=real)
    for start in range(0, P, PB):
        at = start + pixel
        if PB < P:
            normal, g = _normal_and_gradient(
                x, dy, n, at, channel, C, real, w, b, rstd, centre, seed, threshold, gain,
                P, activated, dropped,
            )  # fmt: skip
        g = rstd[None, :] * (w[None, :] * g - level_g[None, :] - normal * along_g[None, :])
        here = (at < P)[:, None] & real[None, :]
        tl.store(dx + base + at[:, None] * C, g.to(dx.dtype.element_ty), mask=here)


def _power(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << (n - 1).bit_length()


def _tile(P: int, D: int, groups: int) -> dict[str, int]:
    """The program's places: for channels of a group, groups, pixels; and its warps."""
    DB, whole = _power(D), _power(P)
    held = max(DB, NARROW) * whole <= HELD
    width = max(NARROW, min(WIDTH // 2, SHARE // whole)) if held else WIDTH
    GB = max(1, min(width // DB, _power(groups)))
    PB = whole if held else max(1, min(TILE // (GB * DB), whole))
    warps = max(1, min(16 if held else 8, PB * GB * DB // (1024 if held else 512)))
    return {"DB": DB, "GB": GB, "PB": PB, "num_warps": warps}


def _launch(kernel: Any, x: Tensor, words: Sequence[Any], settings: Settings, *last: Any) -> None:
    """Run a kernel over all images and groups; the tiles depend on the shape alone."""
    (groups, activated, p), (shift, weight) = settings, words[:2]
    kinds = {"shifted": shift is not None, "each": weight.ndim == 2}
    kinds |= {"activated": activated, "dropped": p > 0}
    drop = (round(p * 2**24), 1 / (1 - p))
    N, C, H, W = x.shape
    D = C // groups
    sizes = {"P": H * W, "D": D, **_tile(H * W, D, groups)}
    # those of one image together: they share its lines of memory
    grid = (-(-groups // sizes["GB"]), N)
    with torch.cuda.device_of(x):
        kernel[grid](x, *words, *drop, C, groups, *last, **sizes, **kinds)


def _forward(
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    groups: int,
    activated: bool,
    p: float,
    eps: float,
) -> Results:
    x, rows = _laid_out(x), _dense(shift, weight, bias)
    found = _results(x, shift, weight, bias, seed, groups)
    _launch(_forward_kernel, x, (*rows, seed, *found), (groups, activated, p), eps)
    return found


def _results(
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    groups: int,
    *_: Any,
) -> Results:
    means, rstds = (x.new_empty((x.shape[0], groups), dtype=torch.float32) for _ in range(2))
    return torch.empty_like(x), means, rstds


def _backward(
    dy: Tensor,
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    means: Tensor,
    rstds: Tensor,
    groups: int,
    activated: bool,
    p: float,
) -> Gradients:
    dy, x, rows = _laid_out(dy), _laid_out(x), _dense(shift, weight, bias)
    found = _gradients(dy, x, shift)
    words = (*rows, seed, means, rstds, dy, *found)
    _launch(_backward_kernel, x, words, (groups, activated, p))
    return found


def _gradients(dy: Tensor, x: Tensor, shift: Tensor | None, *_: Any) -> Gradients:
    dweight, dbias = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    dshift = x.new_empty(x.shape[:2] if shift is not None else (0,), dtype=torch.float32)
    return torch.empty_like(x), dshift, dweight, dbias


def _laid_out(x: Tensor) -> Tensor:
    """The map as the kernels walk it; nothing to do unless a compiler chose otherwise."""
    return x.contiguous(memory_format=torch.channels_last)


def _dense(*rows: Tensor | None) -> list[Tensor | None]:
    return [None if row is None else row.contiguous() for row in rows]


# As operations, which a compiler takes as they are.
_forward_op = torch.library.custom_op(
    "fewstep::norm",
    _forward,
    mutates_args=(),
    schema="(Tensor x, Tensor? shift, Tensor weight, Tensor bias, Tensor? seed, int groups, "
    "bool activated, float p, float eps) -> (Tensor, Tensor, Tensor)",
)
_forward_op.register_fake(_results)
_backward_op = torch.library.custom_op(
    "fewstep::norm_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor? shift, Tensor weight, Tensor bias, Tensor? seed, "
    "Tensor means, Tensor rstds, int groups, bool activated, float p) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
_backward_op.register_fake(_gradients)


class Norm(Function):
    """``dropout(silu(norm(x + shift) weight + bias))``, means and 1 / deviations [N, groups].

    Takes, in this order:
        x: maps [N, C, H, W], channels last.
        shift: what is added first [N, C], contiguous, or None.
        weight: [C], or one for each image [N, C], contiguous.
        bias: like `weight`.
        seed: of the dropout, one int64; None without.
        groups: of channels that are normalised together.
        activated: whether silu follows.
        p: probability of zeroing an element.
        eps: added to the variances.
    """

    @staticmethod
    def forward(
        x: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        seed: Tensor | None,
        groups: int,
        activated: bool,
        p: float,
        eps: float,
    ) -> Results:
        forward = _forward_op if torch.compiler.is_compiling() else _forward
        return forward(x, shift, weight, bias, seed, groups, activated, p, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
        x, shift, weight, bias, seed, *ctx.settings, _ = inputs
        _, means, rstds = output
        ctx.mark_non_differentiable(means, rstds)
        ctx.save_for_backward(x, shift, weight, bias, seed, means, rstds)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, weight, bias, seed, means, rstds = ctx.saved_tensors
        backward = _backward_op if torch.compiler.is_compiling() else _backward
        dx, dshift, dweight, dbias = backward(
            gradients[0], x, shift, weight, bias, seed, means, rstds, *ctx.settings
        )
        if weight.ndim == 1:
            dweight, dbias = dweight.sum(0), dbias.sum(0)
        moved = dshift.to(shift.dtype) if shift is not None else None
        rest = (None,) * 5
        return dx, moved, dweight.to(weight.dtype), dbias.to(bias.dtype), *rest
