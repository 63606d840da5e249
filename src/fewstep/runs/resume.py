"""What may be different when a run goes on, and what the user is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.errors import FewstepError
from fewstep.objectives import Objective
from fewstep.plugins.used import check_used
from fewstep.runs.directory import MODEL, RunDirectory
from fewstep.runs.record import Change, Record
from fewstep.runs.run import Run
from fewstep.runs.sources import KINDS, given_of
from fewstep.training.config import Training

CHANGEABLE = ("steps", "lr")
"""Settings that may change when a run goes on."""
ENCODER = "encoder"
"""The setting that says where the function is that makes embeddings of texts; it may have moved."""
FREE = ("log",)
"""Settings that may change whenever a run goes on, and change nothing of what it learns."""


@dataclass(frozen=True)
class Begun:
    """A run that has made a checkpoint or a model.

    Args:
        record: of its folder, with the settings that it goes on with.
        step: of the newest checkpoint; 0 where none is left.
        new: the sources that the user says to be in another place.
        before: the settings until now.
    """

    record: Record
    step: int
    new: frozenset[str]
    before: Training

    @property
    def changed(self) -> bool:
        """Whether it goes on with other settings that change what it learns."""
        now = self.record.run.training
        return any(getattr(now, name) != getattr(self.before, name) for name in CHANGEABLE)

    def note(self, objective: Objective, other: Objective) -> str:
        """What other settings do to the schedules, as a line.

        Args:
            objective: with the new settings.
            other: with the settings until now.
        """
        now, k = self.record.run.training, self.step
        last, then = max(0, k - 1), {"lr": now.lr_at(k), **objective.schedule(k)}
        values = {"lr": self.before.lr_at(last), **other.schedule(last)}
        what = ", ".join(
            f"{c.setting} {c.before:g} -> {c.after:g}" for c in self.record.changes if c.step == k
        )
        jumps = ", ".join(
            f"{name} {values[name]:.4g} -> {value:.4g}"
            for name, value in then.items()
            if value != values.get(name)
        )
        rest = f"their values at this step: {jumps}" if jumps else "their values here stay"
        return (
            f"note: from step {k} on {what}; the schedules are those of the new settings, {rest}."
        )


def begun(home: RunDirectory, recipe: str, run: Run) -> Begun | None:
    """What the folder holds of a run that is to be trained in it; None where it begins.

    Raises:
        FewstepError: another run is there, or it was started with other settings, each named; it
            has made more steps already; nothing is left to go on from; or a run that begins would
            mix with what is there.
    """
    if not home.has_work:
        _check_place(home, run)
        return None
    record = home.record()
    check_used(record.plugins, home.path)
    if record.recipe != recipe:
        raise FewstepError(
            f"{home.path} holds a run of {record.recipe}, not {recipe}: give another --out."
        )
    run = Run.from_json(run.to_json())
    _check_same(home, record, run)
    step = max((c.step for c in home.checkpoints.all() if not c.fault()), default=0)
    new = {kind for kind in KINDS if given_of(run, kind) != given_of(record.run, kind)}
    _check_possible(home, run.training.steps, step)
    before = record.run.training
    changes = tuple(
        Change(step=step, setting=name, before=then, after=now)
        for name in CHANGEABLE
        if (then := getattr(before, name)) != (now := getattr(run.training, name))
    )
    if step >= run.training.steps or home.has_made(run.training.steps):
        _check_useful(home, changes)
    kept = run.override({kind: given_of(record.run, kind) for kind in KINDS})
    record = replace(record, run=kept, changes=(*record.changes, *changes))
    return Begun(record, step, frozenset(new), before)


def _check_place(home: RunDirectory, run: Run) -> None:
    """Raise `FewstepError` for a place where a run that begins would mix with something else."""
    if not home.started and home.has_weights:
        raise FewstepError(
            f"{home.path} holds checkpoints or a model, but no run.json that says of which run: "
            "give another --out."
        )
    data = Path(run.data.data or "")
    if run.data.data and data.is_dir() and home.path.resolve().is_relative_to(data.resolve()):
        raise FewstepError(
            f"the run {home.path} would lie inside its own data {data}, whose images its sample "
            "grids would become: give an --out elsewhere."
        )


def _check_same(home: RunDirectory, record: Record, run: Run) -> None:
    """Raise `FewstepError` where settings differ that may not; each of them is named."""
    then, now = record.run.flat(), run.flat()
    movable = {kind for kind in record.sources if given_of(run, kind)}
    if then.get(ENCODER) and now.get(ENCODER):  # its embeddings tell whether it is the same
        movable.add(ENCODER)
    changed = [
        f"{key} was {then.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and key not in movable and key not in CHANGEABLE + FREE
    ]
    if changed:
        raise FewstepError(
            f"{home.path} was started with other settings: {'; '.join(changed)}. "
            "Give another --out to start anew, or leave them as they were to resume. When a run "
            f"goes on only {' and '.join(f'--{name}' for name in CHANGEABLE)} may change."
        )


def _check_possible(home: RunDirectory, steps: int, step: int) -> None:
    """Raise `FewstepError` where a run cannot end at ``steps``."""
    if step > steps:
        raise FewstepError(
            f"{home.path} has made {step} steps already, more than --steps {steps}: give more, or "
            "another --out."
        )
    if step or home.has_made(steps):
        return
    if home.has_made(0):
        raise FewstepError(
            f"{home.path} has no checkpoint to go on from to step {steps}, only its {MODEL}: begin "
            f"another run with its weights, --init {home.path} --out NEW."
        )
    if not home.checkpoints.all():
        raise FewstepError(
            f"{home.path / MODEL} is damaged, and no checkpoint is left to write it anew: delete "
            f"{home.path} to train it again."
        )


def _check_useful(home: RunDirectory, changes: tuple[Change, ...]) -> None:
    """Raise `FewstepError` where a setting is to change for steps that are not to be made."""
    idle = [c for c in changes if c.setting != "steps"]
    if idle:
        what = "; ".join(f"{c.setting} was {c.before:g}, now {c.after:g}" for c in idle)
        raise FewstepError(
            f"{home.path} has made all its steps: {what} would change nothing. Give more --steps "
            "to go on with it, or another --out."
        )


def unasked(home: RunDirectory, run: Run, asked: frozenset[str]) -> Run:
    """The run, where settings that may change, and that nobody asked for, stay as they were.

    Args:
        home: the folder that it is to be trained in.
        run: a recipe with the settings of a command line.
        asked: the keys of those settings.
    """
    if not home.has_work:
        return run
    before = home.run()[1].training
    return run.override({k: getattr(before, k) for k in CHANGEABLE + FREE if k not in asked})
