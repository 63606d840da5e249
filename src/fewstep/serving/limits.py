"""What a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.errors import FewstepError
from fewstep.sampling import Asked, Sampler

COSTLY = 4  # network evaluations of a solver's step at most, as rk4 has them


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Args:
        n: images.
        steps: network evaluations of each, or solver steps.
        body: bytes of a request.
        pixels: of an uploaded picture, and of all pictures of an answer together.
        parts: images of the model's size that an edit cuts its pictures into.
        seconds: from the request to the answer.
    """

    n: int = 64
    steps: int = 64
    body: int = 20_000_000
    pixels: int = 16_777_216
    parts: int = 1024
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise FewstepError(f"the limit {name} must be above 0, got {value:g}.")

    def check(self, n: int, steps: int | None) -> None:
        """Raise `FewstepError` for too many images or steps."""
        if n > self.n:
            raise FewstepError(f"n={n}: this server makes at most {self.n} images per request.")
        if steps is not None and steps > self.steps:
            raise FewstepError(f"steps={steps}: this server takes at most {self.steps} steps.")

    def check_asked(self, asked: Asked) -> None:
        """Raise `FewstepError` for what says itself that it takes too many evaluations.

        To fit such a sampler to a model may take as long as its steps: this comes before.
        """
        self._check_nfe(asked.least, asked.spec)

    def check_sampler(self, sampler: Sampler) -> None:
        """Raise `FewstepError` for too many steps or evaluations, or for an unknown number."""
        self.check(1, sampler.count)
        self._check_nfe(sampler.nfe, sampler.spec)

    def _check_nfe(self, nfe: int, spec: str | None) -> None:
        if nfe > COSTLY * self.steps:
            raise FewstepError(
                f"{spec or 'the sampler'} takes {nfe} network evaluations: this server takes at "
                f"most {COSTLY * self.steps}."
            )
