"""What a network is conditioned on as vectors: time, class, guidance weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.networks.forward_mode import Linear
from fewstep.networks.layers import xavier

if TYPE_CHECKING:
    from typing import Self

END, AUGMENTATION = "the end of a map", "augmentations"
GUIDANCE, INTERVAL = "a guidance weight", "the interval that is guided"
"""What a network may be told besides time and class; keys of `Network.added`."""


class Fixed(nn.Module):
    """Numbers ``w`` that nothing trains, kept in at least float32: there are phases among them."""

    w: Tensor

    def __init__(self, w: Tensor, *, stored: bool = True) -> None:
        super().__init__()
        self.register_buffer("w", w, persistent=stored)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """In half precision a phase would be lost."""
        w = self.w
        super()._apply(fn, recurse)
        if torch.finfo(self.w.dtype).bits < 32 <= torch.finfo(w.dtype).bits:
            self.w = w.to(self.w.device)
        return self


class TimeEmbedding(Fixed):
    """``(sin(w c), cos(w c))`` at ``n`` frequencies ``w``: [B] -> [B, 2 n]."""

    @classmethod
    def positional(cls, width: int) -> TimeEmbedding:
        """Frequencies from 1 down to 1e-4 in geometric progression (DDPM++)."""
        return cls(torch.logspace(0, -4, width // 2))

    @classmethod
    def between(cls, n: int, lowest: float, highest: float) -> TimeEmbedding:
        """``n`` frequencies in geometric progression, which nothing stores."""
        # On the CPU also in a skeleton.
        w = torch.logspace(math.log10(lowest), math.log10(highest), n, device="cpu")
        return cls(w, stored=False)

    @classmethod
    def fourier(cls, width: int, scale: float) -> TimeEmbedding:
        """Random frequencies ``w ~ N(0, (2 pi scale)^2)``, never trained (NCSN++)."""
        return cls(torch.randn(width // 2).mul_(2 * math.pi * scale))

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.w
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class ClassEmbedding(nn.Embedding):
    """A vector per class [B, width]; one past the last class, the null class, is zero."""

    def forward(self, label: Tensor) -> Tensor:
        null = label == self.num_embeddings
        return super().forward(label.masked_fill(null, 0)).masked_fill(null[:, None], 0)


class NumberEmbedding(nn.Module):
    """Some numbers of each example as a vector: [B, n] to [B, width].

    ``map([sin(v x), cos(v x)])`` of each number ``x``, with 16 frequencies ``v`` (Meng et al. 2023
    give a student its guidance weight so). It starts at zero: with the weights of a network that is
    told no such numbers, a network starts as that one.

    Args:
        numbers: how many, ``n``.
        lowest, highest: frequency.
        width: of the vector.
    """

    def __init__(self, numbers: int, lowest: float, highest: float, width: int) -> None:
        super().__init__()
        self.features = TimeEmbedding.between(16, lowest, highest)
        self.map = Linear(32 * numbers, width, bias=False)
        nn.init.zeros_(self.map.weight)

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.cat([self.features(one) for one in x.unbind(1)], dim=1)
        return self.map(waves.to(self.map.weight.dtype))


def guidance_embeddings(
    width: int, weight: bool, interval: bool
) -> tuple[NumberEmbedding | None, NumberEmbedding | None]:
    """Of a network that takes a guidance weight, and the interval of it; None of another."""
    of_w = NumberEmbedding(1, 1 / 16, 4.0, width) if weight else None
    return of_w, NumberEmbedding(2, 1 / 4, 16.0, width) if interval else None


def with_guidance(
    e: Tensor,
    embed_w: nn.Module | None,
    w: Tensor | None,
    embed_interval: nn.Module | None,
    interval: Tensor | None,
) -> Tensor:
    """The condition ``e`` [B, width] with those of a guidance weight and of the interval of it.

    Noise levels ``n = sigma / alpha`` are embedded as ``n / (1 + n)``, their time on straight
    lines, from 0 to 1 where there is no end (Geng et al. 2025 give a network such times).

    Args:
        e: what it is to be added to.
        embed_w, embed_interval: see `guidance_embeddings`.
        w: weights [B]; None where none are given.
        interval: noise levels between which they guide [B, 2]; None where none are given.

    Raises:
        FewstepError: either for a network that takes none.
    """
    if w is not None:
        layer = _taken(embed_w, "a guidance weight", "guidance_embedding")
        e = e + layer(w[:, None])
    if interval is not None:
        layer = _taken(embed_interval, "an interval of guidance", "interval_embedding")
        e = e + layer(1 - 1 / (1 + interval))
    return e


def _taken(layer: nn.Module | None, what: str, flag: str) -> nn.Module:
    if layer is None:
        raise FewstepError(f"{what} was given to a network without {flag}, which takes none.")
    return layer


def augmented(augment: Tensor, layer: nn.Linear | None) -> Tensor:
    """What the numbers of an augmentation [B, A] add to an embedding: [B, width].

    Raises:
        FewstepError: the network has no input for them, or for another number of them.
    """
    inputs = 0 if layer is None else layer.in_features
    if layer is None or augment.ndim != 2 or augment.shape[1] != inputs:
        raise FewstepError(
            f"this network takes {inputs} numbers of an augmentation (augment={inputs}); got "
            f"{list(augment.shape)}."
        )
    return layer(augment.to(layer.weight.dtype))


class DescriptionEmbedding(nn.Module):
    """An embedding of what is wanted, such as a text's, as a vector per example.

    ``map(mean(e) / scale)``: [B, d] or [B, tokens, d] to [B, width]. Of tokens the mean counts,
    without those that are zero, such as a text's padding. There is no bias: an embedding of zeros
    adds nothing.

    Args:
        d: numbers of an embedding.
        width: of the vector.
        scale: a typical size of the numbers, their root mean square.
    """

    def __init__(self, d: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale, self.map = scale, xavier(Linear(d, width, bias=False))

    def forward(self, embedding: Tensor) -> Tensor:
        d = self.map.in_features
        if embedding.ndim not in (2, 3) or embedding.shape[-1] != d:
            raise FewstepError(
                f"this network takes embeddings [B, {d}] or [B, tokens, {d}]; got "
                f"{list(embedding.shape)}."
            )
        if embedding.ndim == 3:
            count = (embedding != 0).any(2).sum(1, keepdim=True).clamp(min=1)
            embedding = embedding.sum(1) / count
        return self.map((embedding / self.scale).to(self.map.weight.dtype))


def description_embedding(d: int, width: int, scale: float) -> DescriptionEmbedding | None:
    """Of a network that takes embeddings of ``d`` numbers; None of one that takes none, ``d = 0``.

    Raises:
        FewstepError: a number below 0, or a scale that is not above it.
    """
    if d < 0 or not 0 < scale < math.inf:
        raise FewstepError(
            f"embeds is a number of inputs from 0 on and embeds_scale above 0; got {d} and {scale}."
        )
    return DescriptionEmbedding(d, width, scale) if d else None


def with_description(e: Tensor, layer: nn.Module | None, embedding: Tensor | None) -> Tensor:
    """The condition ``e`` [B, width] with that of an embedding, where one is given.

    Raises:
        FewstepError: an embedding for a network that takes none, or of another size.
    """
    if embedding is None:
        return e
    if layer is None:
        raise FewstepError("an embedding was given to a network with embeds=0, which takes none.")
    return e + layer(embedding)


class Conditioning(nn.Module):
    """Noise level, class, end time and guidance as one vector per example: [B, width].

    ``e = silu(map1(silu(map0(embed(c_noise) + map_label(onehot) + map_s(embed(c_noise_s)) +
    embed_w(w) + embed_interval(interval) + map_augment(augment) + map_embedding(embedding)))))``

    ``map_s`` starts at zero: given the weights of a one-time network, a two-time network starts as
    that network.
    """

    def __init__(
        self,
        embed: TimeEmbedding,
        width: int,
        *,
        num_classes: int,
        two_time: bool,
        guidance: bool,
        interval: bool = False,
        augment: int = 0,
        embeds: int = 0,
        embeds_scale: float = 1.0,
    ) -> None:
        super().__init__()
        n = 2 * len(embed.w)
        self.num_classes = num_classes
        self.embed = embed
        self.map_label = xavier(Linear(num_classes, n)) if num_classes else None
        self.map_s = xavier(Linear(n, n, bias=False), 0.0) if two_time else None
        self.embed_w, self.embed_interval = guidance_embeddings(n, guidance, interval)
        self.map_augment = xavier(Linear(augment, n, bias=False)) if augment else None
        self.map_embedding = description_embedding(embeds, n, embeds_scale)
        self.map0 = xavier(Linear(n, width))
        self.map1 = xavier(Linear(width, width))

    def forward(
        self,
        c_noise: Tensor,
        label: Tensor | None,
        c_noise_s: Tensor | None,
        w: Tensor | None = None,
        augment: Tensor | None = None,
        embedding: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        dtype = self.map0.weight.dtype
        e = self.embed(c_noise).to(dtype)
        if self.map_label is not None:
            e = e + self.map_label(self.one_hot(label, c_noise).to(dtype))
        elif label is not None:
            raise FewstepError("a label was given to a U-Net with num_classes=0; leave it out.")
        if self.map_s is not None:
            if c_noise_s is None:
                raise FewstepError("this U-Net has two_time=True and needs c_noise_s.")
            e = e + self.map_s(self.embed(c_noise_s).to(dtype))
        e = with_guidance(e, self.embed_w, w, self.embed_interval, interval)
        if augment is not None:
            e = e + augmented(augment, self.map_augment)
        e = with_description(e, self.map_embedding, embedding)
        return functional.silu(self.map1(functional.silu(self.map0(e))))

    def one_hot(self, label: Tensor | None, c_noise: Tensor) -> Tensor:
        """[B, num_classes]: rows of length ``sqrt(num_classes)`` (EDM), or 0 for no class."""
        n = self.num_classes
        if label is None:
            return c_noise.new_zeros(c_noise.shape[0], n)
        check_label(label, c_noise, n)
        return functional.one_hot(label, n + 1)[:, :n] * math.sqrt(n)


def check_label(label: Tensor, c_noise: Tensor, num_classes: int) -> None:
    """Raise `FewstepError` unless labels are ``0..num_classes``, where the last is no class.

    The range is checked on the CPU only: elsewhere it would wait for the device, and there the
    one-hot encoding and the embedding fail by themselves.
    """
    B = c_noise.shape[0]  # len() would fix it in an exported network
    if label.dtype != torch.int64 or label.ndim != 1 or label.shape[0] != B:
        raise FewstepError(
            f"label must be int64 of shape [{B}]; got {label.dtype} {list(label.shape)}."
        )
    if torch.compiler.is_compiling() or label.device.type != "cpu" or not B:
        return
    if label.min() < 0 or label.max() > num_classes:
        raise FewstepError(
            f"labels must lie in 0..{num_classes - 1}, or be {num_classes} for no class; got "
            f"{int(label.min())}..{int(label.max())}."
        )
