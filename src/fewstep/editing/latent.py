"""Noise as a code: encode and decode along the PF-ODE, and interpolate between codes.

A latent ``z`` [*shape] stands for the point ``x_T = sigma(T) z``. A consistency model decodes it
in one step; a diffusion model decodes it, and alone encodes, by solving the PF-ODE.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.editing.batches import (
    Labels,
    check_images,
    check_pixels,
    in_batches,
)
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.sampling import Multistep, NoiseStreams, Sampler, sampler_for
from fewstep.schedules import karras_grid
from fewstep.solvers import PHI, Solver


def latents(f: FlowMap, indices: Sequence[int], seed: int = 0) -> Tensor:
    """The latents of the samples number ``indices`` that `sample` makes of a seed: [N, *shape]."""
    return NoiseStreams(seed, indices, f.shape).normal()


def slerp(z0: Tensor, z1: Tensor, alpha: Tensor | float) -> Tensor:
    """``(sin((1 - alpha) psi) z0 + sin(alpha psi) z1) / sin psi``, psi the angle of z0 and z1.

    Spherical interpolation, which keeps the length that noise has (Song et al. 2023, Section 6 and
    Appendix D). Where the two are parallel, the straight line.

    Args:
        z0, z1: latents of one shape.
        alpha: a number, or [F] for F interpolates.

    Returns:
        [*shape], or [F, *shape].
    """
    a, b = z0.double().flatten(), z1.double().flatten()
    cosine = torch.dot(a, b) / (a.norm() * b.norm()).clamp(min=torch.finfo(a.dtype).tiny)
    psi = torch.arccos(cosine.clamp(-1, 1))
    alpha = torch.as_tensor(alpha, dtype=a.dtype)
    column = alpha.reshape(*alpha.shape, 1)
    if psi.sin() < 1e-6:
        between = (1 - column) * a + column * b
    else:
        between = (((1 - column) * psi).sin() * a + (column * psi).sin() * b) / psi.sin()
    return between.reshape(*alpha.shape, *z0.shape).to(z0.dtype)


def mix(z: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    """``r m / |m|`` with ``m = sum_k w_k z_k`` and ``r = sum_k w_k |z_k| / sum_k w_k``.

    Several images mixed in the latent space. A mean of noises is shorter than noise; this one has
    the weighted mean of their lengths, as `slerp` has for two. Equal weights of two latents of
    one length give their slerp's middle; a weight of 1 among zeros gives that latent back.

    Args:
        z: latents [K, *shape].
        weights: [K], or [M, K] for M mixtures; at least 0, with a positive sum.

    Returns:
        [*shape], or [M, *shape]; `decode` makes images of them.

    Raises:
        FewstepError: weights that do not fit, or latents that cancel each other.
    """
    w = torch.as_tensor(weights, dtype=torch.float64)
    fits = w.ndim in (1, 2) and w.shape[-1] == len(z)
    if not (fits and w.isfinite().all() and (w >= 0).all() and (w.sum(-1) > 0).all()):
        raise FewstepError(
            f"mixing {len(z)} latents takes {len(z)} weights >= 0 with a positive sum for each "
            "mixture."
        )
    flat = z.double().flatten(1)
    w = w / w.sum(-1, keepdim=True)
    mean, length = w @ flat, (w @ flat.norm(dim=1))[..., None]
    short = mean.norm(dim=-1, keepdim=True)
    if (short <= 1e-6 * length).any():
        raise FewstepError("these latents cancel each other: mix them with other weights.")
    return (mean * length / short).reshape(*w.shape[:-1], *z.shape[1:]).to(z.dtype)


def walk(z: Tensor, frames: int, *, closed: bool = False) -> Tensor:
    """Latents along the `slerp`s through ``z`` [K, *shape], ``frames`` per leg, ends included.

    Args:
        frames: at least 2; neighbouring legs share their common end.
        closed: go back to the first at the end, for an endless film; its last frame is then left
            out, since the first follows.

    Returns:
        [(K - 1) (frames - 1) + 1, *shape]; closed [K (frames - 1), *shape].

    Raises:
        FewstepError: fewer than two latents or frames.
    """
    if len(z) < 2 or frames < 2:
        raise FewstepError(
            f"a walk needs at least 2 latents and 2 frames, got {len(z)} and {frames}."
        )
    stops = [*z, z[0]] if closed else [*z]
    alpha = torch.linspace(0, 1, frames, dtype=torch.float64)[:-1]
    legs = [slerp(a, b, alpha) for a, b in pairwise(stops)]
    return torch.cat(legs if closed else [*legs, z[-1:]])


def decode(
    f: FlowMap,
    z: Tensor,
    *,
    taus: Sequence[float] = (),
    N: int = 18,
    solver: Solver | str = "heun",
    sampler: Sampler | str | None = None,
    seed: int = 0,
    labels: Labels = None,
    embedding: Tensor | None = None,
    batch: int = 256,
) -> Tensor:
    """Images of latents: [B, *f.shape] to [B, *f.image_shape] on the CPU, not clipped.

    A consistency model gives ``f(sigma(T) z, T)`` and, with ``taus``, the further steps of
    multistep sampling; all images get the same noise in them, that of sample 0, so that
    neighbouring latents give neighbouring images, and the latent of sample 0 gives the sample. A
    diffusion model solves the PF-ODE in ``N`` steps, from ``T`` to the other end of the grid of
    `encode`. A ``sampler``, or its spec, goes its own way from the latents instead.

    Raises:
        FewstepError: latents, times, labels or a sampler that do not fit.
    """
    f.trained.check_flow("decoding")
    check_images(f, z)
    if sampler is not None:
        if taus:
            raise FewstepError("give a sampler or time points, not both: a sampler has its own.")
        return _sampled(f, z, sampler_for(f, sampler=sampler), seed, labels, embedding, batch)
    f.trained.check_known("decoding")
    if taus or f.trained.maps_to_eps:
        return _sampled(f, z, Multistep(taus), seed, labels, embedding, batch)
    f.trained.check_any_time("decoding in these steps")

    def part(rows: slice, condition: Condition) -> Tensor:
        x = f.p.prior(z[rows].to(f.device))
        return f.image(_solve(f, x, _grid(f, N).flip(0), solver, condition))

    return in_batches(f, len(z), part, labels, batch, embedding=embedding)


def _sampled(
    f: FlowMap,
    z: Tensor,
    sampler: Sampler,
    seed: int,
    labels: Labels,
    embedding: Tensor | None,
    batch: int,
) -> Tensor:
    """What a sampler makes of latents, with the same further noise for all."""

    def part(rows: slice, condition: Condition) -> Tensor:
        return sampler(f, _Begun(z[rows], seed), condition)

    return in_batches(f, len(z), part, labels, batch, embedding=embedding)


class _Begun(NoiseStreams):
    """Noise streams whose first draw is given; after it they are all those of sample 0."""

    def __init__(self, first: Tensor, seed: int) -> None:
        super().__init__(seed, [0] * len(first), tuple(first.shape[1:]))
        self._first: Tensor | None = first

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        drawn = super().normal(device, dtype)
        z, self._first = self._first, None
        return drawn if z is None else z.to(device, dtype)


def encode(
    f: FlowMap,
    x: Tensor,
    *,
    N: int = 18,
    solver: Solver | str = "heun",
    labels: Labels = None,
    embedding: Tensor | None = None,
    batch: int = 256,
) -> Tensor:
    """Latents of images: the PF-ODE of a diffusion model from data to noise, over ``sigma(T)``.

    `decode` with the same model, ``N`` and solver gives the images back, with an error that falls
    with ``N`` at the solver's order. A consistency model maps only towards the data and cannot
    encode; one that was distilled decodes what its teacher has encoded.

    Args:
        f: a diffusion model.
        x: images in [-1, 1] [B, *f.shape], taken for points at the end of Karras' grid.
        N: steps, on Karras' grid with ``N + 1`` points.
        solver: a one-step solver or its spec.
        labels: class of each image, [B] or one for all; for conditional models alone.
        embedding: what is wanted, such as a text's, [B, ...] or [1, ...] for all; for models that
            are told embeddings.
        batch: how many at once.

    Returns:
        [B, *f.shape] on the CPU.

    Raises:
        FewstepError: not a diffusion model; images or labels that do not fit; fewer steps than one.
    """
    check_pixels(f, "encoding")
    check_images(f, x)
    f.trained.check_denoises(
        "encoding", "encode with the diffusion model that it was distilled from"
    )
    f.trained.check_diagonal("encoding", flow=f.flows)

    def part(rows: slice, condition: Condition) -> Tensor:
        x_T = _solve(f, x[rows].to(f.device), _grid(f, N), solver, condition)
        return x_T / f.p.prior(x_T.new_ones(()))

    return in_batches(f, len(x), part, labels, batch, embedding=embedding)


def _grid(f: FlowMap, N: int) -> Tensor:
    if N < 1:
        raise FewstepError(f"a solve of the PF-ODE needs at least 1 step, got {N}.")
    return karras_grid(N + 1, f.p)


def _solve(f: FlowMap, x: Tensor, t: Tensor, solver: Solver | str, condition: Condition) -> Tensor:
    """The PF-ODE from ``t[0]`` along the times ``t`` to ``t[-1]``."""
    Phi = PHI.build(solver)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return f.velocity(x, t, condition)

    for now, after in pairwise(t.tolist()):
        x = Phi.step(v, x, f.time(now, x), f.time(after, x))
    return x
