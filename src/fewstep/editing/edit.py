"""Zero-shot editing: multistep sampling that is pulled back to what is known (Algorithm 4).

Song et al. 2023, Algorithm 4, for an invertible linear ``A``, a mask ``Omega`` of what is to be
generated and times ``t_1 > ... > t_N > eps``:

    y <- A^-1[(A y)(1 - Omega)]
    x ~ p(x_{t_1} | y)                                 for EDM  N(y, t_1^2 I)
    x <- f(x, t_1)
    x <- A^-1[(A y)(1 - Omega) + (A x) Omega]
    for n = 2 ... N:
        x ~ p(x_{t_n} | x)                             for EDM  N(x, (t_n^2 - eps^2) I)
        x <- f(x, t_n)
        x <- A^-1[(A y)(1 - Omega) + (A x) Omega]

Times are those of the model's process, never indices of a grid. As in sampling, every image has a
noise stream of its own: the result depends on the seed and the image's index, not on the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.editing.batches import (
    Labels,
    Progress,
    check_consistency,
    check_reference,
    in_batches,
)
from fewstep.editing.operators import Operator
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.parameterization import Parameterization
from fewstep.sampling import NoiseStreams, along, default_taus
from fewstep.sampling.jumps import Restore
from fewstep.whole import whole

RHO = 7.0  # of Karras' grid, whose coordinate `strength` is
DROWNED = 80.0  # noise level at which nothing of an image is left: EDM's largest


def edit(
    f: FlowMap,
    y: Tensor,
    A: Operator,
    taus: Sequence[float] | None = None,
    *,
    steps: int = 8,
    seed: int = 0,
    labels: Labels = None,
    embedding: Tensor | None = None,
    indices: Sequence[int] | None = None,
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """Algorithm 4: images that agree with ``y`` in the known coordinates of ``A``.

    The known coordinates of the result are those of ``y``: bit for bit where ``A`` is the identity,
    else to the rounding of ``A`` and ``A^-1``. Nothing is clipped; `to_uint8` does that, which can
    move a known coordinate of an image that leaves [-1, 1].

    Args:
        f: a consistency model.
        y: reference images in [-1, 1] [B, *f.shape]; only their known coordinates matter.
        A: the task (see `fewstep.editing.operators`).
        taus: ``t_1 > ... > t_N``, at most ``T``; default `editing_times` of ``steps``.
        steps: network evaluations where no times are given.
        seed: decides the noise.
        labels: class of each image, [B] or one for all, by number or name; for conditional models.
        embedding: what is wanted, such as a text's, [B, ...] or [1, ...] for all; for models that
            are told embeddings.
        indices: numbers of the images' noise streams; default 0, 1, 2, ...
        batch: how many at once; a matter of memory and speed only.
        progress: called with the number of images that each batch added.

    Returns:
        [B, *f.shape] on the CPU.

    Raises:
        FewstepError: a diffusion model; images, times, labels or a mask that do not fit.
    """
    check_consistency(f, "editing")
    check_reference(f, y)
    taus = _times(f, taus, steps)
    known = A.known(tuple(y.shape)).to(f.device)

    def part(rows: slice, noise: NoiseStreams, condition: Condition) -> Tensor:
        kept = known if len(known) == 1 else known[rows]
        Ay = A(y[rows].to(f.device))

        def restore(x: Tensor) -> Tensor:
            return A.inverse(torch.where(kept, Ay, A(x)))

        start = A.inverse(torch.where(kept, Ay, 0))
        return refine(f, _noised(f, start, taus[0], noise), taus, noise, restore, condition)

    return _with_noise(f, len(y), part, seed, labels, indices, batch, progress, embedding)


def sdedit(
    f: FlowMap,
    y: Tensor,
    taus: Sequence[float] | None = None,
    *,
    steps: int = 2,
    strength: float = 0.6,
    seed: int = 0,
    labels: Labels = None,
    embedding: Tensor | None = None,
    indices: Sequence[int] | None = None,
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """Images guided by strokes: noise ``y`` up to ``t_1`` < ``T``, then sample in several steps.

        x ~ p(x_{t_1} | y);  x <- f(x, t_1);  for n = 2 ... N:  x ~ p(x_{t_n} | x), x <- f(x, t_n)

    SDEdit (Meng et al. 2021) with a consistency model (Song et al. 2023, Section 6: Algorithm 4
    with nothing known and ``y`` left whole). The noise drowns what is finer than ``t_1``; what is
    coarser stays.

    Args:
        f, seed, labels, embedding, indices, batch, progress: as for `edit`.
        y: pictures in [-1, 1] [B, *f.shape], such as strokes of colour.
        taus: ``t_1 > ... > t_N``; default `editing_times` of ``steps`` and ``strength``.
        steps: network evaluations where no times are given.
        strength: where ``t_1`` lies, from 0 (``y`` stays as it is) to 1 (nothing is left of it).

    Returns:
        [B, *f.shape] on the CPU, not clipped.

    Raises:
        FewstepError: a diffusion model; images, times, strength or labels that do not fit.
    """
    check_consistency(f, "editing")
    check_reference(f, y)
    taus = _times(f, taus, steps, strength)

    def part(rows: slice, noise: NoiseStreams, condition: Condition) -> Tensor:
        x_t = _noised(f, y[rows].to(f.device), taus[0], noise)
        return refine(f, x_t, taus, noise, condition=condition)

    return _with_noise(f, len(y), part, seed, labels, indices, batch, progress, embedding)


def variation(
    f: FlowMap,
    image: Tensor,
    strength: float = 0.4,
    *,
    n: int = 1,
    steps: int = 2,
    seed: int = 0,
    label: int | str | None = None,
    embedding: Tensor | None = None,
    batch: int = 256,
) -> Tensor:
    """``n`` images like one [*f.shape]: `sdedit` from it with ``n`` noise streams [n, *f.shape].

    Args:
        strength: how different, from 0 to 1. Not a distance: the model decides what it makes of the
            details that noise has drowned.

    Raises:
        FewstepError: as for `sdedit`.
    """
    if n < 1:
        raise FewstepError(f"the number of variations must be at least 1, got {n}.")
    y = image.expand(n, *image.shape)
    return sdedit(
        f,
        y,
        steps=steps,
        strength=strength,
        seed=seed,
        labels=label,
        embedding=embedding,
        batch=batch,
    )


def refine(
    f: FlowMap,
    x_t: Tensor,
    taus: Sequence[float],
    noise: NoiseStreams,
    restore: Restore = lambda x: x,
    condition: Condition = NONE,
) -> Tensor:
    """``x <- restore(f(x_t, t_1))``; for n = 2 ... N: ``x ~ p(x_{t_n} | x)``, again [B, *shape].

    Jumps from ``t_1`` on, each to ``eps``; see `fewstep.sampling.along`.
    """
    (x,) = deque(along(f, x_t, taus, noise, condition, restore=restore), maxlen=1)
    return x


def editing_times(f: FlowMap, steps: int, strength: float = 1.0) -> tuple[float, ...]:
    """``steps`` decreasing times from `start_time` of the strength on.

    From ``T`` on they are those of multistep sampling (`default_taus`), else equally spaced in
    the strength.

    Raises:
        FewstepError: fewer steps than one, or a strength outside (0, 1].
    """
    if whole(steps, "steps") < 1:
        raise FewstepError(f"editing needs at least 1 step, got steps={steps}.")
    if strength == 1:
        return (f.p.T, *default_taus(f, steps))
    return tuple(start_time(f.p, strength * (1 - n / steps)) for n in range(steps))


def start_time(p: Parameterization, strength: float) -> float:
    """The time of the noise level ``(a + strength (b - a))^rho``, ``rho = 7``; ``T`` for 1.

    ``a^rho`` and ``b^rho`` are the `ends_of_strength`. Karras' grid made continuous, in noise
    levels ``sigma/alpha`` of whatever process: strength 0.6 is about the 5.38 at which the paper
    starts from strokes.
    """
    if not 0 < strength <= 1:
        raise FewstepError(f"the strength must be above 0 and at most 1, got {strength:g}.")
    if strength == 1:
        return p.T
    a, b = (level ** (1 / RHO) for level in ends_of_strength(p))
    level = torch.tensor((a + strength * (b - a)) ** RHO, dtype=torch.float64)
    return min(p.T, float(p.time_of_noise_level(level)))


def ends_of_strength(p: Parameterization) -> tuple[float, float]:
    """Noise levels of the strengths 0 and 1: those of ``t_min`` and ``T``, at most `DROWNED`."""
    least, most = p.noise_level(torch.tensor([p.t_min, p.T], dtype=torch.float64)).tolist()
    return least, min(most, DROWNED)


def _noised(f: FlowMap, x: Tensor, tau: float, noise: NoiseStreams) -> Tensor:
    return f.p.diffuse(x, f.time(tau, x), noise.normal(f.device, x.dtype))


def _times(
    f: FlowMap, taus: Sequence[float] | None, steps: int, strength: float = 1.0
) -> tuple[float, ...]:
    """The times given, checked, or the default ones."""
    if taus is None:
        return editing_times(f, steps, strength)
    p = f.p
    falling = all(later < earlier for earlier, later in pairwise([*taus, p.eps]))
    if not (len(taus) and taus[0] <= p.T and falling):
        raise FewstepError(
            f"editing takes decreasing times from at most T={p.T:g} to above eps={p.eps:g}, got "
            f"{', '.join(f'{tau:g}' for tau in taus) or 'none'}."
        )
    return tuple(taus)


def _with_noise(
    f: FlowMap,
    n: int,
    part: Callable[[slice, NoiseStreams, Condition], Tensor],
    seed: int,
    labels: Labels,
    indices: Sequence[int] | None,
    batch: int,
    progress: Progress | None,
    embedding: Tensor | None,
) -> Tensor:
    indices = range(n) if indices is None else indices
    if len(indices) != n:
        raise FewstepError(f"{n} images need {n} indices, got {len(indices)}.")

    def with_noise(rows: slice, condition: Condition) -> Tensor:
        return part(rows, NoiseStreams(seed, indices[rows], f.shape), condition)

    return in_batches(f, n, with_noise, labels, batch, progress, embedding)
