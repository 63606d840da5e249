"""How many rows a network is evaluated on, so that a sample does not depend on its neighbours.

A matrix product rounds a row differently where it has few rows, or an odd number of them, which can
change a pixel by one level. With a multiple of 16 rows, of 8 for convolutions, it does not: a part
of the samples that is smaller is filled up. Where further rows cost nearly nothing, as those of a
small MLP, it always is. Elsewhere every row has its price. On a CPU a part is then filled up where
that costs less than a tenth and is no more than may be made at once, and else the last bit may
depend on the number of samples. On a GPU it may in any case: the libraries choose their algorithm
by the size of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

from fewstep.sampling.model import Model, free_rows

FREE, PRICED = 16, 8  # rows in multiples of which no row's rounding depends on the others
LARGE, SMALL = 256, 32  # samples at once; a CPU's caches hold the activations of few images


def _pays_by_row(f: Model) -> bool:
    """Whether one row takes a small part of the time of many."""
    return f.device.type == "cpu" and not free_rows(f)


def default_batch(f: Model) -> int:
    """How many samples to make at once."""
    return SMALL if _pays_by_row(f) else LARGE


def parts(f: Model, n: int, batch: int) -> Iterator[tuple[slice, int]]:
    """Which of ``n`` samples are made together, and on how many rows: at least as many.

    Args:
        f: the model.
        n: number of samples.
        batch: how many rows at most, but where they are free; rounded down to a multiple where it
            is that large.
    """
    multiple = FREE if free_rows(f) else PRICED
    size = batch - batch % multiple or batch
    for part in _cut(n, size):
        count = part.stop - part.start
        full = -(-count // multiple) * multiple
        cheap = _pays_by_row(f) and full <= batch and 10 * (full - count) <= n
        yield part, full if free_rows(f) or cheap else count


def alike(f: Model, n: int, most: int) -> Iterator[tuple[slice, int]]:
    """As `parts`, so that on a CPU no sample depends on those that happen to come with it.

    Free rows are always as many. Where every row has its price on a CPU, each sample is made by
    itself: a batch gains nothing there.

    Args:
        f: the model.
        n: number of samples.
        most: how many rows at most.
    """
    size = 1 if _pays_by_row(f) else min(FREE, most)
    for part in _cut(n, size):
        yield part, size if free_rows(f) else part.stop - part.start


def _cut(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
