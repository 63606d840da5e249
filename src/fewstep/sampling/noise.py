"""Noise streams: every sample has one of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.whole import whole


class NoiseStreams:
    """Independent standard normal streams, one per sample.

    Args:
        seed: the user's seed.
        indices: which samples; sample ``i`` of a seed always has the same stream.
        shape: shape of one sample.
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...]) -> None:
        seed = whole(seed, "a seed")
        if seed < 0:
            raise FewstepError(f"a seed is a whole number >= 0, got {seed}.")
        self.shape = shape
        self._generators = [_generator(seed, i) for i in indices]
        self._rows = len(self._generators)

    @classmethod
    def join(cls, parts: Sequence[NoiseStreams], rows: int | None = None) -> NoiseStreams:
        """The streams of several, such as of different seeds, side by side.

        Args:
            parts: at least one, all of one shape.
            rows: with more rows than streams the last ones are zeros: a batch of a fixed size.
        """
        joined = cls(0, (), parts[0].shape)
        joined._generators = [generator for part in parts for generator in part._generators]
        joined._rows = max(rows or 0, len(joined._generators))
        return joined

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The next draw of every stream: [B, *shape].

        Drawn on the CPU in float32, so the same numbers on every device and in every type.
        """
        z = torch.zeros(self._rows, *self.shape)
        for row, generator in zip(z, self._generators, strict=False):
            row.normal_(generator=generator)
        return z.to(device, dtype, non_blocking=True)


def _generator(seed: int, index: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
