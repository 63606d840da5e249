"""Samples of a model, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.finite import check_finite
from fewstep.guidance import Guided
from fewstep.mode import evaluating
from fewstep.sampling.choice import sampler_for
from fewstep.sampling.labels import Labels, check_embedding, check_labels
from fewstep.sampling.model import Model
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.rows import default_batch, parts
from fewstep.sampling.sampler import Sampler
from fewstep.sampling.walk import Walk
from fewstep.whole import whole


def sample_batches(
    f: Model,
    indices: Sequence[int],
    sampler: Sampler,
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    embedding: Tensor | None = None,
    batch: int | None = None,
) -> Iterator[Tensor]:
    """Samples number ``indices`` of ``seed``, batch by batch, each [<= batch, *shape] on the CPU.

    ``labels`` [len(indices)] and ``embedding`` [len(indices), ...] belong to the indices in order.
    A batch is filled up with further rows where its size would show in the last bit; see
    `fewstep.sampling.rows`. An adaptive solver counts the evaluations of all rows, and has none but
    the samples'.

    Raises:
        NotFinite: the model gives NaN or infinities.
    """
    adaptive = isinstance(sampler, Walk) and sampler.adaptive
    for part, rows in parts(f, len(indices), batch or default_batch(f)):
        noise = NoiseStreams(seed, indices[part], f.shape)
        count = part.stop - part.start
        filled = count if adaptive else rows
        told = Condition(label=labels, embedding=embedding)
        condition = told.rows(part).filled(filled).to(f.device)
        with torch.inference_mode(), evaluating(f):
            x = sampler(f, NoiseStreams.join([noise], filled), condition)
        yield check_finite(x[:count].cpu())


def sample(
    f: Model,
    n: int,
    sampler: Sampler | str | None = None,
    *,
    steps: int | None = None,
    guidance: Guided | float | str | None = None,
    label: Labels | None = None,
    seed: int = 0,
    labels: Labels | None = None,
    embedding: Tensor | None = None,
    batch: int | None = None,
    indices: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """``n`` samples of a model: [n, *shape] on the CPU, clipped to [-1, 1].

    They are float32, or float64 from a float64 model. A float16 or bfloat16 network is evaluated in
    that type, but the walk between its evaluations is float32, and so is its end.

    Args:
        f: the model.
        n: how many.
        sampler: a sampler or its spec, such as ``"jumps(gamma=0, steps=4)"``; default that of
            `sampler_for` with so many ``steps``.
        steps: evaluations of a consistency model (default 1), solver steps of a diffusion model
            (default 18); every other choice is the sampler's.
        guidance: classifier-free guidance, a weight or its spec; default the model's own.
        label: the class, by name or number, of all samples or of each [n]; default all in turn.
        seed: the samples depend on it alone (and on the labels): to the bit, on one machine, where
            the network is an mlp, or ``n`` is a multiple of 8 on a CPU; else to rounding.
        labels: the same as ``label``.
        embedding: what each sample is to show, [n, d] or [n, tokens, d], or [1, ...] for all, such
            as a text's; for a model that was trained with embeddings.
        batch: how many at once, a matter of memory and speed only; default 256, or 32 on a CPU
            where the network is no mlp.
        indices: make only these of the ``n``, such as one process's share.
        progress: called with the number of samples that each batch added.

    Raises:
        FewstepError: labels or numbers that do not fit.
        NotFinite: the model gives NaN or infinities.
    """
    _check_objects(f, sampler)
    if label is not None and labels is not None:
        raise FewstepError("give label or labels, not both.")
    if isinstance(sampler, Sampler) and steps is not None:
        raise FewstepError("give a sampler or steps, not both: a sampler has its own.")
    if isinstance(sampler, Sampler) and guidance is not None:
        raise FewstepError("give a sampler or guidance, not both: a sampler has its own.")
    classes, n = check_labels(f, labels if label is None else label, n), whole(n, "n")
    sampler = sampler_for(f, steps, sampler=sampler, guidance=guidance)
    if batch is not None and (batch := whole(batch, "the batch")) < 1:
        raise FewstepError(f"the batch must hold at least 1 sample, got {batch}.")
    indices = range(n) if indices is None else _of(n, indices)
    wanted = check_embedding(f, embedding, n)
    if classes is not None:
        classes = classes[list(indices)]
    if wanted is not None:
        wanted = wanted[list(indices)]
    made = [torch.empty(0, *f.image_shape)]
    for x in sample_batches(
        f, indices, sampler, seed=seed, labels=classes, embedding=wanted, batch=batch
    ):
        made.append(x.clamp(-1, 1))
        if progress:
            progress(len(x))
    return torch.cat(made)


def _check_objects(f: object, sampler: object) -> None:
    """Raise `FewstepError` for a path or a name where an object is asked for."""
    if isinstance(f, str | PathLike):
        raise FewstepError(f"samples are made by a model, fewstep.open_model(path), not by {f!r}.")
    if sampler is not None and not isinstance(sampler, str) and not callable(sampler):
        raise FewstepError(
            f"a sampler is an object such as Walk(18, 'heun'), or a spec such as "
            f"'jumps(gamma=0)', not {sampler!r}; a number of steps alone is given as steps."
        )


def _of(n: int, indices: Sequence[int]) -> Sequence[int]:
    """Numbers of some of ``n`` samples.

    Raises:
        FewstepError: one that is none of them.
    """
    numbers = [whole(i, "the index of a sample") for i in indices]
    if wrong := [i for i in numbers if not 0 <= i < n]:
        raise FewstepError(f"the samples are numbered 0..{n - 1}, and {wrong[0]} is none of them.")
    return numbers
