"""What training made of a model: where it may start and end, and how it is sampled.

A map's form says what its coefficients guarantee. What its network has learned is the record
`Trained`, which the objective sets on the map that it trains and the model file stores. Every
question about it, and every refusal that follows from it, is here: no other module knows a model
by the name of its kind. A record of which nothing is known, ``Trained()``, is that of a map that
nobody has trained: it can be sampled with a sampler that is given, and with none by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fewstep.errors import FewstepError, unknown
from fewstep.records import record_of

STARTS = ("any", "T", "steps", "prior")
ENDS = ("denoiser", "eps", "any", "image")
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
class Trained:
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

    def __post_init__(self) -> None:
        _check_starts(self.starts)
        if self.ends is not None and self.ends not in ENDS:
            raise unknown("end of a map, trained.ends", str(self.ends), ENDS)
        if (self.starts == "prior") != (self.ends == "image"):
            raise FewstepError(
                "trained.starts is prior where trained.ends is image, of an autoencoder, alone"
            )
        for name, least in (("steps", 1), ("step", 0)):
            if not _is_count(value := getattr(self, name), least):
                raise FewstepError(f"trained.{name} must be a number of steps, got {value!r:.60}")
        if self.starts == "steps" and self.steps is None:
            raise FewstepError("trained.starts is steps, and trained.steps says no number")
        if self.guidance is not None and not _is_number(self.guidance):
            raise FewstepError(f"trained.guidance must be a weight, got {self.guidance!r:.60}")
        object.__setattr__(self, "taus", _checked_taus(self.taus))
        object.__setattr__(self, "classes", _checked_names(self.classes))

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
        return self.starts == "any"

    @property
    def decodes(self) -> bool:
        """Whether it is an autoencoder: no map along the PF-ODE, but one from latents to images."""
        return self.ends == "image"

    @property
    def solves(self) -> bool:
        """Whether it is sampled by a solver of the PF-ODE, in many steps."""
        return self.denoises and not self.maps_to_eps and self.steps is None

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
            return f"a model that was distilled for {_steps(self.steps)} alone"
        return _NAMES[self.kind]

    @property
    def default_steps(self) -> int:
        """Steps of its sampler where none are asked for."""
        return self.steps or (SOLVER_STEPS if self.solves else 1)

    # Changes

    def made(self, makes: Trained) -> Trained:
        """This record once an objective that ``makes`` something trains the map.

        Its classes and time points stay, and all of it where the objective says nothing.
        """
        if not makes.known:
            return replace(self, step=None)
        return replace(
            makes,
            taus=makes.taus or self.taus,
            classes=makes.classes or self.classes,
            null_class=makes.null_class or self.null_class,
            guidance=self.guidance if makes.guidance is None else makes.guidance,
        )

    def moved(self, time: Callable[[float], float]) -> Trained:
        """This record in another process, which has at ``time(t)`` the noise of time ``t``."""
        starts = self.starts if isinstance(self.starts, str) else tuple(map(time, self.starts))
        taus = {n: tuple(map(time, points)) for n, points in self.taus.items()}
        return replace(self, starts=starts, taus=taus)

    # Refusals

    def check_known(self, what: str) -> None:
        """Raise `FewstepError` where nobody said what the model was trained for."""
        if not self.known:
            raise FewstepError(
                f"{what} depends on what a map was trained for, and of this one nobody has said: "
                "train it by an objective, or set f.trained, such as fewstep.trained.CONSISTENCY."
            )

    def check_flow(self, what: str) -> None:
        """Raise `FewstepError` for an autoencoder, which is no map along the PF-ODE."""
        if self.decodes:
            raise FewstepError(f"{what} needs a model of noisy images; this is an autoencoder.")

    def check_any_time(self, what: str) -> None:
        """Raise `FewstepError` for a model that has learned the times of its sampler alone."""
        if self.from_any_time:
            return
        few = f"sampling in {_steps(self.steps)}" if self.steps else "a few times"
        raise FewstepError(
            f"{what} needs a model of all noise levels; this one was distilled for {few} alone."
        )

    def check_denoises(self, what: str, remedy: str = "") -> None:
        """Raise `FewstepError` unless the model is a denoiser at every time.

        Args:
            what: needs one, such as "a likelihood".
            remedy: what to do, as the end of a sentence.
        """
        self.check_flow(what)
        self.check_known(what)
        if not self.denoises:
            raise FewstepError(
                f"{what} needs a diffusion model, whose denoiser gives the velocity of the PF-ODE; "
                f"this is {self.name}{remedy and f': {remedy}'}."
            )
        self.check_any_time(what)

    def check_maps(self, what: str) -> None:
        """Raise `FewstepError` unless ``f(x, t)`` means something at every time ``t``.

        Args:
            what: needs it, such as "inpainting".
        """
        self.check_flow(what)
        self.check_known(what)
        self.check_any_time(what)
        if not self.maps_to_eps:
            raise FewstepError(
                f"{what} needs a consistency model; this is {self.name}, distil it first."
            )

    def check_teacher(self, what: str, *, follow: bool) -> None:
        """Raise `FewstepError` unless a student can start from the model.

        Args:
            what: is the teacher, such as "the teacher runs/edm".
            follow: whether the student follows its PF-ODE, and not only takes its weights.
        """
        if follow and self.denoises and not self.from_any_time:
            raise FewstepError(
                f"{what} was distilled itself and has no PF-ODE to follow: give the diffusion "
                "model."
            )
        if not self.denoises:
            raise FewstepError(
                f"{what} is {self.name}; a diffusion model is needed, such as a run of digits/edm."
            )

    def check_time_points(self, model: object) -> None:
        """Raise `FewstepError` for a model that is not sampled in a few jumps from any time."""
        if not (self.maps_to_eps and self.from_any_time):
            raise FewstepError(f"{model} is {self.name}: time points are for consistency models.")

    def check_pairs(self, model: object) -> None:
        """Raise `FewstepError` unless pairs can be made by the model's sampler."""
        if not self.denoises:
            raise FewstepError(
                f"pairs are made by a diffusion model's sampler; {model} is {self.name}."
            )

    def check_autoencoder(self, what: object) -> None:
        """Raise `FewstepError` unless the model is an autoencoder."""
        if not self.decodes:
            raise FewstepError(
                f"{what} is {self.name}, not an autoencoder: train one, such as digits/autoencoder."
            )

    def check_other_process(self) -> None:
        """Raise `FewstepError` where the model knows the steps of its own process alone."""
        if self.starts == "steps" or self.steps is not None:
            raise FewstepError(
                "this model was distilled for the steps of its own process and knows no other."
            )

    # Refusals of samplers. A map that nobody has trained takes every sampler that is given.

    def check_steps(self, count: int | None, taus: object = None) -> None:
        """Raise `FewstepError` for another number of steps than that of a distilled model."""
        only = self.steps
        if only is None or (count in (None, only) and not taus):
            return
        if self.decodes:
            raise FewstepError("an autoencoder makes its samples in 1 step and has no others.")
        raise FewstepError(
            f"this model was distilled for {_steps(only)} and knows no others: "
            f"sample it with steps={only} and without time points."
        )

    def check_solver(self, what: str = "a solver") -> None:
        """Raise `FewstepError` where a walk of a solver means nothing.

        Args:
            what: is asked for.
        """
        if self.steps is not None and self.denoises:
            raise FewstepError(
                f"this model was distilled for one sampler, in {_steps(self.steps)}: it takes no "
                "solver, time grid or clip."
            )
        if self.known and not self.denoises:
            raise FewstepError(
                f"{what} is for diffusion models, along whose PF-ODE it goes; this is {self.name}, "
                "which solves nothing: give a number of steps or time points."
            )

    def check_jumps(self, evaluations: int, gamma: float = 1.0) -> None:
        """Raise `FewstepError` where jumps of the map mean nothing.

        Args:
            evaluations: of the network, the first from ``T``.
            gamma: how much of the noise is new after each jump; below 1 a jump ends between.
        """
        if self.decodes:
            self.check_steps(0)
        if self.known and not self.maps_to_eps:
            raise FewstepError(f"time points are for consistency models; this is {self.name}.")
        self.check_steps(evaluations)
        if evaluations > 1:
            self.check_any_time("sampling in several jumps")
        if gamma < 1 and self.known and not self.maps_to_any:
            raise FewstepError(
                f"jumps with gamma={gamma:g} end between T and eps, and this is {self.name}, "
                "which knows the way to eps alone: take gamma=1."
            )

    def check_nested(self, steps: int) -> None:
        """Raise `FewstepError` where DDIM steps of a distilled model's grid mean nothing."""
        if self.known and not (self.denoises and not self.maps_to_eps):
            raise FewstepError(
                "the DDIM steps of progressive distillation are for its models and for diffusion "
                f"models; this is {self.name}."
            )
        self.check_steps(steps)

    def check_prior(self) -> None:
        """Raise `FewstepError` unless noise is a latent of the model, an autoencoder."""
        if not self.decodes:
            raise FewstepError(
                f"the sampler prior decodes the noise of an autoencoder; this is {self.name}."
            )


def _steps(n: int | None) -> str:
    return f"{n} step{'' if n == 1 else 's'}"


# Values that a record may have


def _check_starts(starts: object) -> None:
    if isinstance(starts, str):
        if starts not in STARTS:
            raise unknown("start of a map, trained.starts", starts, STARTS)
    elif not (isinstance(starts, tuple) and starts and all(map(_is_number, starts))):
        raise FewstepError(
            f"trained.starts must be {', '.join(STARTS)} or times, got {starts!r:.60}"
        )


def _checked_taus(taus: object) -> dict[str, tuple[float, ...]]:
    def fits(steps: object, points: object) -> bool:
        return (
            isinstance(steps, str)
            and steps.isdecimal()
            and isinstance(points, (list, tuple))
            and len(points) == int(steps[:9]) - 1
            and all(map(_is_number, points))
        )

    if not (isinstance(taus, Mapping) and all(fits(*item) for item in taus.items())):
        raise FewstepError(
            "taus must be lists of n - 1 time points by the number of steps n, "
            f'{{"2": [0.8]}}, got {taus!r:.60}'
        )
    return {steps: tuple(map(float, points)) for steps, points in taus.items()}


def _checked_names(names: object) -> tuple[str, ...]:
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise FewstepError(f"classes must be a list of names, got {names!r:.60}")
    return tuple(names)


def _is_number(value: object) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and -math.inf < value < math.inf  # type: ignore[operator]


def _is_count(value: object, least: int) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and value >= least)  # type: ignore[operator]


# What objectives make

DIFFUSION = Trained(ends="denoiser", sampler="walk")
"""A diffusion model: its denoiser ``f.D`` at every time."""
NESTED = Trained("steps", "denoiser", "nested_ddim", steps=1)
"""The denoiser at the times of so many nested DDIM steps, of progressive distillation."""
CONSISTENCY = Trained(ends="eps", sampler="jumps")
"""A consistency model: ``f(x, t)`` from every time."""
GENERATOR = Trained("T", "eps", "jumps", steps=1)
"""A generator: ``f(x_T, T)`` alone."""
FLOW_MAP = Trained(ends="any", sampler="jumps(gamma=0)")
"""A flow map: ``f(x, t, s)`` for all ``s <= t``, the denoiser at ``s = t`` among them."""
AUTOENCODER = Trained("prior", "image", "prior", steps=1)
"""An autoencoder: images of latents."""
_MADE = {
    "diffusion": DIFFUSION,
    "consistency": CONSISTENCY,
    "generator": GENERATOR,
    "autoencoder": AUTOENCODER,
}


# In files, and as earlier versions wrote it

LEGACY = {
    "kind": "ends and starts",
    "sampling_steps": "steps",
    "taus": "taus",
    "classes": "classes",
    "step": "step",
}
"""Keys of `info` of earlier versions, and the fields that hold their values now."""


def json_of(trained: Trained) -> dict[str, Any]:
    """The fields of a record that say something, as JSON values; `trained_of` is the inverse."""
    empty = Trained()
    said = {f.name: getattr(trained, f.name) for f in fields(Trained)}
    return {name: value for name, value in said.items() if value != getattr(empty, name)}


def trained_of(stored: object) -> Trained:
    """The record of what `json_of` gave.

    Raises:
        FewstepError: anything else; the message names the value.
    """
    return record_of(Trained, stored, "trained")


def from_legacy(info: Mapping[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """The record that the `info` of earlier versions holds, and what else is in it.

    Raises:
        FewstepError: a value of a legacy key that means nothing; the message names it.
    """
    values = dict(info)
    old = {name: values[name] for name in LEGACY if values.get(name) is not None}
    kind, steps = old.pop("kind", None), old.pop("sampling_steps", None)
    if kind is not None and (not isinstance(kind, str) or kind not in _MADE):
        raise FewstepError(f"info.kind must be one of {', '.join(_MADE)}, got {kind!r:.60}")
    made = Trained() if kind is None else _MADE[kind]
    if steps is not None:
        made = replace(NESTED if made == DIFFUSION else made, steps=steps)
    rest = {name: value for name, value in info.items() if name not in LEGACY}
    return replace(made, **old), rest


class Info(dict[str, Any]):
    """Free values of a model. A key whose value is in its record now is refused by its name."""

    def __getitem__(self, name: str) -> Any:
        _refuse_legacy(name)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_legacy(name)
        super().__setitem__(name, value)

    def get(self, name: str, default: Any = None) -> Any:
        _refuse_legacy(name)
        return super().get(name, default)


def _refuse_legacy(name: str) -> None:
    if name in LEGACY:
        raise FewstepError(
            f"info[{name!r}] is not there any more: f.trained.{LEGACY[name]} of the record "
            "fewstep.trained.Trained."
        )
