"""Which sampler suits a model: the one asked for, or its own, with the arguments given besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from fewstep.errors import FewstepError, unknown
from fewstep.guidance import Guided, Open, guidance_of
from fewstep.registry import parameters
from fewstep.sampling.jumps import Jumps
from fewstep.sampling.model import Model
from fewstep.sampling.sampler import SAMPLERS, Sampler, checked_count
from fewstep.sampling.walk import Walk
from fewstep.schedules import TimeGrid
from fewstep.solvers import SOLVERS, Integrator
from fewstep.spec import parse

OTHER_NAMES = {
    "multistep": "jumps, such as jumps(times=(0.8,))",
    "ode": "walk, such as walk(solver=heun, steps=18)",
}


def sampler_for(
    f: Model,
    steps: int | None = None,
    *,
    sampler: Sampler | str | None = None,
    taus: Sequence[float] | None = None,
    solver: Integrator | str | None = None,
    nfe: int | None = None,
    grid: TimeGrid | str | None = None,
    clip: bool = False,
    guidance: Guided | float | str | None = None,
) -> Sampler:
    """The sampler of a model, with what the model decides filled in.

    Args:
        f: the model.
        steps: evaluations of a consistency model (default 1), solver steps of a diffusion model
            (default 18); a model that was distilled for one number of steps has that alone.
        sampler: a sampler or its spec, such as ``jumps(gamma=0.5)``; default the model's own, or
            `Walk` where an argument of it is given. What the spec leaves open may be given by the
            other arguments.
        taus: time points of `Jumps`.
        solver, grid, clip: of `Walk`.
        nfe: network evaluations to spend exactly, instead of ``steps``.
        guidance: classifier-free guidance: a weight, 1 for none, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; or autoguidance, `fewstep.guidance.Autoguided`;
            default the model's own.

    Raises:
        FewstepError: a sampler that the model does not admit, or an argument that the sampler does
            not take; an argument given twice; an ``nfe`` that the solver cannot spend; steps or
            time points that a distilled model does not have.
    """
    return Asked(steps, nfe, taus, solver, grid, clip, sampler, guidance).of(f)


@dataclass(frozen=True)
class Asked:
    """What a user says of sampling, by a spec or in single arguments; see `sampler_for`.

    It can be checked before there is a model, and asked of several.
    """

    steps: int | None = None
    nfe: int | None = None
    taus: Sequence[float] | None = None
    solver: Integrator | str | None = None
    grid: TimeGrid | str | None = None
    clip: bool = False
    sampler: Sampler | str | None = None
    guidance: Guided | float | str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.nfe is not None:
            raise FewstepError("give the number of steps or of network evaluations, not both.")
        checked_count(self.steps, "steps")
        checked_count(self.nfe, "nfe")
        guidance_of(self.guidance)
        if self.sampler is not None:
            with_arguments(build(self.sampler), self.given)
        elif self.solver is not None or self.grid is not None:
            _check_no_sampler(self.solver)
            Walk(None, self.solver or "heun", self.grid)

    @property
    def spec(self) -> str | None:
        """The sampler that was asked for, as a spec."""
        return None if self.sampler is None else build(self.sampler).spec

    @property
    def least(self) -> int:
        """Network evaluations that what was asked for takes at least, whatever the model."""
        if self.sampler is None:
            return self.nfe or self.steps or 1
        return with_arguments(build(self.sampler), self.given).least

    @property
    def given(self) -> dict[str, Any]:
        """The single arguments, as a spec names them."""
        times = None if self.taus is None else tuple(self.taus)
        named: dict[str, Any] = {"steps": self.steps, "nfe": self.nfe, "times": times}
        named |= {"solver": self.solver, "grid": self.grid, "clip": self.clip or None}
        named["guidance"] = None if self.guidance is None else guidance_of(self.guidance)
        return {name: value for name, value in named.items() if value is not None}

    def opened(self, open: Open) -> Asked:
        """The same with the weaker model of an autoguidance, which text can only name.

        Args:
            open: opens the model of a place.

        Raises:
            FewstepError: what opening it raises; another model is there than a record tells.
        """
        guidance, sampler = self.guidance, self.sampler
        if guidance is not None:
            guidance = guidance_of(guidance).opened(open)
        if sampler is not None:
            sampler = build(sampler)
            own = getattr(sampler, "guidance", None)
            if isinstance(own, Guided):
                sampler = replace(cast("Any", sampler), guidance=own.opened(open))
        return replace(self, guidance=guidance, sampler=sampler)

    def of(self, f: Model) -> Sampler:
        """The sampler of a model.

        Raises:
            FewstepError: see `sampler_for`.
        """
        trained, given = f.trained, self.given
        if "guidance" in given:
            given["guidance"].check(f)
            if not (trained.solves or trained.maps_to_eps or self.sampler):  # none, and asked for
                del given["guidance"]
        if self.sampler is not None:
            return with_arguments(build(self.sampler), given).fitted(f)
        trained.check_steps(self.steps or self.nfe, self.taus)
        if trained.steps is not None:  # and these are what is asked for
            given = {k: value for k, value in given.items() if k not in ("steps", "nfe")}
        own = None if trained.sampler is None else build(trained.sampler)
        suited = _that_takes(given, own)
        if suited is None:
            trained.check_known("the sampler")
        return with_arguments(suited or Jumps(), given).fitted(f)


def _check_no_sampler(solver: Integrator | str | None) -> None:
    """Raise `FewstepError` for a sampler where a solver is asked for."""
    if isinstance(solver, str) and parse(solver)[0] in SAMPLERS:
        raise FewstepError(f"{parse(solver)[0]} is a sampler, no solver: give --sampler {solver}.")


def _that_takes(given: dict[str, Any], own: Sampler | None) -> Sampler | None:
    """The sampler that arguments mean: the model's own, or the one that alone takes one of them."""
    for sampler in (Jumps(), Walk()):
        for name in given:
            if name not in ("steps", "nfe", "guidance") and name in _meant(sampler):
                return own if own is not None and name in _meant(own) else sampler
    return own


def _meant(sampler: Sampler) -> set[str]:
    """The arguments by which a sampler is meant: ``clip`` by itself is that of `Walk`."""
    return set(parameters(type(sampler))) - ({"clip"} if isinstance(sampler, Jumps) else set())


def build(sampler: Sampler | str) -> Sampler:
    """A sampler of its spec.

    Raises:
        FewstepError: what is no spec of a sampler; of a solver, how to write it.
    """
    if isinstance(sampler, str) and (name := parse(sampler)[0]) not in SAMPLERS:
        if name in SOLVERS:
            raise FewstepError(f"{name} is a solver: the sampler is walk(solver={sampler}).")
        if name in OTHER_NAMES:
            raise FewstepError(f"the sampler {name} is called {OTHER_NAMES[name]}.")
        raise unknown("sampler", name, SAMPLERS)
    if not isinstance(sampler, str):
        return sampler
    return _without_idle(SAMPLERS.build(sampler), parse(sampler)[1])


def with_arguments(sampler: Sampler, given: dict[str, Any]) -> Sampler:
    """A sampler with further arguments of its spec.

    Evaluations are the steps of a sampler that spends one in each.

    Raises:
        FewstepError: an argument that the sampler does not take, or has already.
    """
    known = parameters(type(sampler))
    own = {"steps" if name == "nfe" not in known else name: value for name, value in given.items()}
    for name in own:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise FewstepError(f"the sampler {sampler.spec} has no argument {name}: {takes}.")
        if getattr(sampler, known[name].name) != known[name].default:
            raise FewstepError(f"{name} is given twice, in the sampler {sampler.spec} and besides.")
    fields: Any = {known[name].name: value for name, value in own.items()}
    return _without_idle(replace(cast("Any", sampler), **fields), own) if fields else sampler


def _without_idle(sampler: Sampler, said: dict[str, Any]) -> Sampler:
    """The sampler, in which everything that was said counts."""
    counts = said.get("steps") or said.get("nfe")
    if isinstance(sampler, Walk) and sampler.adaptive and counts:
        raise FewstepError(f"{sampler.solver} chooses its own steps: set rtol and atol instead.")
    return sampler
