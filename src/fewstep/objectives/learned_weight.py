"""A weight that is learned with the map: by how much each time counts.

With ``l`` the loss of an example and ``w`` a small function of its times,

    e^w l - w        is least at    e^w = 1 / E[l | times],

so that every time ends up with the same mean loss, 1, and none drowns the others (Karras et al.
2024, EDM2, Eq. 14, after Kendall, Gal, Cipolla 2018; Lu & Song 2024 write it as here; Boffi,
Albergo, Vanden-Eijnden 2025 have ``-w`` for it). It takes in any weight that is a function of time
alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.networks.embeddings import TimeEmbedding
from fewstep.parameterization import Parameterization

FREQUENCIES = 16
FAINTEST, STRONGEST = 1e-4, 1e4
"""Noise levels beyond which the weight stays as it is."""


class LearnedWeight(nn.Module):
    """``e^w l - w`` with ``w`` a linear function of sines and cosines of ``ln(sigma/alpha) / 4``.

    It starts at ``w = 0``, as no weight.

    Args:
        times: of how many times it is a function, such as the two of a flow map.
    """

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.embed = TimeEmbedding.between(FREQUENCIES, 0.25, 16.0)
        self.map = nn.Linear(2 * FREQUENCIES * times, 1)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def w(self, p: Parameterization, *times: Tensor) -> Tensor:
        """``w`` at times [B] of the process of ``p``: [B]."""
        levels = [p.noise_level(t).clamp(FAINTEST, STRONGEST).log() / 4 for t in times]
        seen = torch.cat([self.embed(level) for level in levels], dim=1)
        return self.map(seen.to(self.map.weight.dtype))[:, 0]

    def forward(self, loss: Tensor, p: Parameterization, *times: Tensor) -> Tensor:
        """``e^w l - w`` of losses [B] at times [B]: [B]."""
        w = self.w(p, *times).to(loss.dtype)
        return w.exp() * loss - w
