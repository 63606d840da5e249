"""Samplers of models that know one way to be sampled: nested DDIM steps, an autoencoder's prior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

from torch import Tensor

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization, per_row
from fewstep.sampling.model import Model
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.sampler import SAMPLERS, Sampler, checked_count
from fewstep.schedules import nested_times
from fewstep.solvers import ddim_step
from fewstep.trained import Trained


@SAMPLERS.register("nested_ddim")
@dataclass(frozen=True)
class NestedDDIM(Sampler):
    """``N`` DDIM steps on the grid of a model that was distilled for just these steps.

    The grid is `fewstep.schedules.nested_times`; Salimans & Ho 2022, Algorithm 2.

    Args:
        N: number of steps; default that of the model.
        uniform: take even steps of the process's time to 0, in any process.
    """

    citation = "salimans2022progressive"

    N: int | None = None
    uniform: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "N", checked_count(self.N, "steps"))

    @property
    def nfe(self) -> int:
        """Network evaluations per sample: one in each step.

        Raises:
            FewstepError: a sampler that has not met the model that decides the number of steps.
        """
        if self.N is None:
            raise FewstepError("nested_ddim takes the steps of its model: give steps, or sample.")
        return self.N

    @property
    def least(self) -> int:
        return self.N or 1

    @property
    def deterministic(self) -> bool:
        return True

    def check(self, trained: Trained) -> None:
        trained.check_nested(self.nfe)

    def fitted(self, f: Model) -> NestedDDIM:
        f.trained.check_nested(self.N or f.trained.steps or 1)
        own = self if self.N is not None else replace(self, N=f.trained.steps)
        own.check(f.trained)
        return own

    def times(self, p: Parameterization) -> list[float]:
        """``T`` and the time that each step reaches."""
        return nested_times(self.nfe, p, uniform=self.uniform).tolist()

    def reached(self, p: Parameterization) -> list[float]:
        return self.times(p)[1:]

    def states(
        self, f: Model, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        x = f.p.prior(noise.normal(f.device, f.x_dtype))
        for now, after in pairwise(self.fitted(f).times(f.p)):
            t, s = per_row(now, x), per_row(after, x)
            x = ddim_step(x, f.D(x, t, condition), t, s, f.p)
            yield x


@SAMPLERS.register("prior")
@dataclass(frozen=True)
class Prior(Sampler):
    """``g(z)`` of ``z ~ N(0, I)``: what an autoencoder by itself makes of noise.

    Kingma & Welling 2014. The latent is the first numbers of the sample's noise.
    """

    citation = "kingma2014auto"

    @property
    def nfe(self) -> int:
        return 1

    @property
    def deterministic(self) -> bool:
        return True

    def check(self, trained: Trained) -> None:
        trained.check_prior()

    def states(
        self, f: Model, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        autoencoder = cast("AutoencoderModel", f)
        shape = autoencoder.latent_shape
        z = noise.normal(f.device, f.x_dtype).flatten(1)[:, : math.prod(shape)]
        yield autoencoder.decode(z.unflatten(1, shape))
