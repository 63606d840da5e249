"""`fewstep fit` and `fewstep distil`: a plan, carried out, and its page.

What a former call has finished is not done again; an interrupted training is taken up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.data import Dataset, load
from fewstep.distributed import pick_device
from fewstep.evaluation.choice import feature_network
from fewstep.evaluation.features import FeatureNetwork, check_images
from fewstep.evaluation.reduced import trained_on
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.planning import distilling, fitting, rule
from fewstep.planning.fitting import DATA
from fewstep.planning.measures import Measures
from fewstep.planning.plan import Plan
from fewstep.planning.prepared import TEST, TRAIN
from fewstep.report.few import Page, write_few
from fewstep.runs.directory import MODEL
from fewstep.stages.clock import ALL, Clock

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Features:
    """Of the scores, as `fewstep evaluate` takes them; default a classifier of the images."""

    name: str | None = None
    weights: Path | None = None


def fit(
    source: str,
    directory: Path,
    budget: float,
    given: Mapping[str, Any],
    *,
    device: str | None = None,
    features: Features = Features(),
    tell: Tell = print,
) -> Page:
    """Fit a generator of few steps to images within a budget: see `fitting.plan_fit`.

    Args:
        source: a folder or file of images.
        directory: where everything goes.
        budget: seconds, of all calls together.
        given: the user's choices by name; None for what is left to the rule.
        device: default a GPU where there is one.
        features: of the scores.
        tell: shows a line.

    Raises:
        FewstepError: see `plan_fit`.
    """
    began = time.perf_counter()
    plan = fitting.plan_fit(source, directory, budget, given, device=device)
    name = Path(plan.state.source).name
    lead = "{n:,} images of {size} pixels became a model that makes new ones in one or a few "
    how = Told(f"A generator of {name}", lead + f"evaluations of its network: {MODEL}.")
    teacher = directory / fitting.TEACHER / MODEL
    return _carried_out(plan, teacher, how, features, began, tell)


def distil(
    teacher: str,
    directory: Path,
    budget: float,
    given: Mapping[str, Any],
    *,
    data: str | None = None,
    device: str | None = None,
    features: Features = Features(),
    tell: Tell = print,
) -> Page:
    """Distil a diffusion model into one of few steps: see `distilling.plan_distil`.

    Args:
        teacher: run folder, model file, imported file or hub:NAME of a diffusion model.
        directory: where everything goes.
        budget: seconds, of all calls together.
        given: the user's choices by name; None for what is left to the rule.
        data: images like those that it was trained on; default those that its run names.
        device: default a GPU where there is one.
        features: of the scores.
        tell: shows a line.

    Raises:
        FewstepError: see `plan_distil`.
    """
    began = time.perf_counter()
    plan = distilling.plan_distil(teacher, directory, budget, given, data=data, device=device)
    file = directory / distilling.TEACHER
    if plan.teacher is not None and not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        plan.teacher.save(file)
    lead = f"{teacher} became a model that makes images in one or a few evaluations of its network"
    how = Told(f"{Path(teacher).name} in few steps", f"{lead}: {MODEL}.")
    return _carried_out(plan, file, how, features, began, tell)


@dataclass(frozen=True)
class Told:
    """Title and first sentence of a page."""

    title: str
    lead: str


def _carried_out(
    plan: Plan, teacher: Path, told: Told, features: Features, began: float, tell: Tell
) -> Page:
    directory = plan.round.directory
    network = _asked(features, plan.round.data)
    for line in plan.lines():
        tell(line)
    clock = Clock(directory)
    with locked(directory), clock.running(ALL):
        if plan.prepared is not None:
            plan.prepared.write(directory / DATA)
        state = plan.state.write(directory)
        clock.add(ALL, time.perf_counter() - began)
        state = plan.round.run(state, clock)
        page = _scored(plan, teacher, told, network, clock)
        done = (*state.rounds, plan.round.budget)
        replace(state, rounds=done, budget=0.0).write(directory)
    return page


def _asked(features: Features, train: Dataset) -> FeatureNetwork | None:
    """The feature network that a user asks for; None for the one that is trained on the images.

    Raises:
        FewstepError: there is none such, or it does not take these images.
    """
    if features == Features():
        return None
    network = feature_network(features.name, weights=features.weights, data=train)
    check_images(train.images[:1], network.shape, f"images for {network.name}")
    return network


def _scored(
    plan: Plan, teacher: Path, told: Told, network: FeatureNetwork | None, clock: Clock
) -> Page:
    directory, budget = plan.round.directory, plan.round.budget
    device = pick_device(plan.round.device)
    train, test = (load(str(directory / DATA / name)) for name in (TRAIN, TEST))
    if test.labels is not None:
        test = test.with_classes(train.classes, "the training images")
    network = network or trained_on(train.images, train.labels)
    left = max(rule.AFTER * budget / 4, budget - clock.so_far(ALL))
    measures = Measures(network.to(device), train, test, left, device)
    few, on_time = measures.with_time_point(
        FlowMap.load(directory / plan.few / MODEL, device), directory / plan.few
    )
    few.save(directory / MODEL)
    models = {"diffusion": FlowMap.load(teacher, device)} if teacher.exists() else {}
    points = measures.points({**models, "few steps": few})
    n = points[-1].scores.n
    size = f"{train.shape[2]}x{train.shape[1]}"
    return write_few(
        plan,
        few,
        points,
        measures.copies(few, bool(plan.choices["flip"])),
        train.images,
        title=told.title,
        lead=told.lead.format(n=len(train), size=size),
        how=f"FD is the Fréchet distance of {n:,} samples to {len(test):,} images that no training "
        f"here has seen, over the features of a {network.name}; R is that of a Gaussian fitted to "
        "the pixels of each class. Of few such images every FD is too large by about the same, "
        "which the line of the training images shows.",
        notes=[on_time],
        model=directory / MODEL,
        stages=[name for name in (fitting.TEACHER, plan.few) if (directory / name).is_dir()],
        seconds=clock.so_far(ALL),
    )
