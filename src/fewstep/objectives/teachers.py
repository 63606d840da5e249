"""Whether a teacher and the map that learns from it speak of the same noise."""

from __future__ import annotations

import warnings
from typing import Any

from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.parameterization import differences
from fewstep.registry import spec_of


def check_shapes(teacher: FlowMap, f: FlowMap, what: str) -> None:
    """Raise `FewstepError` unless both are models of the same images and classes."""
    for name in ("shape", "num_classes", "embeds"):
        theirs, ours = _said(teacher, name), _said(f, name)
        if theirs != ours:
            raise FewstepError(
                f"{what} has {name} {theirs}, the map in training {ours}: they must agree."
                f"{_how_to_agree(name, theirs, ours)}"
            )


def _said(f: FlowMap, name: str) -> Any:
    return f.network.embeds if name == "embeds" else getattr(f, name)


def _how_to_agree(name: str, theirs: Any, ours: Any) -> str:
    """Which settings of the data make a map's images or classes a teacher's."""
    if name == "num_classes" and not (theirs and ours):
        return (
            f" Train {'with' if theirs else 'without'} classes: --{'' if theirs else 'no-'}labels."
        )
    if name == "shape" and len(theirs) == len(ours) == 3 and theirs[1] == theirs[2]:
        return f" Images of its size are given by --size {theirs[1]} --channels {theirs[0]}."
    return ""


def check_alike(teacher: FlowMap, f: FlowMap, what: str) -> None:
    """Raise `FewstepError` unless the teacher's network means the same as the map's.

    Both must be of one process with the same parameters, and of one preconditioning: for a student
    that takes over the teacher's weights, and whose time steps are its own.
    """
    check_shapes(teacher, f, what)
    for name, (theirs, ours) in differences(teacher.p, f.p).items():
        raise FewstepError(
            f"{what} has {name} {theirs}, the map in training {ours}: they must agree."
        )


def check_follows(teacher: FlowMap) -> None:
    """Raise `FewstepError` for a teacher that was trained for something else than its PF-ODE."""
    if teacher.trained.known:
        teacher.trained.check_teacher("the teacher", follow=True)


def check_teacher_of_hidden(f: FlowMap, teacher: FlowMap, whose: str) -> None:
    """Raise `FewstepError` where label dropout hides classes from a teacher that needs them."""
    if f.network.label_dropout:
        told = teacher.num_classes or teacher.network.embeds
        teacher.trained.check_null_class(told, whose, "label dropout")


def in_process_of(f: FlowMap, teacher: FlowMap, what: str) -> FlowMap:
    """A teacher in the process of the map that asks it, as of its PF-ODE.

    One of another process, or of the same with other parameters, is matched to it by the
    signal-to-noise ratio, which is said.

    Raises:
        FewstepError: a model of other images, or one that no other process can use; one without a
            null class for a map with label dropout.
    """
    check_shapes(teacher, f, what)
    check_teacher_of_hidden(f, teacher, what)
    if teacher.p.process.same(f.p.process):
        say_less_noise(teacher, f, what)
        return teacher
    say_matched(teacher, f, what)
    return teacher.in_process(f.p)


def say_matched(teacher: FlowMap, f: FlowMap, what: str) -> None:
    """A note on a teacher that is used in another process than its own."""
    warnings.warn(
        f"{what} is of {spec_of(teacher.p)}, the map in training of {spec_of(f.p)}: its network is "
        "asked where the signal-to-noise ratio is the same.",
        FewstepWarning,
        stacklevel=4,
    )


def say_less_noise(teacher: FlowMap, f: FlowMap, what: str) -> None:
    """A note on a map that starts from more noise than the teacher's network was made for."""
    if f.p.T > teacher.p.T * (1 + 1e-6):
        warnings.warn(
            f"{what} ends at T={teacher.p.T:g}, the map in training at T={f.p.T:g}: beyond its own "
            "end it was never asked.",
            FewstepWarning,
            stacklevel=4,
        )
