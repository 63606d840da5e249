"""The fields of a record, and the questions that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fewstep.errors import FewstepError, unknown
from fewstep.trained.values import (
    ENDS,
    check_starts,
    checked_names,
    checked_taus,
    is_count,
    is_range,
    is_weight,
)

SOLVER_STEPS = 18  # of a diffusion model, where none are asked for
_KINDS = {"denoiser": "diffusion", "eps": "consistency", "any": "flow_map", "image": "autoencoder"}
_NAMES = {
    None: "a map of which nobody said what it was trained for",
    "diffusion": "a diffusion model",
    "consistency": "a consistency model",
    "generator": "a generator, which starts from T alone",
    "flow_map": "a flow map",
    "autoencoder": "an autoencoder",
}


@dataclass(frozen=True)
class Record:
    """What a model can do.

    Args:
        starts: the times that it may be evaluated at: "any"; "T" alone; "steps", those of its
            sampler with its one number of ``steps``; a list of times; or "prior", the latent of
            an autoencoder.
        ends: what its evaluation means: the "denoiser" ``E[x_0 | x_t]`` alone, the map to "eps"
            alone, the map to "any" time ``s <= t``, or the "image" of an autoencoder's latent.
            None where nobody has said.
        sampler: spec of its sampler where none is asked for.
        steps: the one number of steps that it was distilled for; None where every number will do.
        taus: good time points by the number of steps, such as ``{"2": (0.8,)}``.
        classes: names of its classes.
        step: training steps that it has made; None where nobody counted.
        null_class: whether it was trained with its class left out now and then, for guidance.
        guidance: guidance weight where none is asked for; None is no guidance.
        weights: lowest and highest of the guidance weights that its network takes as an input;
            None where it takes none.
        around: noise level ``sigma / alpha`` inside every interval of guidance that its network
            takes as an input; None where it takes none.
        earliest: the earliest time that it has learned to start at, where that is not the end of
            the map; None where it is.

    Raises:
        FewstepError: a value that means nothing, or that contradicts another.
    """

    starts: str | tuple[float, ...] = "any"
    ends: str | None = None
    sampler: str | None = None
    steps: int | None = None
    taus: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    step: int | None = None
    null_class: bool = False
    guidance: float | None = None
    weights: tuple[float, float] | None = None
    around: float | None = None
    earliest: float | None = None

    def __post_init__(self) -> None:
        check_starts(self.starts)
        if self.ends is not None and self.ends not in ENDS:
            raise unknown("end of a map, trained.ends", str(self.ends), ENDS)
        if (self.starts == "prior") != (self.ends == "image"):
            raise FewstepError(
                "trained.starts is prior where trained.ends is image, of an autoencoder, alone"
            )
        for name, least in (("steps", 1), ("step", 0)):
            if not is_count(value := getattr(self, name), least):
                raise FewstepError(f"trained.{name} must be a number of steps, got {value!r:.60}")
        if self.starts == "steps" and self.steps is None:
            raise FewstepError("trained.starts is steps, and trained.steps says no number")
        if self.guidance is not None and not is_weight(self.guidance):
            raise FewstepError(f"trained.guidance must be a weight, got {self.guidance!r:.60}")
        if self.weights is not None and not is_range(self.weights):
            raise FewstepError(
                f"trained.weights must be a lowest and a highest weight, got {self.weights!r:.60}"
            )
        if self.around is not None and not (self.weights is not None and is_weight(self.around)):
            raise FewstepError(
                "trained.around must be a noise level, of a model with trained.weights, got "
                f"{self.around!r:.60}"
            )
        if self.earliest is not None and not is_weight(self.earliest):
            raise FewstepError(f"trained.earliest must be a time, got {self.earliest!r:.60}")
        object.__setattr__(self, "taus", checked_taus(self.taus))
        object.__setattr__(self, "classes", checked_names(self.classes))

    # Questions

    @property
    def known(self) -> bool:
        """Whether anybody said what it was trained for."""
        return self.ends is not None

    @property
    def denoises(self) -> bool:
        """Whether its denoiser, and so its velocity and score, mean something."""
        return self.ends in ("denoiser", "any")

    @property
    def maps_to_eps(self) -> bool:
        """Whether ``f(x, t)``, the map to ``eps``, means something."""
        return self.ends in ("eps", "any")

    @property
    def maps_to_any(self) -> bool:
        """Whether ``f(x, t, s)`` means something for every ``s <= t``."""
        return self.ends == "any"

    @property
    def from_any_time(self) -> bool:
        """Whether it may start at every time."""
        return self.starts == "any" and self.earliest is None

    @property
    def decodes(self) -> bool:
        """Whether it is an autoencoder: no map along the PF-ODE, but one from latents to images."""
        return self.ends == "image"

    @property
    def solves(self) -> bool:
        """Whether it is sampled by a solver of the PF-ODE, in many steps."""
        return self.denoises and not self.maps_to_eps and self.steps is None

    @property
    def guides(self) -> bool:
        """Whether a guidance weight means something to its own sampler."""
        return self.weights is not None or (self.null_class and self.solves)

    @property
    def kind(self) -> str | None:
        """One word for people: diffusion, consistency, generator, flow_map or autoencoder."""
        if self.ends == "eps" and self.starts == "T":
            return "generator"
        return None if self.ends is None else _KINDS[self.ends]

    @property
    def name(self) -> str:
        """What it is, for a sentence: "a diffusion model"."""
        if self.steps is not None and self.denoises:
            return f"a model that was distilled for {in_steps(self.steps)} alone"
        late = "" if self.earliest is None else f" of times from {self.earliest:g} on"
        return _NAMES[self.kind] + late

    @property
    def default_steps(self) -> int:
        """Steps of its sampler where none are asked for."""
        return self.steps or (SOLVER_STEPS if self.solves else 1)


def in_steps(n: int | None) -> str:
    """``n steps``, for a sentence."""
    return f"{n} step{'' if n == 1 else 's'}"
