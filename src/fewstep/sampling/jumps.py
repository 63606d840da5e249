"""Jumps of a map towards the data, with new noise between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.guidance import Guided, guidance_of
from fewstep.papers import Also
from fewstep.parameterization import Parameterization, per_row
from fewstep.sampling.model import Model
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.sampler import SAMPLERS, Sampler, checked_count
from fewstep.schedules import TIME_GRIDS, power_grid
from fewstep.solvers import start_with_snr
from fewstep.trained import Trained

Restore = Callable[[Tensor], Tensor]
"""Puts back what is known of an image, after each jump: [B, ...]."""


@SAMPLERS.register("jumps")
@dataclass(frozen=True)
class Jumps(Sampler):
    """Jumps of a map from ``T`` to the data, with the share ``gamma`` of new noise between them.

        x <- X(x_T, T, s_1);  for n = 1, 2, ...:  x ~ p(x_{t_n} | x_{s_n}),  x <- X(x, t_n, s_{n+1})

    with the times ``t_1 > t_2 > ...``. The jump towards ``t_n`` ends below it, at the ``s_n`` whose
    noise level ``sigma/alpha`` is ``sqrt(1 - gamma^2)`` times that of ``t_n`` (`landing`), and the
    forward process leads back up: the noise of ``x_{t_n}`` is then new by the share ``gamma^2`` of
    its variance. The last jump ends at ``eps``. In EDM's time these are ``s_n = sqrt(1 - gamma^2)
    t_n`` and ``x_{t_n} = x + gamma t_n z``: gamma-sampling of CTM (Kim et al. 2023). ``gamma = 1``
    is multistep consistency sampling (Song et al. 2023, Algorithm 1), where every jump ends at
    ``eps``; ``gamma = 0`` adds no noise, and the map goes from each time to the next.

    Args:
        gamma: share of new noise, from 0 to 1. Below 1 the jumps end between ``T`` and ``eps``,
            which a consistency model has not learned.
        N: jumps, at times of the model's own (`default_taus`); default one more than ``times``.
        times: decreasing times between ``T`` and ``eps``.
        guidance: weight of a map that takes one as an input, or its spec, which may have an
            interval where the map takes that, too; default the map's own weight, everywhere.
        clip: clip the image after every jump to [-1, 1], as the code of Song et al. 2023 does.

    Raises:
        FewstepError: a share out of range, or numbers that contradict each other.
    """

    citation = "song2023consistency"
    also_cites = (Also("gamma", "kim2023consistency", lambda gamma: 0 < gamma < 1),)

    gamma: float = 1.0
    N: int | None = None
    times: tuple[float, ...] = ()
    guidance: Guided | float | str | None = None
    clip: bool = False

    def __post_init__(self) -> None:
        gamma, times = _numbers(self.gamma, self.times)
        if not 0 <= gamma <= 1:
            raise FewstepError(f"jumps need gamma from 0 to 1, got {gamma:g}.")
        N = checked_count(self.N, "steps")
        if N is not None and times and len(times) != N - 1:
            raise FewstepError(f"{N} steps take {N - 1} time points, got {len(times)}.")
        if self.guidance is not None:
            object.__setattr__(self, "guidance", guidance_of(self.guidance))
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "N", None if times else N)

    @property
    def nfe(self) -> int:
        return self.N or 1 + len(self.times)

    @property
    def deterministic(self) -> bool:
        return self.gamma == 0 or self.nfe == 1

    def reached(self, p: Parameterization) -> list[float]:
        return [*(landing(p, t, self.gamma) for t in self.times), p.eps]

    def check(self, trained: Trained) -> None:
        trained.check_jumps(self.nfe, self.gamma if self.nfe > 1 else 1.0, self.times)

    def fitted(self, f: Model) -> Jumps:
        self.check(f.trained)
        if self.clip and f.latents is not None:
            raise FewstepError("clip is for pixels; this model works on an autoencoder's latents.")
        if self.clip and self.gamma < 1:
            raise FewstepError("clip is for jumps that end at images: it needs gamma=1.")
        if isinstance(self.guidance, Guided):
            self.guidance.check_input(f.trained)
        own = self if self.N is None else replace(self, N=None, times=default_taus(f, self.N))
        check_taus(own.times, f.p)
        own.check(f.trained)
        return own

    def states(
        self, f: Model, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        own, p = self.fitted(f), f.p
        x = p.prior(noise.normal(f.device, f.x_dtype))
        if isinstance(own.guidance, Guided) and f.trained.weights is not None:
            condition = own.guidance.as_input(condition, x)
        restore = _clipped if own.clip else _as_it_is
        return along(f, x, (p.T, *own.times), noise, condition, gamma=own.gamma, restore=restore)


def _numbers(gamma: float, times: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """Both as Python's numbers, of whatever kind of number or array they are."""
    try:
        return float(gamma), tuple(map(float, times))
    except (TypeError, ValueError):
        raise FewstepError(
            f"jumps take a number gamma and a list of times, got {gamma!r:.40} and {times!r:.40}."
        ) from None


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _clipped(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def Multistep(taus: Sequence[float] = ()) -> Jumps:
    """``x <- f(x_T, T)``; then for each ``tau``: noise up to ``tau``, and ``x <- f(x_tau, tau)``.

    Multistep consistency sampling, Song et al. 2023, Algorithm 1: `Jumps` with ``gamma = 1``.
    Without ``taus`` it is the one-step sampler.

    Args:
        taus: decreasing times between ``T`` and ``eps``.
    """
    return Jumps(times=taus)  # type: ignore[arg-type]


def along(
    f: Model,
    x: Tensor,
    times: Sequence[float],
    noise: NoiseStreams,
    condition: Condition = NONE,
    *,
    gamma: float = 1.0,
    restore: Restore = _as_it_is,
) -> Iterator[Tensor]:
    """What stands after each of the jumps from ``x`` at ``times[0]`` to ``eps``: [B, ...].

    The one formula of multistep sampling, of `Jumps` and of editing, which restores after each
    jump what it knows; see `Jumps`.
    """
    p = f.p
    for now, after in zip(times, (*times[1:], None), strict=True):
        s = p.eps if after is None else landing(p, after, gamma)
        x = restore(f(x, now, s, condition))
        yield x
        if after is not None and s < after:
            z = noise.normal(f.device, x.dtype)
            x = p.renoise(x, per_row(s, x), per_row(after, x), z)


def landing(p: Parameterization, t: float, gamma: float) -> float:
    """Where a jump towards ``t`` ends, for a share ``gamma`` of new noise at ``t``.

    The ``s`` with ``sigma_s / alpha_s = sqrt(1 - gamma^2) sigma_t / alpha_t``, at least ``eps``.
    """
    if gamma in (0, 1):
        return p.eps if gamma else t
    log_snr = p.log_snr(torch.tensor(t, dtype=torch.float64)) - math.log1p(-(gamma**2)) / 2
    return min(t, max(p.eps, float(p.time_of_log_snr(log_snr))))


def check_taus(taus: Sequence[float], p: Parameterization) -> None:
    """Raise `FewstepError` unless ``T > taus[0] > taus[1] > ... > eps``."""
    times = [p.T, *taus, p.eps]
    if any(not later < earlier for earlier, later in pairwise(times)):
        raise FewstepError(
            f"time points must decrease between T={p.T:g} and eps={p.eps:g}, got "
            f"{', '.join(f'{tau:g}' for tau in taus)}."
        )


def default_taus(f: Model, steps: int) -> tuple[float, ...]:
    """Time points for ``steps`` jumps of a model.

    Those stored with the model where it has some for this number of steps; those that it has
    learned to start at, where these are just as many. Else the interior points of the process's own
    grid: Karras' noise levels in EDM's time, even times of trigflow and where the flow is straight;
    of a consistency model that starts later than the data, those from there on.
    """
    stored = f.trained.taus.get(str(steps))
    if stored is not None:
        return tuple(stored)
    if not isinstance(starts := f.trained.starts, str):
        inner = sorted((t for t in starts if f.p.eps < t < f.p.T), reverse=True)
        if len(inner) == steps - 1:
            return tuple(inner)
    if steps == 1:
        return ()
    if f.trained.maps_to_any or f.trained.earliest is None:
        return _own_grid(f.p, steps)
    return tuple(power_grid(steps, f.trained.earliest, f.p.T, 7.0)[:-1].flip(0).tolist())


def _own_grid(p: Parameterization, steps: int) -> tuple[float, ...]:
    """The points inside the grid of so many steps on which solvers walk in a process."""
    grid = TIME_GRIDS.build(p.grid)
    start = start_with_snr(p) if grid.needs_snr else p.T
    points = steps if grid.to_zero else steps + 1  # one to 0 has it as a further point
    return tuple(grid(points, p, start).tolist()[1:steps])
