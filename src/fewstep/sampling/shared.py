"""Samples that several processes make together."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fewstep.data import to_uint8
from fewstep.distributed import Processes
from fewstep.progress import progress
from fewstep.sampling.draw import sample
from fewstep.sampling.model import Model
from fewstep.sampling.sampler import Sampler


def share_of_samples(
    f: Model,
    n: int,
    sampler: Sampler,
    group: Processes,
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    embedding: Tensor | None = None,
    batch: int | None = None,
    of: Callable[[Tensor], Tensor] = to_uint8,
) -> Tensor:
    """This process's share of ``n`` samples on the CPU; by default images, uint8 [<= n, C, H, W].

    Args:
        f: the model.
        n: samples of all processes.
        sampler, seed, labels, embedding, batch: as for `sample`.
        group: the processes; the first one shows progress.
        of: what is made of the samples.

    Raises:
        FewstepError: in every process, where the samples of one are not to be had.
    """
    share = group.share(n)

    def make() -> Tensor:
        with progress("sampling", len(share)) as advance:
            x = sample(
                f,
                n,
                sampler,
                seed=seed,
                labels=labels,
                embedding=embedding,
                batch=batch,
                indices=share,
                progress=advance if group.first else None,
            )
        return of(x)

    return group.as_one(make)
