"""`fewstep fit` and `fewstep distil`: a plan, carried out, and its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.data import Dataset, load
from fewstep.distributed import pick_device
from fewstep.evaluation.choice import feature_network
from fewstep.evaluation.features import FeatureNetwork, check_images
from fewstep.evaluation.reduced import trained_on
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.planning import fitting, rule
from fewstep.planning.measures import Measures
from fewstep.planning.plan import DATA, Plan
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


def carry_out(plan: Plan, features: Features = Features(), tell: Tell = print) -> Page:
    """Do what is planned, score it, and write the page.

    What a former call has finished is not done again; an interrupted training is taken up.

    Args:
        plan: see `fitting.plan_fit` and `distilling.plan_distil`.
        features: of the scores.
        tell: shows a line.

    Raises:
        FewstepError: a feature network that there is not, or that does not take these images; a
            stage failed.
    """
    directory = plan.round.directory
    network = _asked(features, plan.round.data)
    for line in plan.lines():
        tell(line)
    clock = Clock(directory)
    with locked(directory), clock.running(ALL):
        state = plan.round.run(plan.begin(clock), clock)
        page = _scored(plan, network, clock)
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


def _scored(plan: Plan, network: FeatureNetwork | None, clock: Clock) -> Page:
    directory, budget = plan.round.directory, plan.round.budget
    device = pick_device(plan.round.how.device)
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
    models = {"diffusion": FlowMap.load(plan.teacher, device)} if plan.teacher.exists() else {}
    points = measures.points({**models, "few steps": few})
    n = points[-1].scores.n
    return write_few(
        plan,
        few,
        points,
        measures.copies(few, bool(plan.choices["flip"])),
        train.images,
        how=f"FD is the Fréchet distance of {n:,} samples to {len(test):,} images that no training "
        f"here has seen, over the features of a {network.name}; R is that of a Gaussian fitted to "
        "the pixels of each class. Of few such images every FD is too large by about the same, "
        "which the line of the training images shows.",
        notes=[on_time],
        model=directory / MODEL,
        stages=[name for name in (fitting.TEACHER, plan.few) if (directory / name).is_dir()],
        seconds=clock.so_far(ALL),
    )
