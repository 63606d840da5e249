"""Samples of a model, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.finite import check_finite
from fewstep.flow_map import FlowMap
from fewstep.sampling.choice import sampler_for
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.samplers import Sampler


def balanced_labels(n: int, num_classes: int) -> Tensor:
    """Labels of ``n`` samples that take the classes in turn: 0, 1, ..., 0, 1, ... [n]."""
    return torch.arange(n) % num_classes


def check_labels(f: FlowMap, labels: Tensor | None, n: int) -> Tensor | None:
    """The labels to sample with: those given, or the classes in turn for a conditional model.

    Raises:
        FewstepError: no samples; labels for an unconditional model, out of range, or not ``n``.
    """
    if n < 1:
        raise FewstepError(f"the number of samples must be at least 1, got {n}.")
    if labels is None:
        return balanced_labels(n, f.num_classes) if f.num_classes else None
    if not f.num_classes:
        raise FewstepError("this model is unconditional: it takes no label.")
    if len(labels) != n or int(labels.min()) < 0 or int(labels.max()) >= f.num_classes:
        raise FewstepError(f"labels must be {n} whole numbers in 0..{f.num_classes - 1}.")
    return labels.long()


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
    seed: int = 0,
    labels: Tensor | None = None,
    batch: int = 256,
    indices: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """``n`` samples of a model: [n, *shape] on the CPU, clipped to [-1, 1].

    Args:
        f: the model.
        n: how many.
        sampler: default that of `sampler_for`.
        seed: the samples depend on it alone (and on the labels).
        labels: class of each sample [n]; default all classes in turn.
        batch: how many at once; a matter of memory and speed only.
        indices: make only these of the ``n``, such as one process's share.
        progress: called with the number of samples that each batch added.

    Raises:
        FewstepError: labels or numbers that do not fit.
        NotFinite: the model gives NaN or infinities.
    """
    labels = check_labels(f, labels, n)
    if sampler is None:
        sampler = sampler_for(f)
    if batch < 1:
        raise FewstepError(f"the batch must hold at least 1 sample, got {batch}.")
    if indices is None:
        indices = range(n)
    elif labels is not None:
        labels = labels[list(indices)]
    parts = [torch.empty(0, *f.image_shape)]
    for x in sample_batches(f, indices, sampler, seed=seed, labels=labels, batch=batch):
        parts.append(x.clamp(-1, 1))
        if progress:
            progress(len(x))
    return torch.cat(parts)
