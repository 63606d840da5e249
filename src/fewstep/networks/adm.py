"""The U-Net of ADM (Dhariwal & Nichol 2021), for images of 64 pixels and up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.networks.attended import Attended, heights_of
from fewstep.networks.base import NETWORKS, Network, checked_label_dropout
from fewstep.networks.embeddings import (
    AUGMENTATION,
    END,
    GUIDANCE,
    INTERVAL,
    ClassEmbedding,
    augmented,
    check_label,
    description_embedding,
    guidance_embeddings,
    with_description,
    with_guidance,
)
from fewstep.networks.filling import filled, filled_shape, without_filling
from fewstep.networks.forward_mode import Conv2d, Linear
from fewstep.networks.layers import (
    Attention,
    Direction,
    branches_sum,
    conv_and_shift,
    doubled,
)
from fewstep.networks.norm import film_of, group_norm
from fewstep.papers import Also

EPS = 1e-5  # of every group norm
ATTENDED = Attended(range(5, 33), former=(32, 16, 8))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return Conv2d(inputs, outputs, 3, padding=1)


def _resample(x: Tensor, direction: Direction | None) -> Tensor:
    if direction == "up":
        return doubled(x)
    return x if direction is None else functional.avg_pool2d(x, 2)


class Block(nn.Module):
    """``skip(x) + conv1(drop(silu(norm1(conv0(silu(norm0(x)))) (1 + scale(e)) + shift(e))))``.

    With ``double_norm``, scale and shift are at unit length, see `fewstep.networks.norm.film_of`.
    Without ``scale_shift``, ``norm1(conv0(...) + shift(e))`` stands in the middle. With a
    direction, ``x`` and ``silu(norm0(x))`` are resampled first.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        p: float,
        direction: Direction | None = None,
        *,
        scale_shift: bool = True,
        double_norm: bool = False,
    ) -> None:
        super().__init__()
        self.double_norm = double_norm
        self.p, self.direction, self.scale_shift = p, direction, scale_shift
        self.norm0 = group_norm(inputs, EPS)
        self.conv0 = _conv(inputs, outputs)
        self.affine = Linear(condition, 2 * outputs if scale_shift else outputs)
        self.norm1 = group_norm(outputs, EPS)
        self.conv1 = _zero(_conv(outputs, outputs))
        self.skip = nn.Identity() if inputs == outputs else Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h, e = _resample(self.norm0.silu(x), self.direction), self.affine(e)
        if self.scale_shift:
            film = film_of(e, double_norm=self.double_norm)
            h = self.norm1.silu(self.conv0(h), film=film, p=self.p)
        else:
            h = self.norm1.silu(*conv_and_shift(self.conv0, h, e), p=self.p)
        x = _resample(x, self.direction)
        return branches_sum(self.conv1, h, self.skip, x, balanced=False)


class Level(nn.ModuleList):
    """A residual block and, where the map is small enough, self-attention: one step of the path."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, e) if isinstance(layer, Block) else layer(x)
        return x


@NETWORKS.register("adm")
class ADM(Network):
    """The U-Net of ADM with up/down residual blocks (Dhariwal & Nichol 2021).

    `IMAGENET64` and `LSUN256` are its settings in Song et al. 2023 and its code: 295.9 and 526.3
    million parameters. The time enters as ``1000 c_noise`` in a sinusoidal embedding, as
    there. ``F = 0`` at initialisation.

    Args:
        shape: shape ``(C, H, W)`` of an image.
        num_classes: number of classes; 0 for an unconditional network.
        channels: base number of channels.
        multipliers: channels of every level, in units of ``channels``; ADM's for 512 pixels begin
            with a half.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: heights of the maps with self-attention after every block. Default those of 5 to
            32 pixels, which is ADM's 32, 16 and 8 for images of 64 or 256. The middle always has
            it.
        head_channels: channels of an attention head.
        heads: attention heads of every width, instead of ``head_channels``.
        dropout: probability of dropping an activation inside a block in training.
        scale_shift: the condition scales and shifts the second norm, instead of being added before.
        double_norm: bring that scale and shift to unit length, each over its channels: the adaptive
            double normalisation of sCM (Lu & Song 2024).
        label_dropout: probability that training hides an example's class, so that the network
            learns to do without, for guidance.
        time_scale: of ``c_noise`` in the embedding; 1 in EDM, and where ``c_noise`` is the index of
            a step.
        augment: numbers that say how an image was augmented (EDM's Appendix F.2); 0 for none.
        two_time: also condition on the end time of the map.
        guidance_embedding: also take a guidance weight, for a student of guided teachers.
        interval_embedding: also take the interval of noise levels at which the weight guides.
        scaled_by_weight: multiply the output by the weight, as a guided velocity grows with it.
        embeds: numbers of an embedding, such as a text's, to be conditioned on; 0 for none.
        embeds_scale: root mean square of these numbers.

    Raises:
        FewstepError: an argument is out of range or does not fit the image.
    """

    citation = "dhariwal2021diffusion"
    also_cites = (
        *Network.also_cites,
        Also("double_norm", "lu2024simplifying"),
        Also("augment", "karras2020training"),
    )

    takes = ("label", "w", "interval", "augment")
    added: ClassVar[dict[str, tuple[str, ...]]] = {
        END: ("embed_s.weight",),
        GUIDANCE: ("embed_w.map.weight",),
        INTERVAL: ("embed_interval.map.weight",),
        AUGMENTATION: ("embed_augment.weight",),
    }

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_classes: int = 0,
        channels: int = 192,
        multipliers: Sequence[float] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] | None = None,
        head_channels: int = 64,
        heads: int | None = None,
        dropout: float = 0.0,
        scale_shift: bool = True,
        double_norm: bool = False,
        label_dropout: float = 0.0,
        time_scale: float = 1000.0,
        augment: int = 0,
        embeds: int = 0,
        embeds_scale: float = 1.0,
        two_time: bool = False,
        guidance_embedding: bool = False,
        interval_embedding: bool = False,
        scaled_by_weight: bool = False,
    ) -> None:
        super().__init__()
        _check(shape, channels, multipliers, blocks, head_channels, heads, dropout)
        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, two_time
        levels = len(multipliers)
        self._computed = filled_shape(shape, 2 ** (levels - 1), f"the ADM U-Net of {levels} levels")
        heights = heights_of(shape[1], levels)
        self.attention = ATTENDED.among(attention, heights)
        self._arguments |= ATTENDED.named(heights) if attention is None else {}
        if double_norm and not scale_shift:
            raise FewstepError(
                "double_norm of the ADM U-Net is of scale and shift: scale_shift=True."
            )
        self._take_guidance(guidance_embedding, interval_embedding, scaled_by_weight)
        self.label_dropout = checked_label_dropout(label_dropout)
        # Of one channel, the first convolution takes the layout of its weights.
        self.channels_last = shape[0] > 1
        self.channels, e = channels, 4 * channels
        self.levels, self.time_scale, self.augment = len(multipliers), time_scale, augment
        self.heads, self.head_channels = heads, head_channels
        self.embed = nn.Sequential(Linear(channels, e), nn.SiLU(), Linear(e, e))
        self.embed_s = Linear(channels, e, bias=False) if two_time else None
        self.embed_label = ClassEmbedding(num_classes, e) if num_classes else None
        self.embed_w, self.embed_interval = guidance_embeddings(
            e, guidance_embedding, interval_embedding
        )
        self.embed_augment = Linear(augment, channels, bias=False) if augment else None
        for layer in (self.embed_s, self.embed_augment):
            if layer is not None:
                nn.init.zeros_(layer.weight)
        self._take_embedding(embeds, embeds_scale)
        self.embed_embedding = description_embedding(embeds, e, embeds_scale)
        widths = [round(channels * multiplier) for multiplier in multipliers]

        def block(inputs: int, width: int, direction: Direction | None = None) -> Block:
            how: dict[str, Any] = {"scale_shift": scale_shift, "double_norm": double_norm}
            return Block(inputs, width, e, dropout, direction, **how)

        def step(inputs: int, width: int, level: int) -> Level:
            layers: list[nn.Module] = [block(inputs, width)]
            if heights[level] in self.attention:
                layers.append(_attention(width, self.heads_of(width)))
            return Level(layers)

        self.read = _conv(shape[0], widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level, target in enumerate(widths):
            if level:
                self.down.append(Level([block(width, width, "down")]))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(step(width, target, level))
                width = target
                skips.append(width)
        attended = _attention(width, self.heads_of(width))
        self.middle = Level([block(width, width), attended, block(width, width)])
        for level in reversed(range(len(multipliers))):
            for i in range(blocks + 1):
                inputs, width = width + skips.pop(), widths[level]
                layers = step(inputs, width, level)
                if level and i == blocks:
                    layers.append(block(width, width, "up"))
                self.up.append(layers)
        self.norm = group_norm(width, EPS)
        self.write = _zero(_conv(width, shape[0]))

    @classmethod
    def stored(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        levels = len(arguments.get("multipliers", (1, 2, 3, 4)))
        return ATTENDED.stored(arguments, heights_of(arguments["shape"][1], levels))

    def heads_of(self, width: int) -> int:
        """Attention heads of maps with so many channels.

        Raises:
            FewstepError: they do not divide the channels.
        """
        one = self.head_channels if self.heads is None else self.heads
        if width % one:
            name = "head_channels" if self.heads is None else "heads"
            raise FewstepError(f"{name}={one} does not divide {width} channels.")
        return width // one if self.heads is None else one

    def condition(
        self,
        c_noise: Tensor,
        label: Tensor | None,
        c_noise_s: Tensor | None,
        w: Tensor | None = None,
        augment: Tensor | None = None,
        embedding: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        """Everything that it is conditioned on as one vector per example [B, 4 channels]."""
        e = self._sinusoids(c_noise)
        if augment is not None:
            e = e + augmented(augment, self.embed_augment)
        e = self.embed(e)
        if self.embed_s is not None:
            if c_noise_s is None:
                raise FewstepError("this network has two_time=True and needs c_noise_s.")
            e = e + self.embed_s(self._sinusoids(c_noise_s))
        if label is not None:
            if self.embed_label is None:
                raise FewstepError("a label was given to an unconditional network.")
            check_label(label, c_noise, self.num_classes)
            e = e + self.embed_label(label)
        e = with_description(e, self.embed_embedding, embedding)
        e = with_guidance(e, self.embed_w, w, self.embed_interval, interval)
        return functional.silu(e)

    def _sinusoids(self, c_noise: Tensor) -> Tensor:
        half = self.channels // 2
        c_noise = c_noise.to(torch.promote_types(c_noise.dtype, torch.float32))
        k = torch.arange(half, device=c_noise.device, dtype=c_noise.dtype)
        angle = self.time_scale * c_noise[:, None] * torch.exp(-math.log(10_000) * k / half)
        return torch.cat([angle.cos(), angle.sin()], dim=1).to(self.read.weight.dtype)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
        w: Tensor | None = None,
        augment: Tensor | None = None,
        embedding: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        """``F(x, c_noise)``: [B, C, H, W] -> [B, C, H, W], contiguous; see `UNet.forward`."""
        if x.shape[1:] != self.shape:
            raise FewstepError(f"this U-Net takes images {self.shape}; got {tuple(x.shape[1:])}.")
        e = self.condition(c_noise, label, c_noise_s, w, augment, embedding, interval)
        h = self.read(filled(x, self.computed).contiguous(memory_format=torch.channels_last))
        maps = [h]
        for layer in cast("list[Level]", self.down):
            h = layer(h, e)
            maps.append(h)
        h = self.middle(h, e)
        for layer in cast("list[Level]", self.up):
            h = layer(torch.cat([h, maps.pop()], dim=1), e)
        return without_filling(self.write(self.norm.silu(h)), self.shape).contiguous()


IMAGENET64: dict[str, Any] = {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3}
"""For class-conditional ImageNet 64x64: ``ADM((3, 64, 64), num_classes=1000, **IMAGENET64)``."""

LSUN256: dict[str, Any] = {
    "channels": 256,
    "multipliers": (1, 1, 2, 2, 4, 4),
    "blocks": 2,
    "scale_shift": False,
}
"""For LSUN 256x256, as Song et al. 2023 trained; ADM's own LSUN models have scale-shift norms."""


def _attention(width: int, heads: int) -> Attention:
    return Attention(width, heads, balanced=False, eps=EPS)


def _check(
    shape: Sequence[int],
    channels: int,
    multipliers: Sequence[float],
    blocks: int,
    head_channels: int,
    heads: int | None,
    p: float,
) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise FewstepError(f"the ADM U-Net takes images (C, H, W); got {tuple(shape)}.")
    widths = [channels * multiplier for multiplier in multipliers]
    if channels < 4 or channels % 4 or blocks < 1 or any(w < 4 or w % 4 for w in widths or [0]):
        raise FewstepError(
            "the ADM U-Net needs at least one multiplier, blocks of 1 or more, and channels that 4 "
            f"divides at every level; got {channels}, {tuple(multipliers)} and {blocks}."
        )
    if head_channels < 1 or (heads is not None and heads < 1) or not 0 <= p < 1:
        raise FewstepError(
            "the ADM U-Net needs head_channels and heads of 1 or more and dropout in [0, 1); got "
            f"{head_channels}, {heads} and {p}."
        )
