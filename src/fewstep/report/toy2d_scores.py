"""How good a model of the plane's points is, where the truth is known in closed form."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.data.toy2d import MODES, points
from fewstep.errors import FewstepError
from fewstep.evaluation.sliced import sliced_wasserstein
from fewstep.flow_map import FlowMap
from fewstep.sampling import Jumps, NoiseStreams, Sampler, sampler_for
from fewstep.theory.plane import flow, nearest

STEPS = (1, 2, 4)
N = 4096
SEED = 0
MANY = 18  # Heun steps of a diffusion model, for comparison


@dataclass(frozen=True)
class Score:
    """A model with a sampler.

    Args:
        steps: of the sampler.
        nfe: evaluations of the network for each sample.
        sampler: its spec.
        distance: sliced Wasserstein distance to the density.
        modes: how many of the Gaussians have at least half of their share of the samples.
        rms, sup: root mean square and largest distance from the exact map, of a deterministic
            sampler as a whole, else of its worst jump; None where no map is known.
    """

    steps: int
    nfe: int
    sampler: str
    distance: float
    modes: int
    rms: float | None
    sup: float | None


def floor() -> float:
    """The distance between two sets of draws from the density: what a perfect model has."""
    return sliced_wasserstein(points(N, 11), points(N, 12))


def samplers_of(f: FlowMap) -> Iterator[tuple[int, Sampler]]:
    """The samplers of a model in few steps, and of a diffusion model in many, with their steps."""
    for steps in STEPS:
        with suppress(FewstepError):  # it was distilled for another number of steps
            yield steps, sampler_for(f, steps, solver="euler" if f.trained.solves else None)
    if f.trained.solves:
        yield MANY, sampler_for(f, MANY)


def samples(f: FlowMap, sampler: Sampler, n: int = N, seed: int = SEED) -> Tensor:
    """Samples [n, 2] as they are, without the limits that images have; float64."""
    noise = NoiseStreams(seed, range(n), f.shape)
    with torch.inference_mode():
        (x,) = deque(sampler.states(f, noise), maxlen=1)
    return f.image(x).double()


def targets(f: FlowMap, n: int = N, seed: int = SEED) -> Tensor | None:
    """Where the exact map takes the same noise: [n, 2]; None for noise that is not Gaussian."""
    z = NoiseStreams(seed, range(n), f.shape).normal(dtype=torch.float64)
    if not torch.allclose(f.p.prior(2 * z), 2 * f.p.prior(z)):
        return None
    T, end = (torch.full((n,), t, dtype=torch.float64) for t in (f.p.T, f.p.eps))
    return flow(f.p, f.p.prior(z), T, end)


def score(f: FlowMap, steps: int, sampler: Sampler) -> Score:
    """A model with a sampler, against the truth."""
    x = samples(f, sampler)
    counts = torch.bincount(nearest(x), minlength=MODES)
    error = _error(f, sampler, x)
    return Score(
        steps,
        sampler.nfe,
        sampler.spec,
        sliced_wasserstein(x, points(N, 11)),
        int((counts >= N / MODES / 2).sum()),
        None if error is None else float(error.square().mean().sqrt()),
        None if error is None else float(error.max()),
    )


def _error(f: FlowMap, sampler: Sampler, x: Tensor) -> Tensor | None:
    """Distances [N] from the exact map; None where it is not known."""
    exact = targets(f)
    if exact is None:
        return None
    if sampler.deterministic:
        return (x - exact).norm(dim=1)
    if not isinstance(sampler, Jumps):
        return None
    times = (f.p.T, *sampler.fitted(f).times)
    return torch.stack([_error_at(f, t) for t in times]).amax(0)


def _error_at(f: FlowMap, t: float) -> Tensor:
    """Distances [N] of the map's ends from the exact ones, of noisy data at one time."""
    z = NoiseStreams(SEED, range(N), f.shape).normal(dtype=torch.float64)
    at, end = (torch.full((N,), s, dtype=torch.float64) for s in (t, f.p.eps))
    x_t = f.p.diffuse(points(N, 11), at, z)
    with torch.inference_mode():
        found = f(x_t.float(), t, f.p.eps).double()
    return (found - flow(f.p, x_t, at, end)).norm(dim=1)
