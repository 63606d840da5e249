"""The record of a model, and every refusal that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isclose

from fewstep.errors import FewstepError
from fewstep.trained.record import Record, in_steps


@dataclass(frozen=True)
class Trained(Record):
    """A `Record`, and what follows from it for those who use the model."""

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
            weights=makes.weights or self.weights,
            around=self.around if makes.around is None else makes.around,
        )

    def moved(self, time: Callable[[float], float]) -> Trained:
        """This record in another process, which has at ``time(t)`` the noise of time ``t``."""
        starts = self.starts if isinstance(self.starts, str) else tuple(map(time, self.starts))
        taus = {n: tuple(map(time, points)) for n, points in self.taus.items()}
        earliest = None if self.earliest is None else time(self.earliest)
        return replace(self, starts=starts, taus=taus, earliest=earliest)

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
        if self.earliest is not None:
            raise FewstepError(
                f"{what} needs a model of all noise levels; this one has learned those from time "
                f"{self.earliest:g} on alone."
            )
        few = f"sampling in {in_steps(self.steps)}" if self.steps else "a few times"
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

    def check_diagonal(self, what: str, *, flow: bool) -> None:
        """Raise `FewstepError` for a flow map whose form does not make it a denoiser at ``s = t``.

        Args:
            what: needs the velocity.
            flow: whether the form is a flow's, `Parameterization.flow`.
        """
        if self.maps_to_any and not flow:
            raise FewstepError(
                f"{what} needs the velocity of the PF-ODE, which the form of this flow map does "
                "not give at s = t: train one of a form that does, such as --p.form ddim."
            )

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

    def check_refined(self, what: str) -> None:
        """Raise `FewstepError` unless a consistency model can be refined by training it further.

        Args:
            what: is the model, such as "the teacher runs/ect".
        """
        if not (self.maps_to_eps and self.from_any_time):
            raise FewstepError(
                f"{what} is {self.name}; a consistency model of all times is needed, such as a run "
                "of digits/ect."
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
            f"this model was distilled for {in_steps(only)} and knows no others: "
            f"sample it with steps={only} and without time points."
        )

    def check_solver(self, what: str = "a solver") -> None:
        """Raise `FewstepError` where a walk of a solver means nothing.

        Args:
            what: is asked for.
        """
        if self.steps is not None and self.denoises:
            raise FewstepError(
                f"this model was distilled for one sampler, in {in_steps(self.steps)}: it takes no "
                "solver, time grid or clip."
            )
        if self.known and not self.denoises:
            raise FewstepError(
                f"{what} is for diffusion models, along whose PF-ODE it goes; this is {self.name}, "
                "which solves nothing: give steps (--steps, --nfe) or time points (--taus)."
            )

    def check_jumps(
        self, evaluations: int, gamma: float = 1.0, times: Sequence[float] = ()
    ) -> None:
        """Raise `FewstepError` where jumps of the map mean nothing.

        Args:
            evaluations: of the network, the first from ``T``.
            gamma: how much of the noise is new after each jump; below 1 a jump ends between.
            times: that the later jumps start at, where they are known.
        """
        if self.decodes:
            self.check_steps(0)
        if self.known and not self.maps_to_eps:
            raise FewstepError(f"time points are for consistency models; this is {self.name}.")
        self.check_steps(evaluations)
        if evaluations > 1:
            self._check_starts_at(times)
        if gamma < 1 and self.known and not self.maps_to_any:
            raise FewstepError(
                f"jumps with gamma={gamma:g} end between T and eps, and this is {self.name}, "
                "which knows the way to eps alone: take gamma=1."
            )

    def _check_starts_at(self, times: Sequence[float]) -> None:
        if self.earliest is not None:
            self._check_late_enough(times, self.earliest)
            return
        if isinstance(self.starts, str):
            self.check_any_time("sampling in several jumps")
            return
        known = self.starts
        if strange := [t for t in times if not any(isclose(t, s, rel_tol=1e-6) for s in known)]:
            raise FewstepError(
                f"this model has learned to start at {', '.join(f'{t:g}' for t in known)} alone, "
                f"and not at {strange[0]:g}."
            )

    def _check_late_enough(self, times: Sequence[float], earliest: float) -> None:
        if early := [t for t in times if t < earliest * (1 - 1e-6)]:
            raise FewstepError(
                f"this model has learned to start at times from {earliest:g} on, and not at "
                f"{early[0]:g}."
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

    # Refusals of guidance

    def check_guidance(self, num_classes: int, w: float) -> None:
        """Raise `FewstepError` where a guidance weight means nothing.

        A model is guided by what it says without a class, or has learned the weight as an input.
        """
        if self.weights is not None:
            self.check_takes_weight(w)
        elif w != 1:
            self.check_flow("guidance")
            if self.known and not self.solves and not self.maps_to_any:
                self.check_takes_weight(w)
            self.check_null_class(num_classes, "the model")

    def check_autoguided(self) -> None:
        """Raise `FewstepError` where a weaker model cannot guide the walk of this one."""
        self.check_flow("guidance")
        if self.weights is not None:
            raise FewstepError(
                "this model takes the guidance weight as an input, and no weak model: leave that "
                "out."
            )
        if self.known and not self.solves and not self.maps_to_any:
            self.check_takes_weight(1.0)

    def check_weak(self) -> None:
        """Raise `FewstepError` unless the model can be the weaker one of autoguidance."""
        if self.known:
            self.check_teacher("the weak model", follow=True)

    def check_null_class(self, num_classes: int, whose: str, use: str = "guidance") -> None:
        """Raise `FewstepError` unless the model knows what to do without a class, too.

        Args:
            num_classes: of the model, or the numbers of an embedding that it takes.
            whose: class it is, such as "the teacher".
            use: of the null class.
        """
        if not num_classes:
            raise FewstepError(f"{use} needs classes: {whose} is unconditional.")
        if not self.null_class:
            raise FewstepError(
                f"{use} needs a null class: {whose} was trained without one. Train it with "
                "label dropout, --network.label-dropout 0.1."
            )

    def check_takes_weight(self, w: float) -> None:
        """Raise `FewstepError` unless the model has learned a guidance weight as an input."""
        if self.weights is None and self.maps_to_any:
            raise FewstepError(
                "guidance is for a walk along the denoiser, and jumps of a flow map take no "
                "weight: give --sampler walk."
            )
        if self.weights is None:
            raise FewstepError(
                f"guidance is for the denoisers of diffusion models; this is {self.name}, a map: "
                "distil a guided teacher, such as by --objective.guidance 2."
            )
        low, high = self.weights
        if not low <= w <= high:
            raise FewstepError(
                f"this model has learned guidance weights from {low:g} to {high:g}, got {w:g}."
            )

    def check_told(self, w: float, *, everywhere: bool) -> None:
        """Raise `FewstepError` unless a walk can tell the network its weight at every time.

        Args:
            w: the weight.
            everywhere: whether it guides at all noise levels; elsewhere the weight is 1.
        """
        self.check_takes_weight(w)
        if self.weights is not None and not everywhere and self.weights[0] > 1:
            raise FewstepError(
                "outside of an interval the weight is 1, and this model has learned weights from "
                f"{self.weights[0]:g} on: leave out the interval."
            )

    def check_takes_interval(self, interval: tuple[float, float]) -> None:
        """Raise `FewstepError` unless a map of a weight has learned the interval of it as well.

        Args:
            interval: noise levels that are to be guided.
        """
        low, high = interval
        if self.weights is None or (low == 0 and high == inf):
            return
        if self.around is None:
            raise FewstepError(
                "this model takes the guidance weight as an input, at every noise level: leave out "
                "the interval."
            )
        if not low <= self.around <= high:
            raise FewstepError(
                "this model has learned intervals of guidance around the noise level "
                f"{self.around:g}, got {low:g} to {high:g}."
            )
