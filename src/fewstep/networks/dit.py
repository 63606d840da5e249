"""The diffusion transformer DiT (Peebles & Xie 2023), SiT's network as well (Ma et al. 2024).

An image is cut into patches, each of which is a token; blocks of self-attention and a perceptron
are scaled, shifted and gated by the time and the class (adaLN-zero, the paper's Section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError, unknown
from fewstep.networks.base import NETWORKS, Network, checked_label_dropout
from fewstep.networks.dropout import dropout
from fewstep.networks.embeddings import (
    END,
    GUIDANCE,
    INTERVAL,
    ClassEmbedding,
    Fixed,
    TimeEmbedding,
    check_label,
    description_embedding,
    guidance_embeddings,
    with_description,
    with_guidance,
)
from fewstep.networks.filling import filled, filled_shape, without_filling
from fewstep.networks.forward_mode import Linear, attend, layer_norm
from fewstep.networks.layers import xavier
from fewstep.papers import Also

EPS = 1e-6  # of every norm
PERIOD = 10_000.0  # the longest wave of positions, in patches, over 2 pi
FREQUENCIES = 128  # sin/cos pairs that embed a time
STD = 0.02  # of the initial embeddings


def patchify(x: Tensor, patch: int) -> Tensor:
    """Tokens of the patches, row by row: [B, C, H, W] -> [B, N, C patch^2]."""
    cut = x.unflatten(2, (-1, patch)).unflatten(4, (-1, patch))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, patch: int, shape: Sequence[int]) -> Tensor:
    """The image of the shape ``(C, H, W)`` whose patches these are; inverse of `patchify`."""
    C, H, W = shape
    cut = tokens.reshape(-1, H // patch, W // patch, C, patch, patch)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, C, H, W).contiguous()


def angles(rows: int, columns: int, n: int) -> Tensor:
    """Of every patch: its column, then its row, times ``n`` frequencies each: [N, 2 n], float64.

    The frequencies fall from 1 in geometric progression towards ``1 / PERIOD``.
    """
    w = PERIOD ** -(torch.arange(n, dtype=torch.float64, device="cpu") / n)
    row, column = (torch.arange(m, dtype=torch.float64, device="cpu") for m in (rows, columns))
    by_column = (column[:, None] * w).expand(rows, columns, n)
    by_row = (row[:, None, None] * w).expand(rows, columns, n)
    return torch.cat([by_column, by_row], dim=2).flatten(0, 1)


def sincos(rows: int, columns: int, width: int) -> Fixed:
    """Sines and cosines of columns and rows, to be added to the tokens: [N, width]."""
    x, y = angles(rows, columns, width // 4).chunk(2, dim=1)
    return Fixed(torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).float(), stored=False)


def rotary(rows: int, columns: int, width: int) -> Fixed:
    """Cosines and sines by which heads of ``width`` channels are turned: [2, N, width / 2]."""
    turned = angles(rows, columns, width // 4)
    return Fixed(torch.stack([turned.cos(), turned.sin()]).float(), stored=False)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """Channels ``i`` and ``i + D/2`` of every token [..., N, D], turned by its position's angle.

    The product of two tokens then knows how far they are apart, and not where (Su et al. 2021).
    """
    cos, sin = turn.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class UnitNorm(nn.Module):
    """``w x / sqrt(mean x^2 + eps)`` over the channels of a head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = (wide.square().mean(-1, keepdim=True) + EPS).rsqrt()
        return x * (scale * self.weight).to(x.dtype)


class Attention(nn.Module):
    """``proj(softmax(q k^T / sqrt(D)) v)`` over all tokens [B, N, width].

    Args:
        width: channels of a token.
        heads: heads of ``D = width / heads`` channels each.
        qk_norm: normalise ``q`` and ``k``, so that their product stays bounded.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = xavier(Linear(width, 3 * width))
        self.norm_q = UnitNorm(width // heads) if qk_norm else nn.Identity()
        self.norm_k = UnitNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = xavier(Linear(width, width))

    def forward(self, x: Tensor, turn: Tensor | None) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        q, k = self.norm_q(q), self.norm_k(k)
        if turn is not None:
            q, k = rotated(q, turn), rotated(k, turn)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``norm(h) (1 + scale) + shift``, the norm over the channels of each token."""
    return shift + layer_norm(h, EPS) * (1 + scale)


class Block(nn.Module):
    """``h + gate attention(norm(h))``, then ``h + gate W2 drop(gelu(W1 norm(h)))``.

    Both norms are scaled and shifted, and both branches gated, by the condition; the gates start
    at zero (adaLN-zero).
    """

    def __init__(
        self, width: int, hidden: int, heads: int, dropout: float, *, qk_norm: bool
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.affine = zeroed(Linear(width, 6 * width))
        self.attention = Attention(width, heads, qk_norm=qk_norm)
        self.W1 = xavier(Linear(width, hidden))
        self.W2 = xavier(Linear(hidden, width))

    def forward(self, h: Tensor, e: Tensor, turn: Tensor | None) -> Tensor:
        parts = self.affine(e)[:, None].chunk(6, dim=2)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        h = h + gate_a * self.attention(modulated(h, shift_a, scale_a), turn)
        u = functional.gelu(self.W1(modulated(h, shift_m, scale_m)), approximate="tanh")
        return h + gate_m * self.W2(dropout(u, self.dropout, self.training))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and bias at zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@NETWORKS.register("dit")
class DiT(Network):
    """The diffusion transformer of DiT and SiT (Peebles & Xie 2023; Ma et al. 2024).

    `SIZES` are the papers' S, B, L and XL; the default is S: ``DiT((4, 32, 32), **SIZES["b"])``.
    ``F = 0`` at initialisation.

    A step costs in proportion to the patches, and attention to their square. ``patch=1`` suits
    latents and images of 8 pixels a side, 2 those of 16 to 32, 4 larger ones.

    Forward-mode derivatives (`torch.func.jvp`) work; they do without the fused attention kernel.

    Args:
        shape: shape ``(C, H, W)`` of an image or a latent.
        num_classes: number of classes; 0 for an unconditional network.
        patch: side of a patch in pixels. Sides of an image that it does not divide are filled up.
        width: channels of a token, a multiple of 4.
        blocks: number of transformer blocks.
        heads: attention heads; they divide the width.
        hidden: width of the perceptron inside a block; default ``4 width``.
        dropout: probability of dropping a hidden unit of a perceptron in training.
        positions: how a patch's place is told: "sincos" adds sines and cosines (DiT), "rope" turns
            queries and keys (rotary).
        qk_norm: normalise queries and keys of the attention, for long trainings in bf16.
        time_scale: of ``c_noise`` in its embedding, whose frequencies are 1 to 1e-4. 1 is DiT's and
            SiT's. A small network learns faster with 4 where ``c_noise`` is EDM's logarithm, and
            with 16 where it is a time in [0, 1].
        label_dropout: probability that training hides an example's class, so that the network
            learns to do without, for guidance.
        two_time: also condition on the end time of the map.
        guidance_embedding: also take a guidance weight, for a student of guided teachers.
        interval_embedding: also take the interval of noise levels at which the weight guides.
        scaled_by_weight: multiply the output by the weight, as a guided velocity grows with it.
        embeds: numbers of an embedding, such as a text's, to be conditioned on; 0 for none.
        embeds_scale: root mean square of these numbers.

    Raises:
        FewstepError: an argument is out of range or does not fit the image.
    """

    citation = ("peebles2023scalable", "ma2024sit")
    also_cites = (
        *Network.also_cites,
        Also("positions", "su2024roformer", lambda how: how == "rope"),
    )

    takes = ("label", "w", "interval")
    added: ClassVar[dict[str, tuple[str, ...]]] = {
        END: ("embed_s.weight",),
        GUIDANCE: ("embed_w.map.weight",),
        INTERVAL: ("embed_interval.map.weight",),
    }

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_classes: int = 0,
        patch: int = 2,
        width: int = 384,
        blocks: int = 12,
        heads: int = 6,
        hidden: int | None = None,
        dropout: float = 0.0,
        positions: Literal["sincos", "rope"] = "sincos",
        qk_norm: bool = False,
        time_scale: float = 1.0,
        label_dropout: float = 0.0,
        two_time: bool = False,
        guidance_embedding: bool = False,
        interval_embedding: bool = False,
        scaled_by_weight: bool = False,
        embeds: int = 0,
        embeds_scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check_shape(shape, patch)
        _check_numbers(width, blocks, hidden, num_classes, dropout, time_scale)
        _check_heads(width, heads, positions)
        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, two_time
        self._take_guidance(guidance_embedding, interval_embedding, scaled_by_weight)
        self.label_dropout = checked_label_dropout(label_dropout)
        self.patch, self.time_scale, self.rope = patch, time_scale, positions == "rope"
        self._computed = filled_shape(shape, patch, "the DiT")
        C, H, W = self._computed
        self.fourier = TimeEmbedding.between(FREQUENCIES, 1 / PERIOD, 1.0)
        self.embed_t = _normal(Linear(2 * FREQUENCIES, width))
        self.embed_s = zeroed(Linear(2 * FREQUENCIES, width, bias=False)) if two_time else None
        self.mix = _normal(Linear(width, width))
        self.embed_label = _normal(ClassEmbedding(num_classes, width)) if num_classes else None
        self.embed_w, self.embed_interval = guidance_embeddings(
            width, guidance_embedding, interval_embedding
        )
        self._take_embedding(embeds, embeds_scale)
        self.embed_embedding = description_embedding(embeds, width, embeds_scale)
        self.read = xavier(Linear(C * patch**2, width))
        place, channels = (rotary, width // heads) if self.rope else (sincos, width)
        self.positions = place(H // patch, W // patch, channels)
        self.blocks = nn.ModuleList(
            Block(width, hidden or 4 * width, heads, dropout, qk_norm=qk_norm)
            for _ in range(blocks)
        )
        self.affine = zeroed(Linear(width, 2 * width))
        self.write = zeroed(Linear(width, C * patch**2))

    def condition(
        self,
        c_noise: Tensor,
        label: Tensor | None,
        c_noise_s: Tensor | None,
        w: Tensor | None = None,
        embedding: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        """Everything that it is conditioned on as one vector per example [B, width].

        The end of the map enters beside its start, before the first nonlinearity.
        """
        e = self.embed_t(self._waves(c_noise))
        if self.embed_s is not None:
            if c_noise_s is None:
                raise FewstepError("this network has two_time=True and needs c_noise_s.")
            e = e + self.embed_s(self._waves(c_noise_s))
        e = self.mix(functional.silu(e))
        if label is not None:
            if self.embed_label is None:
                raise FewstepError("a label was given to an unconditional network.")
            check_label(label, c_noise, self.num_classes)
            e = e + self.embed_label(label)
        e = with_description(e, self.embed_embedding, embedding)
        e = with_guidance(e, self.embed_w, w, self.embed_interval, interval)
        return functional.silu(e)

    def _waves(self, c_noise: Tensor) -> Tensor:
        return self.fourier(self.time_scale * c_noise).to(self.embed_t.weight.dtype)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
        w: Tensor | None = None,
        embedding: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        """``F(x, c_noise)``: [B, C, H, W] -> [B, C, H, W]; see `UNet.forward`."""
        if x.shape[1:] != self.shape:
            raise FewstepError(f"this DiT takes images {self.shape}; got {tuple(x.shape[1:])}.")
        e = self.condition(c_noise, label, c_noise_s, w, embedding, interval)
        h, place = self.read(patchify(filled(x, self.computed), self.patch)), self.positions.w
        turn = place if self.rope else None
        if not self.rope:
            # In the type of the weights: under autocast the sum of the branches stays float32.
            h = h + place.to(self.read.weight.dtype)
        for block in cast("list[Block]", self.blocks):
            h = block(h, e, turn)
        shift, scale = self.affine(e)[:, None].chunk(2, dim=2)
        tokens = self.write(modulated(h, shift, scale))
        return without_filling(unpatchify(tokens, self.patch, self.computed), self.shape)


SIZES: dict[str, dict[str, Any]] = {
    "s": {"width": 384, "blocks": 12, "heads": 6},
    "b": {"width": 768, "blocks": 12, "heads": 12},
    "l": {"width": 1024, "blocks": 24, "heads": 16},
    "xl": {"width": 1152, "blocks": 28, "heads": 16},
}
"""The papers' sizes (Peebles & Xie 2023, Table 1): ``DiT(shape, patch=2, **SIZES["xl"])``."""


def _normal(layer: Any) -> Any:
    nn.init.normal_(layer.weight, std=STD)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check_shape(shape: Sequence[int], patch: int) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise FewstepError(f"the DiT takes images (C, H, W); got the shape {tuple(shape)}.")
    if patch < 1:
        raise FewstepError(f"patch of the DiT must be at least 1; got {patch}.")


def _check_numbers(
    width: int,
    blocks: int,
    hidden: int | None,
    num_classes: int,
    dropout: float,
    time_scale: float,
) -> None:
    if width < 4 or width % 4 or min(blocks, 1 if hidden is None else hidden) < 1:
        raise FewstepError(
            "the DiT needs a width that 4 divides, and blocks and hidden of 1 or more; got "
            f"{width}, {blocks} and {hidden}."
        )
    if num_classes < 0 or not 0 <= dropout < 1 or not 0 < time_scale < math.inf:
        raise FewstepError(
            "the DiT needs num_classes >= 0, dropout in [0, 1) and a positive time_scale; got "
            f"{num_classes}, {dropout} and {time_scale}."
        )


def _check_heads(width: int, heads: int, positions: str) -> None:
    if positions not in ("sincos", "rope"):
        raise unknown("positions of the DiT", positions, ("sincos", "rope"))
    if heads < 1 or width % heads:
        raise FewstepError(f"heads={heads} of the DiT does not divide its width of {width}.")
    if positions == "rope" and width // heads % 4:
        raise FewstepError(
            f"positions='rope' turns quarters of a head: with heads={heads} it has "
            f"{width // heads} channels of {width}, which 4 does not divide."
        )
