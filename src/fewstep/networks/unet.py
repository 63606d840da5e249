"""The DDPM++/NCSN++ U-Net of EDM, for images of about 8x8 and up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError, unknown
from fewstep.networks.attended import Attended, heights_of
from fewstep.networks.base import NETWORKS, Network, checked_label_dropout
from fewstep.networks.embeddings import (
    AUGMENTATION,
    END,
    GUIDANCE,
    INTERVAL,
    Conditioning,
    TimeEmbedding,
)
from fewstep.networks.filling import filled, filled_shape, without_filling
from fewstep.networks.layers import (
    Block,
    BlockSettings,
    Direction,
    Resample,
    ResampleConv,
    ResidualInput,
    balanced_sum,
    conv3x3,
)
from fewstep.networks.norm import group_norm
from fewstep.papers import Also

MOST_TAPS = 64
ATTENDED = Attended(range(9, 17))

DDPMPP: dict[str, Any] = {
    "embedding": "positional",
    "encoder": "standard",
    "decoder": "standard",
    "resample": "block",
    "resample_filter": (1, 1),
}
"""EDM's settings of DDPM++, which are the defaults: ``UNet(shape, **DDPMPP)``."""

NCSNPP: dict[str, Any] = {
    **DDPMPP,
    "embedding": "fourier",
    "encoder": "residual",
    "resample_filter": (1, 3, 3, 1),
}
"""EDM's settings of NCSN++: ``UNet(shape, **NCSNPP)``."""


@dataclass(frozen=True)
class Levels:
    """The levels of a U-Net, from the full image to the smallest."""

    widths: tuple[int, ...]  # channels of each
    attended: tuple[bool, ...]  # whether it has self-attention
    blocks: int  # residual blocks of each on the way down; one more on the way up
    by_conv: bool  # resample by one convolution instead of a residual block
    settings: BlockSettings

    def resampling(self, channels: int, direction: Direction) -> nn.Module:
        if self.by_conv:
            return ResampleConv(channels, direction, self.settings.taps)
        return Block(channels, channels, self.settings, direction=direction)


class Encoder(nn.Module):
    """From the image to the maps that the decoder reads; ``widths`` are their channels.

    With ``residual``, every lower level adds the convolved and halved sum of the level above.
    """

    def __init__(self, image: int, channels: int, levels: Levels, *, residual: bool) -> None:
        super().__init__()
        self.read = conv3x3(image, channels)
        self.levels, self.downs, self.add = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.widths = [channels]
        for level, (width, attention) in enumerate(
            zip(levels.widths, levels.attended, strict=True)
        ):
            if level:
                above = self.widths[-1]
                self.downs.append(levels.resampling(above, "down"))
                if residual:
                    source = image if level == 1 else levels.widths[level - 2]
                    self.add.append(ResidualInput(source, above, levels.settings.taps))
                self.widths.append(above)
            blocks = nn.ModuleList()
            for _ in range(levels.blocks):
                inputs = self.widths[-1]
                blocks.append(Block(inputs, width, levels.settings, attention=attention))
                self.widths.append(width)
            self.levels.append(blocks)

    def forward(self, x: Tensor, e: Tensor) -> list[Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        # Of one channel, both memory formats are the same, so that the convolution has to guess.
        h = self.read(x).contiguous(memory_format=torch.channels_last)
        maps = [h]
        for level, blocks in enumerate(cast("list[nn.ModuleList]", self.levels)):
            if level:
                h = self.downs[level - 1](h, e)
                if self.add:
                    h = x = balanced_sum(h, self.add[level - 1](x))
                maps.append(h)
            for block in blocks:
                h = block(h, e)
                maps.append(h)
        return maps


class Decoder(nn.Module):
    """From the encoder's maps, whose channels are ``skips``, to the image.

    With ``skip``, every level writes an image, and the image is their (doubled) sum.
    """

    def __init__(self, image: int, skips: list[int], levels: Levels, *, skip: bool) -> None:
        super().__init__()
        settings, inputs, skips = levels.settings, skips[-1], list(skips)
        self.skip = skip
        self.middle = nn.ModuleList(
            Block(inputs, inputs, settings, attention=attention) for attention in (True, False)
        )
        self.levels, self.ups, self.write = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.enlarge = Resample("up", settings.taps)
        for level in reversed(range(len(levels.widths))):
            if self.levels:
                self.ups.append(levels.resampling(inputs, "up"))
            width, blocks = levels.widths[level], nn.ModuleList()
            for i in range(levels.blocks + 1):
                attention = levels.attended[level] and i == levels.blocks
                blocks.append(Block(inputs + skips.pop(), width, settings, attention=attention))
                inputs = width
            self.levels.append(blocks)
            if skip or level == 0:
                end = conv3x3(width, image, gain=0.0)
                self.write.append(nn.Sequential(group_norm(width), nn.SiLU(), end))

    def forward(self, maps: list[Tensor], e: Tensor) -> Tensor:
        h = maps[-1]
        for block in self.middle:
            h = block(h, e)
        y: Tensor | None = None
        for i, blocks in enumerate(cast("list[nn.ModuleList]", self.levels)):
            if i:
                h = self.ups[i - 1](h, e)
            for block in blocks:
                h = block(torch.cat([h, maps.pop()], dim=1), e)
            if self.skip:
                written = self.write[i](h)
                y = written if y is None else self.enlarge(y) + written
        return self.write[-1](h) if y is None else y


@NETWORKS.register("unet")
class UNet(Network):
    """The U-Net of DDPM++ and NCSN++ as EDM uses it (Song et al. 2021; Karras et al. 2022).

    At the defaults and images [3, 32, 32] it is EDM's network for CIFAR-10, of 55.7 million
    parameters. `DDPMPP` and `NCSNPP` are EDM's two settings. ``F = 0`` at initialisation.

    Forward-mode derivatives (`torch.func.jvp`) work; they do without the fused attention kernel.

    Args:
        shape: shape ``(C, H, W)`` of an image.
        num_classes: number of classes; 0 for an unconditional network.
        channels: base number of channels, a multiple of 4.
        multipliers: channels of every level, in units of ``channels``. Every level after the
            first halves the image. Sides that cannot be halved are filled up (`filling`).
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: heights of the maps with self-attention: after all blocks on the way down and
            the last on the way up. Default those of 9 to 16 pixels, which is EDM's 16 for images
            of 32 or 64. The middle always has it.
        head_channels: channels of an attention head; None is one head, which is fastest.
        dropout: probability of dropping an activation inside a block in training.
        embedding: features of the noise level, "positional" (DDPM++) or "fourier" (NCSN++).
        fourier_scale: standard deviation of the Fourier frequencies, in periods per unit of
            ``c_noise``. Song & Dhariwal 2023 lower it to 0.02 for consistency training.
        encoder: "standard", or "residual", which adds the halved image at lower levels (NCSN++).
        decoder: "standard", or "skip", which sums the images written at every level.
        resample: inside a residual "block" (EDM), or by one strided "conv" (DDPM).
        double_norm: scale and shift the second norm of a block by the condition, both at unit
            length over the channels, instead of adding it before: the adaptive double normalisation
            of sCM (Lu & Song 2024).
        resample_filter: low-pass filter along each axis, of even length; ``(1, 1)`` (DDPM++) or
            ``(1, 3, 3, 1)`` (NCSN++). A strided convolution has its own.
        label_dropout: probability that training hides an example's class, so that the network
            learns to do without, for guidance.
        two_time: also condition on the end time of the map.
        guidance_embedding: also take a guidance weight, for a student of guided teachers.
        interval_embedding: also take the interval of noise levels at which the weight guides.
        scaled_by_weight: multiply the output by the weight, as a guided velocity grows with it.
        embeds: numbers of an embedding, such as a text's, to be conditioned on; 0 for none.
        embeds_scale: root mean square of these numbers.
        augment: numbers that say how an image was augmented (EDM, Appendix F.2); 0 for none.
            Without them an image is one that was not.

    Raises:
        FewstepError: an argument is out of range or does not fit the image.
    """

    citation = ("song2021score", "karras2022elucidating")
    also_cites = (
        *Network.also_cites,
        Also("double_norm", "lu2024simplifying"),
        Also("augment", "karras2020training"),
    )

    channels_last = True
    takes = ("label", "w", "interval", "augment")
    added: ClassVar[dict[str, tuple[str, ...]]] = {
        END: ("condition.map_s.weight",),
        GUIDANCE: ("condition.embed_w.map.weight",),
        INTERVAL: ("condition.embed_interval.map.weight",),
        AUGMENTATION: ("condition.map_augment.weight",),
    }

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_classes: int = 0,
        channels: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] | None = None,
        head_channels: int | None = None,
        dropout: float = 0.13,
        embedding: Literal["positional", "fourier"] = "positional",
        fourier_scale: float = 16.0,
        encoder: Literal["standard", "residual"] = "standard",
        decoder: Literal["standard", "skip"] = "standard",
        resample: Literal["block", "conv"] = "block",
        resample_filter: Sequence[float] = (1, 1),
        double_norm: bool = False,
        label_dropout: float = 0.0,
        two_time: bool = False,
        guidance_embedding: bool = False,
        interval_embedding: bool = False,
        scaled_by_weight: bool = False,
        augment: int = 0,
        embeds: int = 0,
        embeds_scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check_choice("embedding", embedding, "positional", "fourier")
        _check_choice("encoder", encoder, "standard", "residual")
        _check_choice("decoder", decoder, "standard", "skip")
        _check_choice("resample", resample, "block", "conv")
        _check_numbers(channels, multipliers, blocks, num_classes, resample_filter)
        _check_probability(dropout)
        self._computed = _computed(shape, len(multipliers))
        heights = heights_of(shape[1], len(multipliers))
        self.attention = ATTENDED.among(attention, heights)
        widths = [channels * m for m in multipliers]
        attended = tuple(height in self.attention for height in heights)
        _check_heads(head_channels, [*compress(widths, attended), widths[-1]])

        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, two_time
        self.class_gain = math.sqrt(max(num_classes, 1))
        self._take_guidance(guidance_embedding, interval_embedding, scaled_by_weight)
        self.label_dropout = checked_label_dropout(label_dropout)
        self._take_embedding(embeds, embeds_scale)
        self.positional, self.augment = embedding == "positional", augment
        taps = tuple(float(tap) for tap in resample_filter)
        levels = Levels(
            widths=tuple(widths),
            attended=attended,
            blocks=blocks,
            by_conv=resample == "conv",
            settings=BlockSettings(4 * channels, dropout, head_channels, taps, double_norm),
        )
        self.condition = Conditioning(
            TimeEmbedding.positional(channels)
            if embedding == "positional"
            else TimeEmbedding.fourier(2 * channels, fourier_scale),
            levels.settings.condition,
            num_classes=num_classes,
            two_time=two_time,
            guidance=guidance_embedding,
            interval=interval_embedding,
            augment=augment,
            embeds=embeds,
            embeds_scale=embeds_scale,
        )
        image = self.shape[0]
        self.encoder = Encoder(image, channels, levels, residual=encoder == "residual")
        self.decoder = Decoder(image, self.encoder.widths, levels, skip=decoder == "skip")

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
        """``F(x, c_noise)``: [B, C, H, W] -> [B, C, H, W], contiguous.

        Args:
            x: scaled images.
            c_noise: transformed noise level of ``x`` [B], such as EDM's ``ln(t) / 4``.
            label: class of each image, int64 [B]; `num_classes`, or no label, is the null class.
            c_noise_s: transformed end time of the map [B], for a network with ``two_time``.
            w: guidance weights [B], for a network with ``guidance_embedding``.
            interval: noise levels at which these guide [B, 2], for one with ``interval_embedding``.
            augment: how each image was augmented [B, A]; without it, not at all.
            embedding: of each image, such as its text's [B, d] or [B, tokens, d]; without it, or
                where it is zero, nothing.

        Raises:
            FewstepError: ``x``, ``label`` or ``c_noise_s`` is not what the network was made for.
        """
        if x.shape[1:] != self.shape:
            raise FewstepError(f"this U-Net takes images {self.shape}; got {tuple(x.shape[1:])}.")
        e = self.condition(c_noise, label, c_noise_s, w, augment, embedding, interval)
        h = self.decoder(self.encoder(filled(x, self.computed), e), e)
        return without_filling(h, self.shape).contiguous()


def _check_choice(argument: str, value: str, *known: str) -> None:
    if value not in known:
        raise unknown(f"{argument} of the U-Net", value, known)


def _check_numbers(
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    num_classes: int,
    resample_filter: Sequence[float],
) -> None:
    if channels < 4 or channels % 4:
        raise FewstepError(f"channels of the U-Net must be a multiple of 4; got {channels}.")
    if not multipliers or min(multipliers) < 1:
        raise FewstepError(f"multipliers of the U-Net must be 1 or more; got {multipliers}.")
    if blocks < 1 or num_classes < 0:
        raise FewstepError(
            f"the U-Net needs blocks >= 1 and num_classes >= 0; got {blocks} and {num_classes}."
        )
    taps = len(resample_filter)
    if not 2 <= taps <= MOST_TAPS or taps % 2 or not 0 < sum(resample_filter) < math.inf:
        raise FewstepError(
            f"resample_filter of the U-Net must have an even number of at most {MOST_TAPS} taps "
            f"and a positive sum, such as (1, 1) or (1, 3, 3, 1); got {resample_filter[:8]}."
        )


def _check_probability(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise FewstepError(f"dropout of the U-Net must lie in [0, 1); got {dropout}.")


def _computed(shape: Sequence[int], levels: int) -> tuple[int, int, int]:
    """The shape of the first level's maps."""
    if len(shape) != 3 or min(shape) < 1:
        raise FewstepError(f"the U-Net takes images (C, H, W); got the shape {tuple(shape)}.")
    return filled_shape(shape, 2 ** (levels - 1), f"a U-Net of {levels} levels")


def _check_heads(head_channels: int | None, widths: Sequence[int]) -> None:
    for width in widths:
        if head_channels is not None and (head_channels < 1 or width % head_channels):
            raise FewstepError(
                f"head_channels={head_channels} does not divide the {width} channels that the "
                "U-Net's attention works on."
            )
