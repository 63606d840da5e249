"""`fewstep fit`: the plan from a folder of images to a generator of few steps.

A folder is begun once. Its images, their size, the network and every other choice stay; with a
longer budget the diffusion model goes on, and a new model of few steps is made from it. Only what
keeps a training from learning images by heart is decided anew where it was not needed before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep.data import Dataset, load
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.needs import Needs, TeacherUse
from fewstep.objectives import OBJECTIVES
from fewstep.planning import rule, trainings
from fewstep.planning.budget import duration
from fewstep.planning.choices import Choices, choices_of
from fewstep.planning.looked_at import Looked, Source, is_of, look, of_path
from fewstep.planning.measured import pace_of, small_speed
from fewstep.planning.plan import DATA, FEW, Plan, few_of
from fewstep.planning.prepared import TEST, TRAIN, Prepared, prepare
from fewstep.planning.round import Round, Timed
from fewstep.planning.state import State, read_state
from fewstep.planning.trainings import Settings
from fewstep.recipes.images import ALIASES
from fewstep.runs.directory import MODEL, RunDirectory
from fewstep.runs.run import Run
from fewstep.stages.clock import ALL, Clock
from fewstep.stages.how import How
from fewstep.stages.stage import Pairs, Stage

TEACHER, PAIRS = "teacher", "pairs"
PAIRS_SHARE, EVALUATIONS = 0.15, 35
BUDGET = 1800.0  # seconds, where nobody says another
LONGER = 1.1  # times a budget that the next one must exceed
AGAIN = 0.35  # share of a later budget that the diffusion model goes on for


def plan_fit(
    source: str,
    directory: Path,
    budget: float | None,
    given: Mapping[str, Any],
    *,
    device: str | None = None,
    log: Sequence[str] = (),
) -> Plan:
    """Look at the images, measure this machine, and decide; nothing is written.

    Args:
        source: a folder or file of images, as `fewstep.load` takes it.
        directory: of the fit; what was begun there goes on.
        budget: seconds, of all calls together; default that which is being spent, else `BUDGET`.
        given: the user's choices by name; None for what is left to the rule.
        device: where to train; default a GPU where there is one.
        log: loggers of the trainings.

    Raises:
        FewstepError: images that cannot be fitted, a budget that is too short or spent, choices
            that do not agree with what was begun.
    """
    rule.check_threads(given)
    began = time.perf_counter()
    begun, where = read_state(directory, "fit"), pick_device(device)
    budget = budget_of(begun, budget, directory, BUDGET)
    choices = Choices(given, choices_of(begun.choices) if begun else {})
    if given.get("method") is not None:
        trainings.check_method(given["method"])
    if begun is None:
        said, prepared, looked, state = _looked_at(source, budget, choices, where)
        images = prepared.train
    else:
        prepared, state = None, begun
        images, looked = _kept(source, directory, begun)
        said = looked.words
        if (passes := _passes(begun, budget, directory, looked.n)) is not None:
            choices = Choices(given, rule.reopened(choices.kept))
        for name in choices.kept:
            choices.make(name, None, "")
        if passes is not None:
            rule.keep_from_copies(choices, passes)
    trainings.check_method(rule.choose_method(choices))
    alone = trainings.learns_alone(needs_of(choices["method"]))
    rule.choose_training(choices, looked, where, alone=alone)
    choices.make("seed", 0, "another number gives another model")
    state = next_round(state, budget)
    stages = _stages(choices, looked, directory, state)
    how = How(device=device, threads=choices["threads"], log=tuple(log))
    made = Round(directory, budget, stages, rule.AFTER, images, how)
    if not state.steps:
        made.check(budget - Clock(directory)[ALL])
    return Plan(
        title=f"A generator of {Path(state.source).name}",
        lead=f"{len(images):,} images of {images.shape[2]}x{images.shape[1]} pixels became a model "
        f"that makes new ones in one or a few evaluations of its network: {MODEL}.",
        said=said,
        choices=choices,
        round=made,
        state=replace(state, choices=choices.record()),
        teacher=directory / TEACHER / MODEL,
        prepared=prepared,
        began=began,
    )


def _looked_at(
    source: str, budget: float, choices: Choices, where: torch.device
) -> tuple[tuple[str, ...], Prepared, Looked, State]:
    """What a fit that begins is made of."""
    seen = Source.of(source)
    speed = small_speed(seen, where, budget, choices.given.get("threads"))
    choices.make("threads", speed.threads, "with so many a step is fastest here")
    rule.choose_size(choices, seen, speed, budget)
    labels = choices.given.get("labels")
    fit = choices.make("fit", "crop", "what is in the middle of a photograph is what it shows")
    prepared = prepare(source, choices["size"], choices["channels"], fit=fit, labels=labels)
    looked = prepared.looked
    choices.make("labels", bool(looked.classes), looked.why)
    precision = choices.given.get("precision")
    pace = pace_of(prepared.train, where, budget, speed.threads, precision)
    rule.choose_network(choices, looked, speed, pace, budget)
    state = State(
        kind="fit", source=of_path(source), fingerprint=prepared.train.fingerprint(), choices={}
    )
    return (f"{seen.words}.", *looked.words), prepared, looked, state


def _kept(source: str, directory: Path, begun: State) -> tuple[Dataset, Looked]:
    """The images that a fit began with.

    Raises:
        FewstepError: they have changed, or the fit is of others.
    """
    if not is_of(source, begun.source):
        raise FewstepError(
            f"{directory} is a fit of {begun.source}, not of {source}: give another --out."
        )
    path = directory / DATA / TRAIN
    images = load(str(path))
    if images.fingerprint() != begun.fingerprint:
        raise FewstepError(f"{path} has changed since this fit began: give another --out.")
    held_out = len(load(str(directory / DATA / TEST)))
    why = "They are those that this fit began with; images that were added are not among them."
    return images, look(images, held_out, why)


def _passes(begun: State, budget: float, directory: Path, images: int) -> float | None:
    """How often each image has been seen when a longer budget is spent; None if it is of no use.

    It is for a training from images alone that begins anew. What follows a diffusion model is not
    augmented, the diffusion model goes on as it began, and so does a training that was interrupted.
    """
    method, _ = begun.choices["method"]
    if begun.budget or not begun.rounds or not trainings.learns_alone(needs_of(method)):
        return None
    made = (RunDirectory(directory / f"{FEW}-{i}") for i in range(1, len(begun.rounds) + 1))
    trained = [home.run()[1].training for home in made if home.started]
    seen = sum(training.steps * training.batch for training in trained)
    return seen / images * budget / max(begun.rounds)


def budget_of(state: State | None, asked: float | None, directory: Path, default: float) -> float:
    """The budget that is spent now: of what was begun its own, before a longer one begins.

    Args:
        state: of the folder; None where nothing was begun.
        asked: seconds; None for that which is being spent, or the default.
        directory: of the plan, for the message.
        default: seconds.

    Raises:
        FewstepError: more has been begun, or spent already.
    """
    if state is not None and state.budget:  # which was interrupted
        if asked is not None and asked < state.budget:
            raise FewstepError(
                f"{directory} spends a budget of {duration(state.budget)} that was begun: leave "
                "out --budget to go on with it, or give another --out."
            )
        return state.budget
    wanted = default if asked is None else asked
    if state is not None and not is_longer(wanted, max(state.rounds, default=0.0)):
        raise FewstepError(
            f"{directory} has spent its budget: give a longer --budget than "
            f"{duration(max(state.rounds))} to go on with it. {directory / 'report.html'} says "
            "what it is."
        )
    return wanted


def next_round(state: State, budget: float) -> State:
    """The folder's state for a budget: one that goes on, or the next."""
    return state if state.budget else replace(state, budget=budget, steps={})


def is_longer(budget: float, other: float) -> bool:
    """Whether a budget is so much longer than another that it is worth a round of its own."""
    return budget > LONGER * other


def _stages(choices: Choices, looked: Looked, directory: Path, state: State) -> list[Timed]:
    """The stages of a round, those that others need first."""
    data, few = str(directory / DATA / TRAIN), few_of(state)
    needs = needs_of(choices["method"])
    student = trainings.few_steps(choices, looked, data)
    if trainings.learns_alone(needs):
        if (former := _former(directory, state)) is not None:
            student = student.more(init=str(former))
        return [timed(student, few, rule.TEACHER + rule.FEW, directory)]
    home = RunDirectory(directory / TEACHER)
    there = home.run()[1].training.steps if home.finished else 0
    share = AGAIN if there else rule.TEACHER
    teacher = trainings.teacher(choices, looked, data)
    stages = [replace(timed(teacher, TEACHER, share, directory), there=there)]
    given = {} if needs.teacher is TeacherUse.NONE else {"--teacher": TEACHER}
    if needs.columns:
        given["--data"] = name = few.replace(FEW, PAIRS)
        stages.append(pairs(name, "trajectory" in needs.columns, teacher.run(), TEACHER))
    return [*stages, timed(student, few, rule.TEACHER + rule.FEW - share, directory, given)]


def _former(directory: Path, state: State) -> Path | None:
    """The model of few steps that a shorter budget ended with."""
    path = directory / f"{FEW}-{len(state.rounds)}" / MODEL
    return path if path.exists() else None


def timed(
    settings: Settings,
    name: str,
    share: float,
    directory: Path,
    needs: Mapping[str, str] | None = None,
) -> Timed:
    """A training whose length is a share of a budget."""

    def stage(n: int) -> Stage:
        return trainings.paced(settings, n, directory / name).stage(name, n, needs)

    return Timed(name, share, stage, settings.run())


def pairs(name: str, trajectories: bool, run: Run, model: str) -> Timed:
    """Pairs of a diffusion model; one takes about as long as a dozen steps on an image.

    Args:
        name: of their folder.
        trajectories: whether states on the way are kept.
        run: a training of the model's network.
        model: its folder or file, in that of the plan.
    """

    def stage(n: int) -> Stage:
        return Pairs(name, model=model, n=n, trajectory=4 * trajectories)

    steps = EVALUATIONS // 3  # a walk's evaluations, of which a step has three
    at_once = run.training.batch / steps
    return Timed(name, PAIRS_SHARE, stage, run, unit="pairs", at_once=at_once)


def needs_of(method: str) -> Needs:
    """What a method needs."""
    return OBJECTIVES[ALIASES.get(method, method)].needs
