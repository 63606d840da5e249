"""The order of the data: one endless stream of indices, a pure function of the seed.

    stream = pi_0(0), ..., pi_0(n-1), pi_1(0), ..., pi_1(n-1), pi_2(0), ...

with one permutation `pi_e` of the data set per epoch `e`. Step `k` takes the stream's positions
`k B ... (k+1) B - 1`, so a resumed run needs no state but `k`, and a part of a batch (a
micro-batch, the share of one process) is a plain slice of the result.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int = 0) -> Tensor:
    """The permutation `pi_epoch` of `0 ... n-1`, int64 [n]; shared between calls, so read only.

    It sorts random keys from the raw Philox stream, which NumPy promises never to change
    (NEP 19); `torch.randperm` and `Generator.permutation` carry no such promise, and a run
    that is resumed under another version must see the same order.
    """
    entropy = np.random.SeedSequence([seed & (2**64 - 1), epoch])
    keys = np.random.Philox(entropy).random_raw(n)
    return torch.from_numpy(np.argsort(keys, kind="stable"))


def batch_indices(n: int, batch: int, step: int, seed: int) -> Tensor:
    """Indices of step `step`: positions `step * batch ... (step + 1) * batch - 1` of the stream.

    A batch may straddle epochs, and one that is larger than the data set takes several
    permutations. The stream does not depend on the batch size.

    Args:
        n: size of the data set.
        batch: number of examples over all processes and micro-batches.
        step: counted from 0.
        seed: any integer.

    Returns:
        int64 [batch], on the CPU.

    Raises:
        FewstepError: `n` or `batch` below 1, or `step` below 0.
    """
    if n < 1 or batch < 1 or step < 0:
        raise FewstepError(
            f"the data order needs n >= 1, batch >= 1 and step >= 0, got {n=}, {batch=}, {step=}"
        )
    first, last = step * batch, (step + 1) * batch
    epochs = range(first // n, (last - 1) // n + 1)
    return torch.cat(
        [permutation(n, seed, e)[max(first - e * n, 0) : last - e * n] for e in epochs]
    )
