"""The magnitude-preserving U-Net of EDM2 (Karras et al. 2024), for pixels or latents.

No layer changes the expected magnitude of what passes through it: weights are used at unit length,
sums and concatenations are rebalanced, there are no biases and no group norms. Figure 21 of the
paper is the whole; the equation of each piece stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.networks.attended import Attended, heights_of
from fewstep.networks.base import NETWORKS, Network, checked_label_dropout
from fewstep.networks.dropout import dropout
from fewstep.networks.embeddings import END, check_label
from fewstep.networks.filling import filled, filled_shape, without_filling
from fewstep.networks.forward_mode import affine, attend
from fewstep.networks.layers import Direction, doubled

ATTENDED = Attended(range(5, 17), former=(16, 8))
EPS = 1e-4  # added to every magnitude
SILU = 0.596  # root mean square of silu of a standard normal variable (Eq. 81)
LARGEST = 256.0  # activations are clipped there, against overflow in half precision


def magnitude(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Root mean square over some dimensions, which stay with size 1, plus `EPS`."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide.square().mean(dim=list(dims), keepdim=True).sqrt() + EPS


def normalized(x: Tensor, dims: Sequence[int]) -> Tensor:
    """``x`` with magnitude 1 over some dimensions (Eqs. 30 and 50)."""
    return x / magnitude(x, dims).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """``silu(x) / 0.596`` (Eq. 81)."""
    return functional.silu(x) / SILU


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """``((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)`` (Eq. 88)."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of both, weighted so that each part counts ``1 - t`` and ``t`` (Eq. 103)."""
    n, m = a.shape[1], b.shape[1]
    scale = math.sqrt(n + m) / math.hypot(1 - t, t)
    return torch.cat([a * (scale * (1 - t) / math.sqrt(n)), b * (scale * t / math.sqrt(m))], dim=1)


class MPLayer(nn.Module):
    """A linear layer or a convolution without bias whose rows are used at unit length (Eq. 66).

    ``y = W x`` with ``W = w / |w| / sqrt(fan-in) * gain``, ``|w|`` the magnitude of each row.

    Args:
        inputs, outputs: channels.
        kernel: side of the convolution; 0 for a linear layer.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * (2 * bool(kernel))))

    @property
    def rows(self) -> list[int]:
        """The dimensions of a row of the weights."""
        return list(range(1, self.weight.ndim))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        wide = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        w = normalized(wide, self.rows) * (gain / math.sqrt(self.weight[0].numel()))
        w = w.to(x.dtype)
        if w.ndim == 2:
            return affine(x, w, None, functional.linear)
        return affine(x, w, None, partial(functional.conv2d, padding=w.shape[-1] // 2))

    @torch.no_grad()
    def force_unit(self) -> None:
        """Set the weights themselves to unit length, as EDM2 does before every training step.

        A loss of several passes does so before each. From the second on nothing but rounding
        changes, of which the gradient of the first need not know: hence ``data``.
        """
        self.weight.data.copy_(normalized(self.weight, self.rows))


class MPFourier(nn.Module):
    """``sqrt(2) cos(w c + phase)`` at ``n`` random frequencies (Eq. 75): [B] -> [B, n]."""

    w: Tensor
    phase: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("w", 2 * math.pi * torch.randn(n))
        self.register_buffer("phase", 2 * math.pi * torch.rand(n))

    def forward(self, c: Tensor) -> Tensor:
        wide = torch.promote_types(c.dtype, torch.float32)
        angle = c.to(wide)[:, None] * self.w.to(wide) + self.phase.to(wide)
        return angle.cos() * math.sqrt(2)


class MPBlock(nn.Module):
    """A residual block with optional resampling and self-attention (Figure 21).

    Args:
        inputs, outputs: channels.
        condition: width of the condition.
        encoder: whether it stands on the way down, where its input is normalised.
        direction: "up", "down" or None.
        heads: attention heads; 0 for no attention.
        p: probability of dropping an activation.
        balance: how much the residual branch, and the attention, count in their sums.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        *,
        encoder: bool,
        direction: Direction | None = None,
        heads: int = 0,
        p: float = 0.0,
        balance: float = 0.3,
    ) -> None:
        super().__init__()
        self.encoder, self.direction = encoder, direction
        self.heads, self.p, self.balance = heads, p, balance
        self.gain = nn.Parameter(torch.zeros([]))
        self.conv0 = MPLayer(outputs if encoder else inputs, outputs, 3)
        self.affine = MPLayer(condition, outputs)
        self.conv1 = MPLayer(outputs, outputs, 3)
        self.skip = MPLayer(inputs, outputs, 1) if inputs != outputs else None
        self.qkv = MPLayer(outputs, 3 * outputs, 1) if heads else None
        self.proj = MPLayer(outputs, outputs, 1) if heads else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        if self.direction is not None:
            x = doubled(x) if self.direction == "up" else functional.avg_pool2d(x, 2)
        if self.encoder:
            x = normalized(self._skipped(x), [1])
        c = self.affine(e, self.gain)[:, :, None, None] + 1
        h = mp_silu(self.conv0(mp_silu(x)) * c.to(x.dtype))
        h = self.conv1(dropout(h, self.p, self.training))
        x = mp_sum(x if self.encoder else self._skipped(x), h, self.balance)
        return self._attended(x).clamp(-LARGEST, LARGEST)

    def _skipped(self, x: Tensor) -> Tensor:
        return x if self.skip is None else self.skip(x)

    def _attended(self, x: Tensor) -> Tensor:
        if self.qkv is None or self.proj is None:
            return x
        B, C, H, W = x.shape
        qkv = self.qkv(x).view(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = normalized(qkv, [3]).transpose(3, 4).unbind(1)
        a = attend(q, k, v).transpose(2, 3).reshape(B, C, H, W)
        return mp_sum(x, self.proj(a), self.balance)


@NETWORKS.register("edm2")
class EDM2UNet(Network):
    """The magnitude-preserving U-Net of EDM2 (Karras et al. 2024, Figure 21).

    ``F = 0`` at initialisation, by a learned gain of 0. While it is trained its weights are set to
    unit length before every pass that wants a gradient (the paper's forced weight normalisation).

    Args:
        shape: shape ``(C, H, W)`` of an image.
        num_classes: number of classes; 0 for an unconditional network.
        channels: base number of channels.
        multipliers: channels of every level, in units of ``channels``.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: heights of the maps with self-attention after every block. Default those of 5 to
            16 pixels, which is EDM2's 16 and 8 for latents of 64. The middle always has it.
        head_channels: channels of an attention head.
        dropout: probability of dropping an activation inside a block in training.
        label_dropout: probability that training hides an example's class, so that the network
            learns to do without, for guidance.
        label_balance: how much the class counts beside the noise level, 0 to 1.
        concat_balance: how much the maps of the way down count on the way up, 0 to 1.
        two_time: also condition on the end time of the map.

    Raises:
        FewstepError: an argument is out of range or does not fit the image.
    """

    citation = "karras2024analyzing"

    added: ClassVar[dict[str, tuple[str, ...]]] = {END: ("gain_s", "embed_s.weight")}

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_classes: int = 0,
        channels: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] | None = None,
        head_channels: int = 64,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        two_time: bool = False,
    ) -> None:
        super().__init__()
        _check(shape, channels, multipliers, blocks, head_channels, dropout)
        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, two_time
        levels = len(multipliers)
        self._computed = filled_shape(shape, 2 ** (levels - 1), f"EDM2's U-Net of {levels} levels")
        heights = heights_of(shape[1], levels)
        self.attention = ATTENDED.among(attention, heights)
        self._arguments |= ATTENDED.named(heights) if attention is None else {}
        self.channels_last = False
        self.label_dropout = checked_label_dropout(label_dropout)
        self.label_balance, self.concat_balance = label_balance, concat_balance
        widths = [channels * m for m in multipliers]
        e, image = max(widths), shape[0]
        self.levels = len(widths)
        self.fourier = MPFourier(widths[0])
        self.embed = MPLayer(widths[0], e)
        self.embed_s = MPLayer(widths[0], e) if two_time else None
        self.gain_s = nn.Parameter(torch.zeros([])) if two_time else None
        self.embed_label = MPLayer(num_classes, e) if num_classes else None

        def block(inputs: int, width: int, level: int, **how: Any) -> MPBlock:
            attends = how.pop("attention", heights[level] in self.attention)
            heads = width // head_channels if attends else 0
            return MPBlock(inputs, width, e, heads=heads, p=dropout, **how)

        self.read = MPLayer(image + 1, widths[0], 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level, target in enumerate(widths):
            if level:
                self.down.append(
                    block(width, width, level, encoder=True, direction="down", attention=False)
                )
                skips.append(width)
            for _ in range(blocks):
                self.down.append(block(width, target, level, encoder=True))
                width = target
                skips.append(width)
        last = len(widths) - 1
        self.middle = nn.ModuleList(
            block(width, width, last, encoder=False, attention=attends) for attends in (True, False)
        )
        for level in reversed(range(len(widths))):
            if level < last:
                self.up.append(
                    block(width, width, level, encoder=False, direction="up", attention=False)
                )
            for _ in range(blocks + 1):
                self.up.append(block(width + skips.pop(), widths[level], level, encoder=False))
                width = widths[level]
        self.write = MPLayer(width, image, 3)
        self.gain = nn.Parameter(torch.zeros([]))

    @classmethod
    def stored(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        levels = len(arguments.get("multipliers", (1, 2, 3, 4)))
        return ATTENDED.stored(arguments, heights_of(arguments["shape"][1], levels))

    def condition(self, c_noise: Tensor, label: Tensor | None, c_noise_s: Tensor | None) -> Tensor:
        """Noise level, class and end time as one vector per example [B, width]."""
        dtype = self.read.weight.dtype
        e = self.embed(self.fourier(c_noise).to(dtype))
        if self.embed_s is not None and self.gain_s is not None:
            if c_noise_s is None:
                raise FewstepError("this network has two_time=True and needs c_noise_s.")
            e = e + self.embed_s(self.fourier(c_noise_s).to(dtype), self.gain_s)
        if self.embed_label is not None:
            rows = self._rows(label, c_noise).to(dtype)
            e = mp_sum(e, self.embed_label(rows), self.label_balance)
        elif label is not None:
            raise FewstepError("a label was given to an unconditional network.")
        return mp_silu(e)

    def _rows(self, label: Tensor | None, c_noise: Tensor) -> Tensor:
        """[B, num_classes]: rows of magnitude 1, or zero for the null class."""
        n = self.num_classes
        if label is None:
            return c_noise.new_zeros(c_noise.shape[0], n)
        check_label(label, c_noise, n)
        return functional.one_hot(label, n + 1)[:, :n] * math.sqrt(n)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        """``F(x, c_noise)``: [B, C, H, W] -> [B, C, H, W]; see `UNet.forward`."""
        if x.shape[1:] != self.shape:
            raise FewstepError(f"this U-Net takes images {self.shape}; got {tuple(x.shape[1:])}.")
        if self.training and torch.is_grad_enabled():
            self._force_unit()
        e = self.condition(c_noise, label, c_noise_s)
        x = filled(x, self.computed)
        h = self.read(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        maps = [h]
        for layer in cast("list[MPBlock]", self.down):
            h = layer(h, e)
            maps.append(h)
        for layer in cast("list[MPBlock]", self.middle):
            h = layer(h, e)
        for layer in cast("list[MPBlock]", self.up):
            if layer.direction is None:
                h = mp_cat(h, maps.pop(), self.concat_balance)
            h = layer(h, e)
        return without_filling(self.write(h, self.gain), self.shape)

    def _force_unit(self) -> None:
        for module in self.modules():
            if isinstance(module, MPLayer):
                module.force_unit()


SIZES: dict[str, dict[str, Any]] = {
    name: {"channels": channels}
    for name, channels in {"xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}.items()
}
"""Of the published models: ``EDM2UNet((4, 64, 64), num_classes=1000, **SIZES["s"])``."""


def _check(
    shape: Sequence[int],
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    head_channels: int,
    p: float,
) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise FewstepError(f"EDM2's U-Net takes images (C, H, W); got {tuple(shape)}.")
    if channels < 1 or not multipliers or min(*multipliers, blocks) < 1:
        raise FewstepError(
            "EDM2's U-Net needs channels, multipliers and blocks of 1 or more; got "
            f"{channels}, {tuple(multipliers)} and {blocks}."
        )
    if head_channels < 1 or any(channels * m % head_channels for m in multipliers):
        raise FewstepError(
            f"head_channels={head_channels} does not divide the channels "
            f"{[channels * m for m in multipliers]} of EDM2's U-Net."
        )
    if not 0 <= p < 1:
        raise FewstepError(f"dropout of EDM2's U-Net must lie in [0, 1); got {p}.")
