"""The models that a training begins with: a teacher, or one whose weights it takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from fewstep import parameterization
from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.exchange.origin import exact
from fewstep.flow_map import FlowMap
from fewstep.guidance import check_weak
from fewstep.models import AnyModel, as_map
from fewstep.needs import TeacherUse
from fewstep.objectives import Objective
from fewstep.objectives.teachers import (
    check_alike,
    check_shapes,
    say_less_noise,
    say_matched,
)
from fewstep.parameterization import Parameterization, differences
from fewstep.runs.components import objective_of
from fewstep.runs.opening import open_model
from fewstep.runs.run import Component, Run, require
from fewstep.runs.sources import fingerprint
from fewstep.runs.taken import tensors_for, why_not


def begin_from_teacher(run: Run, f: AnyModel, teacher: AnyModel) -> FlowMap:
    """Give the map in training its teacher's weights; the teacher in the map's process.

    A consistency model may start from a teacher of another process, or of the same with other
    parameters: its network is then used in the student's process by matching the signal-to-noise
    ratio (`fewstep.parameterization.match`), with a note. It keeps what its network predicts.

    Raises:
        FewstepError: a teacher of another kind, or one whose network means something else.
    """
    path, use = run.teacher, objective_of(run).needs.teacher
    what, made = f"the teacher {path}", objective_of(run).makes
    if use is TeacherUse.REFINE:
        teacher.trained.check_refined(what)
    else:
        teacher.trained.check_teacher(what, follow=use is TeacherUse.DISTIL)
    teacher, f = as_map(teacher, "a teacher's student"), as_map(f, "a student")
    if made.maps_to_eps and made.from_any_time and _is_of_another(teacher.p, f.p):
        check_shapes(teacher, f, what)
        say_matched(teacher, f, what)
        f.p = parameterization.match(teacher.p, f.p, eps=f.p.eps, **_chosen(run, f.p))
        teacher = teacher.in_process(f.p)
    check_alike(teacher, f, what)
    if use is TeacherUse.START:  # one that is followed is compared by the objective
        say_less_noise(teacher, f, what)
    try:
        f.take_network(teacher, path)
    except FewstepError as error:
        raise FewstepError(f"{error} --same-network gives it all of them.") from error
    f.info["teacher"] = {"path": exact(str(path), teacher.info), "sha256": fingerprint(teacher)}
    in_float32(teacher, path)
    return teacher


def beside_teacher(run: Run, f: AnyModel, weak: AnyModel, teacher: AnyModel | None) -> FlowMap:
    """The weaker model that guides a teacher, in the process of the map in training.

    Args:
        run: with the place of the weaker model.
        f: the map in training.
        weak: the weaker model.
        teacher: as it was found.

    Raises:
        FewstepError: it cannot guide the teacher; see `fewstep.guidance.check_weak`.
    """
    what = "autoguidance"
    teacher = as_map(require(teacher, f"{what} needs the teacher that it guides."), what)
    weak.trained.check_weak()
    weak, f = as_map(weak, what), as_map(f, what)
    check_weak(weak, teacher, f"the teacher {run.teacher}")
    f.info["weak"] = {"path": exact(str(run.weak), weak.info), "sha256": fingerprint(weak)}
    in_float32(weak, run.weak)
    return weak if weak.p.process.same(f.p.process) else weak.in_process(f.p)


def like_companion(run: Run, *, network: bool, process: bool) -> Run:
    """A run that trains the network, and in the process, of the model that it begins with.

    Raises:
        FewstepError: it begins with none, or with one that cannot be read.
    """
    name = require(
        run.teacher or run.init,
        "the network or process of another model is that of --teacher or --init: give one.",
    )
    f = as_map(open_model(name), "a network like that of another model")
    if network:
        run = replace(run, network=_component(f.network.config, "shape", "num_classes"))
    return replace(run, p=_component(f.process)) if process else run


def _component(config: Mapping[str, Any], *left: str) -> Component:
    """The component of a stored description, without what the data say."""
    arguments = {k: v for k, v in config.items() if k not in ("name", *left)}
    return Component(config["name"], arguments)


def _is_of_another(theirs: Parameterization, ours: Parameterization) -> bool:
    """Whether a network has to be matched: another process, or another network of the same one."""
    return type(theirs) is not type(ours) or not theirs.process.same(ours.process)


def _chosen(run: Run, p: Parameterization) -> dict[str, str]:
    """The form and the second embedding that a run asks for, which are not to be the teacher's."""
    asked = {name: value for name, value in run.p.arguments.items() if name in ("form", "second")}
    return asked if p.continuous else {"form": p.form} | asked


def in_float32(f: AnyModel, path: object) -> None:
    """Turn the weights of a model that training begins with into those that it computes with."""
    if f.dtype != torch.float32:
        warnings.warn(
            f"the weights of {path} are {str(f.dtype).removeprefix('torch.')}; training goes on "
            "from them in float32.",
            FewstepWarning,
            stacklevel=2,
        )
        f.float()


def take_weights(f: AnyModel, other: AnyModel, path: object) -> None:
    """Begin with the weights of another model; how it was trained does not matter.

    Its classes and the size of its images may be others: see `fewstep.runs.taken`.

    Raises:
        FewstepError: a model of other channels or latents, or another network.
    """
    theirs = tensors_for(f, other, path)
    try:
        f.take_tensors(theirs, path)
    except FewstepError as error:
        raise why_not(f, other, path, error) from error
    in_float32(other, path)
    changed = {}
    if isinstance(f, FlowMap) and isinstance(other, FlowMap):
        changed = differences(other.p, f.p)
    for name, (theirs, ours) in list(changed.items())[:1]:
        warnings.warn(
            f"{path} has {name} {theirs}, this run {ours}: the weights have to learn what that is.",
            FewstepWarning,
            stacklevel=2,
        )


def check_pairs(objective: Objective, data: Dataset, run: Run) -> None:
    """Raise `FewstepError` where an objective would learn from pairs of another teacher."""
    teacher = objective.f.info.get("teacher")
    made_by = data.origin.get("teacher")
    if not objective.needs.columns or made_by is None:
        return
    if teacher is None:
        objective.f.info["teacher"] = {"path": data.origin["path"], "sha256": made_by}
    elif teacher["sha256"] != made_by:
        raise FewstepError(
            f"the pairs {data.source} were made by another model ({data.origin['path']}) than the "
            f"teacher {run.teacher}: make pairs with the teacher, or give it as --teacher."
        )
