"""The models that a training begins with: a teacher, or one whose weights it takes."""

from __future__ import annotations

import warnings

import torch

from fewstep import parameterization
from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.needs import TeacherUse
from fewstep.objectives import Objective
from fewstep.runs.components import objective_of
from fewstep.runs.run import Run
from fewstep.runs.sources import fingerprint


def begin_from_teacher(run: Run, f: FlowMap, teacher: FlowMap) -> FlowMap:
    """Give the map in training its teacher's weights; the teacher in the map's process.

    A consistency model may start from a teacher of another process: its network is then used in
    the student's process by matching the signal-to-noise ratio (`fewstep.parameterization.match`).

    Raises:
        FewstepError: a teacher of another kind.
    """
    path, use = run.teacher, objective_of(run).needs.teacher
    teacher.trained.check_teacher(f"the teacher {path}", follow=use is TeacherUse.DISTIL)
    made = objective_of(run).makes
    if made.maps_to_eps and made.from_any_time and type(teacher.p) is not type(f.p):
        f.p = parameterization.match(teacher.p, f.p, eps=f.p.eps)
        teacher = teacher.in_process(f.p)
    check_teacher(teacher, f, path)
    f.take_network(teacher, path)
    f.info["teacher"] = {"path": str(path), "sha256": fingerprint(teacher)}
    in_float32(teacher, path)
    return teacher


def in_float32(f: FlowMap, path: object) -> None:
    """Turn the weights of a model that training begins with into those that it computes with."""
    if f.dtype != torch.float32:
        warnings.warn(
            f"the weights of {path} are {str(f.dtype).removeprefix('torch.')}; training goes on "
            "from them in float32.",
            FewstepWarning,
            stacklevel=2,
        )
        f.float()


def take_weights(f: FlowMap, other: FlowMap, path: object) -> None:
    """Begin with the weights of another model; how it was trained does not matter.

    Raises:
        FewstepError: a model of other images, classes or latents, or another network.
    """
    for what in ("shape", "num_classes"):
        if (theirs := getattr(other, what)) != (ours := getattr(f, what)):
            raise FewstepError(
                f"the model {path} has {what} {theirs}, this run has {ours}: they must agree."
            )
    f.take_network(other, path)
    in_float32(other, path)
    if type(other.p) is not type(f.p):
        warnings.warn(
            f"{path} is of the process {type(other.p).__name__}, this run of {type(f.p).__name__}: "
            "the weights have to learn new noise levels.",
            FewstepWarning,
            stacklevel=2,
        )


def check_teacher(teacher: FlowMap, f: FlowMap, path: object) -> None:
    """Raise `FewstepError` unless the student can start from the teacher's weights."""
    pairs = {
        "shape": (teacher.shape, f.shape),
        "num_classes": (teacher.num_classes, f.num_classes),
        "parameterization": (type(teacher.p).__name__, type(f.p).__name__),
        "sigma_data": (teacher.p.sigma_data, f.p.sigma_data),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise FewstepError(
                f"the teacher {path} has {what} {theirs}, this run has {ours}: they must agree."
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
