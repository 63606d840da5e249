"""A residual multilayer perceptron with adaptive normalisation, for points and tiny images."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.networks.base import NETWORKS, Network, checked_label_dropout
from fewstep.networks.dropout import dropout
from fewstep.networks.embeddings import (
    END,
    GUIDANCE,
    INTERVAL,
    ClassEmbedding,
    TimeEmbedding,
    check_label,
    guidance_embeddings,
    with_guidance,
)
from fewstep.networks.forward_mode import Linear, layer_norm

MOST_FREQUENCIES = 4096


class Block(nn.Module):
    """``h + W2 dropout(silu(W1 (norm(h) (1 + scale) + shift)))``, with ``W2 = 0`` at first."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.affine = Linear(width, 2 * width)
        self.W1 = Linear(width, hidden)
        self.W2 = Linear(hidden, width)
        self.dropout = dropout
        for layer in (self.affine, self.W2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.affine(e).chunk(2, dim=1)
        u = torch.addcmul(shift, layer_norm(h), 1 + scale)
        u = dropout(functional.silu(self.W1(u)), self.dropout, self.training)
        return h + self.W2(u)


@NETWORKS.register("mlp")
class MLP(Network):
    """Residual MLP whose layer norms are scaled and shifted by the time and the class.

    Examples are flattened, so it serves points of any dimension and images up to about 16 pixels
    a side. At the defaults and 8x8 images it has 1.3 million parameters.

    Args:
        shape: shape of one example, such as ``(2,)`` or ``(1, 8, 8)``.
        num_classes: number of classes; 0 for an unconditional network.
        width: width of the residual stream.
        hidden: width inside a block; default ``2 width``.
        blocks: number of residual blocks.
        dropout: probability of dropping a hidden unit in training.
        frequencies: sin/cos pairs that embed a time.
        highest: highest frequency, in radians per unit of ``c_noise``; the lowest is 1/4.
        label_dropout: probability that training hides an example's class, so that the network
            learns to do without, for guidance.
        two_time: also condition on the end time of the map.
        guidance_embedding: also take a guidance weight, for a student of guided teachers.
        interval_embedding: also take the interval of noise levels at which the weight guides.
        scaled_by_weight: multiply the output by the weight, as a guided velocity grows with it.
    """

    free_rows = True
    takes = ("label", "w", "interval")
    added: ClassVar[dict[str, tuple[str, ...]]] = {
        END: ("embed_s.weight",),
        GUIDANCE: ("embed_w.map.weight",),
        INTERVAL: ("embed_interval.map.weight",),
    }

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        width: int = 256,
        hidden: int | None = None,
        blocks: int = 3,
        dropout: float = 0.0,
        frequencies: int = 16,
        highest: float = 4.0,
        label_dropout: float = 0.0,
        two_time: bool = False,
        guidance_embedding: bool = False,
        interval_embedding: bool = False,
        scaled_by_weight: bool = False,
    ) -> None:
        super().__init__()
        if min(width, blocks, frequencies, hidden or 1) < 1 or not 0 <= dropout < 1:
            raise FewstepError(
                "the MLP needs width, blocks, frequencies >= 1 and dropout in [0,1)."
            )
        if frequencies > MOST_FREQUENCIES or not 0 < highest < math.inf:
            raise FewstepError(
                f"the MLP needs at most {MOST_FREQUENCIES} frequencies and a positive highest; got "
                f"{frequencies} and {highest}."
            )
        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, two_time
        self._take_guidance(guidance_embedding, interval_embedding, scaled_by_weight)
        self.label_dropout = checked_label_dropout(label_dropout)
        size = math.prod(self.shape)
        self.fourier = TimeEmbedding.between(frequencies, 0.25, highest)
        self.embed_t = Linear(2 * frequencies, width)
        self.embed_s = Linear(2 * frequencies, width, bias=False) if two_time else None
        self.embed_label = ClassEmbedding(num_classes, width) if num_classes else None
        if self.embed_s is not None:
            nn.init.zeros_(self.embed_s.weight)
        self.embed_w, self.embed_interval = guidance_embeddings(
            width, guidance_embedding, interval_embedding
        )
        self.mix = Linear(width, width)
        self.read = Linear(size, width)
        self.blocks = nn.ModuleList(
            Block(width, hidden or 2 * width, dropout) for _ in range(blocks)
        )
        self.write = Linear(width, size)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def embed(
        self,
        c_noise: Tensor,
        label: Tensor | None,
        c_noise_s: Tensor | None,
        w: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        """The condition as one vector per example [B, width]."""
        dtype = self.embed_t.weight.dtype
        e = self.embed_t(self.fourier(c_noise).to(dtype))
        if self.embed_s is not None:
            if c_noise_s is None:
                raise FewstepError("this network has two_time=True and needs c_noise_s.")
            e = e + self.embed_s(self.fourier(c_noise_s).to(dtype))
        if label is not None:
            if self.embed_label is None:
                raise FewstepError("a label was given to an unconditional network.")
            check_label(label, c_noise, self.num_classes)
            e = e + self.embed_label(label)
        e = with_guidance(e, self.embed_w, w, self.embed_interval, interval)
        return functional.silu(self.mix(functional.silu(e)))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
        w: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        e = self.embed(c_noise, label, c_noise_s, w, interval)
        h = self.read(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        # Linear from the residual stream: at small noise F is nearly linear in x.
        return self.write(h).view_as(x)
