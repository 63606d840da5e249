"""Points of the plane with a known density: eight Gaussians on a ring.

Both coordinates have a variance of 0.25, as the images of EDM's papers have, so that settings that
were found for images mean the same here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewstep.data.dataset import Dataset
from fewstep.data.readers import READERS
from fewstep.data.splits import choose
from fewstep.errors import FewstepError

MODES = 8
STD = 0.12
RADIUS = math.sqrt(2 * (0.25 - STD**2))
SIZES = {"train": 65_536, "test": 16_384}


def centres() -> Tensor:
    """The means of the Gaussians: float64 [8, 2]."""
    angle = 2 * math.pi * torch.arange(MODES, dtype=torch.float64) / MODES
    return RADIUS * torch.stack([angle.cos(), angle.sin()], 1)


def points(n: int, seed: int) -> Tensor:
    """Independent draws of the density: float64 [n, 2]."""
    source = torch.Generator().manual_seed(seed)
    which = torch.randint(MODES, (n,), generator=source)
    noise = torch.randn(n, 2, dtype=torch.float64, generator=source)
    return centres()[which] + STD * noise


@READERS.register("toy2d")
def toy2d(where: str, split: str) -> Dataset:
    """65,536 points for "train", 16,384 for "test" or "val": float32 [N, 2], without classes.

    Raises:
        FewstepError: an unknown split; something behind a colon.
    """
    if where:
        raise FewstepError(f"the points are called toy2d alone, not toy2d:{where}.")
    chosen = choose(split, tuple(SIZES), "toy2d")
    seed = list(SIZES).index(chosen)
    return Dataset.from_arrays(points(SIZES[chosen], seed).float(), name="toy2d", points=True)
