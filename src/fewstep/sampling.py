"""What turns noise into images.

Every sample has a noise stream of its own, which depends on the seed and the sample's index
alone: a sample is the same whatever batch, process or device it is made on (to the rounding of
the network's arithmetic), and two models sampled with one seed start from the same noise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import Autoencoder
from fewstep.parameterization import Parameterization
from fewstep.schedules import TIME_GRIDS, TimeGrid, karras_grid, nested_times
from fewstep.solvers import SAMPLERS, Denoiser, Integrator, ddim_step, default_grid, start_with_snr


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
    def states(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        """What stands after each step, in the space of the model: [B, *f.shape]."""

    def steps(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        """What stands after each step, one row per stream of ``noise``: [B, *f.image_shape].

        The last are the images, about [-1, 1], not clipped. States of a latent space are decoded.
        """
        return (f.image(x) for x in self.states(f, noise, **condition))

    def __call__(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Tensor:
        """One image per stream of ``noise``: [B, *f.image_shape], about [-1, 1], not clipped."""
        (x,) = deque(self.states(f, noise, **condition), maxlen=1)
        return f.image(x)


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

    def states(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
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
class Walk(Sampler):
    """From ``T`` to the data in the steps of a solver: the sampler of a diffusion model.

    Solvers that end at 0 walk ``N`` times from ``T`` to ``t_min`` and then a last step to 0, where
    the velocity is not defined and the Euler step is the denoiser (Karras et al. 2022,
    Algorithm 1): with Heun ``2 N - 1`` evaluations. The others end at ``t_min``, after ``N``
    steps.

    Args:
        N: number of steps. Adaptive solvers pay no heed to it.
        solver: a solver or its spec; see `fewstep.solvers.SAMPLERS`.
        grid: a grid of times or its spec; default that of the solver's paper.
        budget: network evaluations to spend exactly, instead of ``N``.
        clip: clip the denoised ``D`` of every evaluation to [-1, 1]; see `Denoiser`.

    Raises:
        FewstepError: no steps, an unknown solver or grid, or a budget that the solver cannot
            spend exactly.
    """

    N: int = 18
    solver: Integrator | str = "heun"
    grid: TimeGrid | str | None = None
    budget: int | None = None
    clip: bool = False
    _solver: Integrator = field(init=False, repr=False, compare=False)
    _spend: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _measured: deque[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        solver = SAMPLERS.build(self.solver)
        if self.grid is not None:
            TIME_GRIDS.build(self.grid)
        if solver.adaptive:
            spend: tuple[int, ...] = ()
        else:
            spend = solver.evaluations(self.N) if self.budget is None else solver.split(self.budget)
        object.__setattr__(self, "_solver", solver)
        object.__setattr__(self, "_spend", spend)
        object.__setattr__(self, "_measured", deque(maxlen=1))

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps, so that `nfe` is measured."""
        return self._solver.adaptive

    @property
    def deterministic(self) -> bool:
        """Whether the noise at ``T`` decides the sample, after known steps."""
        return self._solver.convergence is not None and not self.adaptive

    @property
    def nfe(self) -> int:
        """Network evaluations per sample; of an adaptive solver the mean of its last batch.

        Raises:
            FewstepError: of an adaptive solver that has not sampled yet.
        """
        if not self.adaptive:
            return sum(self._spend)
        if not self._measured:
            raise FewstepError("an adaptive solver knows its evaluations only after sampling.")
        return round(self._measured[0])

    def times(self, p: Parameterization) -> list[float]:
        """The decreasing times of the walk, in a process."""
        grid = TIME_GRIDS.build(self.grid or default_grid(self._solver, p))
        start = start_with_snr(p) if self._solver.needs_snr or grid.needs_snr else p.T
        zero = [0.0] * self._solver.to_zero
        points = len(self._spend) + (not zero)
        if self.adaptive:
            return [start, p.t_min, *zero]
        if points == 1:
            return [start, *zero]
        return [*grid(points, p, start).tolist(), *zero]

    def states(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        model = Denoiser(f.p, lambda x, t: f.D(x, t, **condition), clip=self.clip)
        t = self.times(f.p)
        z = noise.normal(f.device)
        x = f.p.prior(z) if t[0] == f.p.T else f.p.sigma(f.time(t[0], z))[0] * z
        yield from self._solver.walk(model, x, t, self._spend, lambda: noise.normal(f.device))
        self._measured.append(model.spent)


@dataclass(frozen=True)
class ODE(Walk):
    """A `Walk` along the PF-ODE: a solver that draws no noise on the way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._solver.convergence is None:
            raise FewstepError(f"{self.solver} solves no ODE, it draws noise: use Walk.")


@dataclass(frozen=True)
class NestedDDIM(Sampler):
    """``N`` DDIM steps on the grid of a model that was distilled for just these steps.

    The grid is `fewstep.schedules.nested_times`; Salimans & Ho 2022, Algorithm 2.
    """

    N: int
    deterministic: ClassVar[bool] = True

    @property
    def nfe(self) -> int:
        return self.N

    def times(self, p: Parameterization) -> list[float]:
        """``T`` and the time that each step reaches."""
        return nested_times(self.N, p).tolist()

    def states(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        x = f.p.prior(noise.normal(f.device))
        for now, after in pairwise(self.times(f.p)):
            t, s = f.time(now, x), f.time(after, x)
            x = ddim_step(x, f.D(x, t, **condition), t, s, f.p)
            yield x


@dataclass(frozen=True)
class Prior(Sampler):
    """``g(z)`` of ``z ~ N(0, I)``: what an autoencoder by itself makes of noise.

    Kingma & Welling 2014. The latent is the first numbers of the sample's noise.
    """

    @property
    def nfe(self) -> int:
        return 1

    def states(self, f: FlowMap, noise: NoiseStreams, **condition: Any) -> Iterator[Tensor]:
        autoencoder = cast("Autoencoder", f.F)
        d = math.prod(autoencoder.latent_shape)
        z = noise.normal(f.device).flatten(1)[:, :d].unflatten(1, autoencoder.latent_shape)
        yield autoencoder.decode(z)


def only_steps(f: FlowMap) -> int | None:
    """The number of steps that a model was distilled for; None where every number will do."""
    return f.info.get("sampling_steps")


def default_steps(f: FlowMap) -> int:
    """Steps where none are asked for."""
    return only_steps(f) or (18 if f.info.get("kind") == "diffusion" else 1)


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
    f: FlowMap,
    steps: int | None = None,
    *,
    taus: Sequence[float] | None = None,
    solver: Integrator | str = "heun",
    nfe: int | None = None,
    grid: TimeGrid | str | None = None,
    clip: bool = False,
) -> Sampler:
    """The sampler that suits a model: `Multistep` for consistency models, else `Walk`.

    Args:
        f: the model.
        steps: evaluations of a consistency model (default 1), solver steps of a diffusion model
            (default 18); a model that was distilled for one number of steps has that alone.
        taus: time points of a consistency model.
        solver, grid: of a diffusion model; see `Walk`.
        nfe: network evaluations to spend exactly, instead of ``steps``.
        clip: of a diffusion model; see `Walk`.

    Raises:
        FewstepError: both or fewer than one of them, what the model has no use for, or an
            ``nfe`` that the solver cannot spend; steps or time points that a distilled model does
            not have.
    """
    if steps is not None and nfe is not None:
        raise FewstepError("give the number of steps or of network evaluations, not both.")
    count = steps if nfe is None else nfe
    if count is not None and count < 1:
        what = "step, got steps" if nfe is None else "network evaluation, got nfe"
        raise FewstepError(f"sampling needs at least 1 {what}={count}.")
    only = only_steps(f)
    if only is not None and (count not in (None, only) or taus):
        raise FewstepError(
            f"this model was distilled for {only} step{'s' * (only > 1)} and knows no others: "
            f"sample it with steps={only} and without time points."
        )
    if f.info.get("kind") == "diffusion":
        if taus is not None:
            raise FewstepError("time points are for consistency models; this is a diffusion model.")
        if only is not None:
            if clip:
                raise FewstepError("this model was distilled for one sampler: it takes no clip.")
            return NestedDDIM(only)
        if clip and f.latents is not None:
            raise FewstepError("clip is for pixels; this model works on an autoencoder's latents.")
        walk = Walk(steps or 18, solver, grid, nfe, clip)
        if count is not None and SAMPLERS.build(solver).adaptive:
            raise FewstepError(f"{solver} chooses its own steps: set rtol and atol instead.")
        return walk
    if clip:
        raise FewstepError(
            "clip is for the solvers of diffusion models; this model solves nothing."
        )
    if f.info.get("kind") == "autoencoder":
        if taus or count not in (None, 1):
            raise FewstepError("an autoencoder makes its samples in 1 step and has no others.")
        return Prior()
    steps = count if count is not None else len(taus or ()) + 1
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
        sampler: default that of `sampler_for`.
        seed: the samples depend on it alone (and on the labels).
        labels: class of each sample [n]; default all classes in turn.
        batch: how many at once; a matter of memory and speed only.
        indices: make only these of the ``n``, such as one process's share.
        progress: called with the number of samples that each batch added.
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
