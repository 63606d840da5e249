"""What every sampler is: from noise at time ``T`` to images, in a known number of evaluations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeVar

from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.papers import Cited
from fewstep.parameterization import Parameterization
from fewstep.registry import Registry, spec_of
from fewstep.sampling.model import Model
from fewstep.sampling.noise import NoiseStreams
from fewstep.trained import Trained
from fewstep.whole import whole

MOST = 100_000  # steps: more are a slip of the pen, and their times would fill the memory

S = TypeVar("S", bound="Sampler")


class Sampler(Cited, ABC):
    """From noise at time ``T`` to images."""

    spelled: ClassVar[Mapping[str, str]] = {"N": "steps"}
    """How a spec spells an argument; see `fewstep.registry.parameters`."""

    @property
    def spec(self) -> str:
        """The text that `SAMPLERS` builds an equal sampler from."""
        return spec_of(self)

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Network evaluations per sample."""

    @property
    def count(self) -> int:
        """Steps of a sample, after each of which `steps` gives what stands.

        Raises:
            FewstepError: of a sampler that chooses its own.
        """
        return self.nfe

    @property
    def least(self) -> int:
        """Network evaluations that it takes at least, which are known before it meets a model."""
        return self.nfe

    @property
    def deterministic(self) -> bool:
        """Whether the noise at ``T`` decides the sample, after known steps."""
        return False

    def reached(self, p: Parameterization) -> list[float]:
        """The time that each step of a deterministic sampler reaches.

        Raises:
            FewstepError: a sampler without such times.
        """
        raise FewstepError(f"the sampler {self.spec} has no times of its own.")

    @abstractmethod
    def check(self, trained: Trained) -> None:
        """Raise `FewstepError` where a model was trained for something else."""

    def fitted(self: S, f: Model) -> S:
        """This sampler with what the model decides filled in, such as its time points.

        Raises:
            FewstepError: the model does not admit it.
        """
        self.check(f.trained)
        return self

    @abstractmethod
    def states(
        self, f: Model, noise: NoiseStreams, condition: Condition = NONE
    ) -> Iterator[Tensor]:
        """What stands after each step, in the space of the model: [B, *f.shape]."""

    def steps(self, f: Model, noise: NoiseStreams, condition: Condition = NONE) -> Iterator[Tensor]:
        """What stands after each step, one row per stream of ``noise``: [B, *f.image_shape].

        The last are the images, about [-1, 1], not clipped. States of a latent space are decoded.
        """
        own = self.fitted(f)
        return (f.image(x) for x in own.states(f, noise, condition))

    def __call__(self, f: Model, noise: NoiseStreams, condition: Condition = NONE) -> Tensor:
        """One image per stream of ``noise``: [B, *f.image_shape], about [-1, 1], not clipped."""
        (x,) = deque(self.fitted(f).states(f, noise, condition), maxlen=1)
        return f.image(x)


SAMPLERS: Registry[Sampler] = Registry("sampler")
"""What turns noise into images, by name."""


def checked_count(count: int | None, what: str) -> int | None:
    """A number of steps or of network evaluations, or None.

    Raises:
        FewstepError: no whole number, fewer than 1, or more than `MOST`.
    """
    if count is None:
        return None
    count = whole(count, what)
    if count < 1:
        one = "step, got steps" if what == "steps" else "network evaluation, got nfe"
        raise FewstepError(f"sampling needs at least 1 {one}={count}.")
    if count > MOST:
        raise FewstepError(f"sampling takes at most {MOST} steps, got {count}.")
    return count
