"""How many rows a network is evaluated on, so that a sample does not depend on its neighbours.

A matrix product rounds a row differently where it has few rows, or an odd number of them, which can
change a pixel by one level. With a multiple of 16 rows, of 8 for convolutions, it does not: a part
of the samples that is smaller is filled up. That is cheap for dense networks, where one row takes
nearly as long as many. Convolutions on a CPU take their time for each row: they are filled up where
it costs less than a tenth, and elsewhere the last bit may depend on the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fewstep.sampling.model import Model

DENSE, CONVOLUTIONS = 16, 8  # rows in multiples of which no row's rounding depends on the others
LARGE, SMALL = 256, 32  # samples at once; a CPU's caches hold the activations of few images


def pays_by_row(f: Model) -> bool:
    """Whether every row costs as much as the first: convolutions on a CPU."""
    if f.device.type != "cpu" or not isinstance(f, nn.Module):
        return False
    return any(isinstance(m, nn.Conv2d) for m in f.modules())


def default_batch(f: Model) -> int:
    """How many samples to make at once."""
    return SMALL if pays_by_row(f) else LARGE


def parts(f: Model, n: int, batch: int) -> Iterator[tuple[slice, int]]:
    """Which of ``n`` samples are made together, and on how many rows: at least as many.

    Args:
        f: the model.
        n: number of samples.
        batch: how many at once at most; rounded down to a multiple where it is that large.
    """
    by_row = pays_by_row(f)
    multiple = CONVOLUTIONS if by_row else DENSE
    size = batch - batch % multiple or batch
    for start in range(0, n, size):
        count = min(size, n - start)
        full = -(-count // multiple) * multiple
        filled = not by_row or 10 * (full - count) <= n
        yield slice(start, start + count), full if filled else count
