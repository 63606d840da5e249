"""The gap between the two noise levels of ECT (Geng et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import FewstepError


@dataclass(frozen=True)
class SigmoidGap:
    """``r(n, k) = max(0, n (1 - q^-(stage+1) (1 + a sigmoid(-b n))))``; ECT's mapping.

    ``n`` and ``r`` are noise levels ``sigma/alpha``; of EDM, times.
    ``stage = floor(stages k / K)``: the gap ``n - r`` shrinks by ``q`` from stage to stage.
    Where ``r = 0`` the target is the data itself, so that stage 0 with ``q = 2`` is close to
    training a diffusion model. One stage is a constant gap, ``(1 + a sigmoid(-b n)) / q``.

    Args:
        K: total number of training steps.
        stages: how many times the gap shrinks.
        q: factor by which it shrinks.
        a, b: of the mapping.
        cap: largest ``1 - q^-(stage+1)``, after which the gap stays; 1 for no such limit. The
            published code of TCM has 0.999, that of ECT for ImageNet 0.9961.
    """

    K: int
    stages: int = 8
    q: float = 2.0
    a: float = 8.0
    b: float = 1.0
    cap: float = 1.0

    def __post_init__(self) -> None:
        if self.stages < 1 or self.q <= 1:
            raise FewstepError(f"need stages >= 1 and q > 1, got {self.stages} and {self.q}.")
        if not 0 < self.cap <= 1:
            raise FewstepError(f"need 0 < cap <= 1, got {self.cap}.")

    def __call__(self, n: Tensor, k: int) -> Tensor:
        stage = min(self.stages * k // self.K, self.stages - 1)
        shrunk = self.q ** (stage + 1)
        if self.cap < 1:
            shrunk = min(shrunk, 1 / (1 - self.cap))
        gap = (1 + self.a * torch.sigmoid(-self.b * n)) / shrunk
        return (n * (1 - gap)).clamp(min=0)
