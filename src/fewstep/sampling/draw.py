"""Samples of a model, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.finite import check_finite
from fewstep.flow_map import FlowMap
from fewstep.sampling.choice import sampler_for
from fewstep.sampling.labels import Labels, check_labels
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.samplers import Sampler


def sample_batches(
    f: FlowMap,
    indices: Sequence[int],
    sampler: Sampler,
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    batch: int = 256,
) -> Iterator[Tensor]:
    """Samples number ``indices`` of ``seed``, batch by batch, each [<= batch, *shape] on the CPU.

    ``labels`` [len(indices)] belong to the indices in order.

    Raises:
        NotFinite: the model gives NaN or infinities.
    """
    f.eval()
    for start in range(0, len(indices), batch):
        part = slice(start, start + batch)
        condition = {} if labels is None else {"label": labels[part].to(f.device)}
        with torch.inference_mode():
            x = sampler(f, NoiseStreams(seed, indices[part], f.shape), **condition)
        yield check_finite(x.cpu())


def sample(
    f: FlowMap,
    n: int,
    sampler: Sampler | None = None,
    *,
    steps: int | None = None,
    label: Labels | None = None,
    seed: int = 0,
    labels: Labels | None = None,
    batch: int = 256,
    indices: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """``n`` samples of a model: [n, *shape] on the CPU, clipped to [-1, 1].

    Args:
        f: the model.
        n: how many.
        sampler: default that of `sampler_for` with so many ``steps``.
        steps: evaluations of a consistency model (default 1), solver steps of a diffusion model
            (default 18); every other choice is the sampler's.
        label: the class, by name or number, of all samples or of each [n]; default all in turn.
        seed: the samples depend on it alone (and on the labels).
        labels: the same as ``label``.
        batch: how many at once; a matter of memory and speed only.
        indices: make only these of the ``n``, such as one process's share.
        progress: called with the number of samples that each batch added.

    Raises:
        FewstepError: labels or numbers that do not fit.
        NotFinite: the model gives NaN or infinities.
    """
    if label is not None and labels is not None:
        raise FewstepError("give label or labels, not both.")
    if sampler is not None and steps is not None:
        raise FewstepError("give a sampler or steps, not both: a sampler has its own.")
    classes = check_labels(f, labels if label is None else label, n)
    if sampler is None:
        sampler = sampler_for(f, steps)
    if batch < 1:
        raise FewstepError(f"the batch must hold at least 1 sample, got {batch}.")
    if indices is None:
        indices = range(n)
    elif classes is not None:
        classes = classes[list(indices)]
    parts = [torch.empty(0, *f.image_shape)]
    for x in sample_batches(f, indices, sampler, seed=seed, labels=classes, batch=batch):
        parts.append(x.clamp(-1, 1))
        if progress:
            progress(len(x))
    return torch.cat(parts)
