"""What turns noise into images.

Every sample has a noise stream of its own, which depends on the seed and the sample's index
alone: a sample is the same whatever batch, process or device it is made on (to the rounding of
the network's arithmetic), and two models sampled with one seed start from the same noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.parameterization import Parameterization
from fewstep.schedules import karras_grid
from fewstep.solvers import SOLVERS, Solver


class NoiseStreams:
    """Independent standard normal streams, one per sample.

    Args:
        seed: the user's seed.
        indices: which samples; sample ``i`` of a seed always has the same stream.
        shape: shape of one sample.
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...]) -> None:
        if seed < 0:
            raise FewstepError(f"a seed is a whole number >= 0, got {seed}.")
        self.shape = shape
        self._generators = [_generator(seed, i) for i in indices]
        self._rows = len(self._generators)

    @classmethod
    def join(cls, parts: Sequence[NoiseStreams], rows: int | None = None) -> NoiseStreams:
        """The streams of several, such as of different seeds, side by side.

        Args:
            parts: at least one, all of one shape.
            rows: with more rows than streams the last ones are zeros: a batch of a fixed size.
        """
        joined = cls(0, (), parts[0].shape)
        joined._generators = [generator for part in parts for generator in part._generators]
        joined._rows = max(rows or 0, len(joined._generators))
        return joined

    def normal(self, device: torch.device | str = "cpu") -> Tensor:
        """The next draw of every stream: [B, *shape]. Drawn on the CPU, so the same anywhere."""
        z = torch.zeros(self._rows, *self.shape)
        for row, generator in zip(z, self._generators, strict=False):
            row.normal_(generator=generator)
        return z.to(device, non_blocking=True)


def _generator(seed: int, index: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class Sampler(ABC):
    """From noise at time ``T`` to images."""

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Network evaluations per sample."""

    @abstractmethod
    def steps(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        """What stands after each step, one row per stream of ``noise``: [B, *shape].

        The last are the images, about [-1, 1], not clipped.
        """

    def __call__(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Tensor:
        """One image per stream of ``noise``: [B, *shape], about [-1, 1], not clipped."""
        (x,) = deque(self.steps(f, noise, **condition), maxlen=1)
        return x


@dataclass(frozen=True)
class Multistep(Sampler):
    """``x <- f(x_T, T)``; then for each ``tau``: noise up to ``tau``, and ``x <- f(x_tau, tau)``.

    Multistep consistency sampling, Song et al. 2023, Algorithm 1; without ``taus`` it is the
    one-step sampler.

    Args:
        taus: decreasing times between ``T`` and ``eps``.
    """

    taus: tuple[float, ...] = ()

    @property
    def nfe(self) -> int:
        return 1 + len(self.taus)

    def steps(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        p = f.p
        check_taus(self.taus, p)
        x = f(p.prior(noise.normal(f.device)), p.T, **condition)
        yield x
        eps = f.time(p.eps, x)
        for tau in self.taus:
            t = f.time(tau, x)
            x = f(p.renoise(x, eps, t, noise.normal(f.device)), t, **condition)
            yield x


def check_taus(taus: Sequence[float], p: Parameterization) -> None:
    """Raise `FewstepError` unless ``T > taus[0] > taus[1] > ... > eps``."""
    times = [p.T, *taus, p.eps]
    if any(not later < earlier for earlier, later in pairwise(times)):
        raise FewstepError(
            f"time points must decrease between T={p.T:g} and eps={p.eps:g}, got "
            f"{', '.join(f'{tau:g}' for tau in taus)}."
        )


@dataclass(frozen=True)
class ODE(Sampler):
    """Solve the PF-ODE of a diffusion model from ``T`` to 0 on Karras' grid.

    ``N`` grid points from ``T`` to ``eps`` and a last Euler step to 0, where the velocity is not
    defined (Karras et al. 2022, Algorithm 1). With Heun that is ``2 N - 1`` evaluations.

    Args:
        N: grid points, which is also the number of steps.
        solver: a one-step solver or its spec.
        rho: how much the grid favours small times.
    """

    N: int = 18
    solver: Solver | str = "heun"
    rho: float = 7.0
    _solver: Solver = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.N < 1:
            raise FewstepError(f"an ODE sampler needs at least 1 step, got {self.N}.")
        object.__setattr__(self, "_solver", SOLVERS.build(self.solver))

    @property
    def nfe(self) -> int:
        return (self.N - 1) * self._solver.evaluations + 1

    def steps(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        x = f.p.prior(noise.normal(f.device))
        if self.N == 1:
            yield f.D(x, f.p.T, **condition)
            return
        t = karras_grid(self.N, f.p, self.rho).flip(0).tolist()

        def v(x: Tensor, t: Tensor) -> Tensor:
            return f.velocity(x, t, **condition)

        for now, after in pairwise(t):
            x = self._solver.step(v, x, f.time(now, x), f.time(after, x))
            yield x
        yield f.D(x, t[-1], **condition)  # in every process the Euler step to 0 is the denoiser


def default_taus(f: FlowMap, steps: int) -> tuple[float, ...]:
    """Time points for ``steps`` network evaluations of a consistency model.

    Those stored with the model where it has some for this number of steps; else the interior
    points of Karras' grid with ``steps + 1`` points.
    """
    stored = f.info.get("taus", {}).get(str(steps))
    if stored is not None:
        return tuple(stored)
    return tuple(karras_grid(steps + 1, f.p).flip(0)[1:-1].tolist())


def sampler_for(
    f: FlowMap, steps: int, *, taus: Sequence[float] | None = None, solver: Solver | str = "heun"
) -> Sampler:
    """The sampler that suits a model: `Multistep` for consistency models, else `ODE`."""
    if steps < 1:
        raise FewstepError(f"sampling needs at least 1 step, got steps={steps}.")
    if f.info.get("kind") == "diffusion":
        if taus is not None:
            raise FewstepError("time points are for consistency models; this is a diffusion model.")
        return ODE(steps, solver)
    if taus is not None and len(taus) != steps - 1:
        raise FewstepError(f"{steps} steps take {steps - 1} time points, got {len(taus)}.")
    return Multistep(tuple(taus) if taus is not None else default_taus(f, steps))


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
    """
    f.eval()
    for start in range(0, len(indices), batch):
        part = slice(start, start + batch)
        condition = {} if labels is None else {"label": labels[part].to(f.device)}
        with torch.inference_mode():
            x = sampler(f, NoiseStreams(seed, indices[part], f.shape), **condition)
        yield x.cpu()


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
        sampler: default one step for consistency models, Heun with 18 steps for diffusion.
        seed: the samples depend on it alone (and on the labels).
        labels: class of each sample [n]; default all classes in turn.
        batch: how many at once; a matter of memory and speed only.
        indices: make only these of the ``n``, such as one process's share.
        progress: called with the number of samples that each batch added.
    """
    labels = check_labels(f, labels, n)
    if sampler is None:
        sampler = sampler_for(f, 18 if f.info.get("kind") == "diffusion" else 1)
    if batch < 1:
        raise FewstepError(f"the batch must hold at least 1 sample, got {batch}.")
    if indices is None:
        indices = range(n)
    elif labels is not None:
        labels = labels[list(indices)]
    parts = [torch.empty(0, *f.shape)]
    for x in sample_batches(f, indices, sampler, seed=seed, labels=labels, batch=batch):
        parts.append(x.clamp(-1, 1))
        if progress:
            progress(len(x))
    return torch.cat(parts)
