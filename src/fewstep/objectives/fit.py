"""Whether a map and a data set have what an objective needs, before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fewstep.data import Dataset
from fewstep.data.augment import NUMBERS
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import NETWORKS, Needs
from fewstep.networks import Network
from fewstep.parameterization import PARAMETERIZATIONS, PROCESSES, Parameterization
from fewstep.stored_model import StoredModel


def check_map(name: str, needs: Needs, f: StoredModel) -> None:
    """Raise `FewstepError` for the first need that a map does not meet.

    Args:
        name: of the objective.
        needs: of the objective.
        f: the model that it is to train.
    """
    for fault in _faults(needs, f):
        raise FewstepError(f"{name} {fault}.")


def check_process(name: str, needs: Needs, p: Parameterization) -> None:
    """Raise `FewstepError` for the first need that a parameterization does not meet.

    It takes no data and no network to tell.

    Args:
        name: of the objective.
        needs: of the objective.
        p: that of the map that it is to train.
    """
    for fault in _faults_of_process(needs, p):
        raise FewstepError(f"{name} {fault}.")


STRONGEST = 20.0  # noise that drowns small data, for processes without an end of their own


def suited(needs: Needs, eps: float | None = None) -> Parameterization:
    """A parameterization that meets an objective's needs: EDM's where any will do.

    Args:
        needs: of the objective.
        eps: its end, where it need not be 0; default the parameterization's own.
    """
    found = PARAMETERIZATIONS.build(needs.processes[0] if needs.processes else "edm")
    changed: dict[str, Any] = {"eps": found.eps if eps is None else eps}
    if found.T > STRONGEST:
        changed["T"] = STRONGEST
    if needs.eps_zero:
        changed["eps"] = 0.0
    if needs.forms or needs.flow:
        changed["form"] = needs.forms[0] if needs.forms else "ddim"
    return replace(found, **changed)


def _faults(needs: Needs, f: StoredModel) -> Iterator[str]:
    F = f.network
    if needs.network not in F.gives:
        wanted = NETWORKS.get(needs.network, "a network that maps noise to images")
        yield f"needs {wanted}, and {F.config['name']} is none"
    if isinstance(f, FlowMap):
        yield from _faults_of_network(needs, F)
        yield from _faults_of_process(needs, f.p)
        if "second" in f.p.config and not F.two_time:
            yield (
                f"has second={f.p.second!r}, which tells a network the end of its map, and this "
                f"{F.config['name']} takes one time: leave out --p.second, or give "
                "--network.two-time"
            )


def _faults_of_network(needs: Needs, F: Network) -> Iterator[str]:
    if needs.two_time and not F.two_time:
        yield (
            "trains a map between any two times: it needs a network that takes both, and this "
            f"{F.config['name']} takes one. Give two_time=True, --network.two-time"
        )
    told = F.num_classes or F.embeds
    if F.label_dropout and (needs.every_class or not told):
        why = "needs the class of every example" if told else "has no classes to hide"
        yield f"{why}: leave out label_dropout, --network.label-dropout"
    if needs.null_class and not F.label_dropout:
        why = "give label_dropout, --network.label-dropout 0.1" if told else "give classes"
        yield f"learns with and without a class, and this network hides none: {why}"


def _faults_of_process(needs: Needs, p: Parameterization) -> Iterator[str]:
    if needs.processes and not _is_one_of(p, needs.processes):
        yield f"needs the process {' or '.join(needs.processes)}, not {p.config['name']}"
    if needs.eps_zero and p.eps != 0:
        yield f"maps to the data itself: it needs eps=0, --p.eps 0, and got {p.eps}"
    if needs.forms and p.form not in needs.forms:
        forms = " or ".join(needs.forms)
        yield f"needs the form {forms}, --p.form {needs.forms[0]}, not {p.form}"
    if needs.flow and not p.flow:
        yield f"needs a map that begins as its PF-ODE does, such as --p.form ddim, not {p.form}"
    if needs.continuous and not p.continuous:
        yield (
            f"needs a map that is differentiable in t, such as edm; that of {p.config['name']} "
            "jumps at its end"
        )


def _is_one_of(p: Parameterization, names: tuple[str, ...]) -> bool:
    return isinstance(p.process, tuple(PROCESSES[name] for name in names))


def check_augmented(f: StoredModel, data: Dataset) -> None:
    """Raise `FewstepError` where a network cannot be told how an image was augmented."""
    if not data.is_images or f.latents is not None:
        raise FewstepError(
            "only images can be augmented, no latents and no points: leave out augment."
        )
    inputs = getattr(f.network, "augment", 0)
    if inputs != NUMBERS:
        raise FewstepError(
            f"augmentation tells the network {NUMBERS} numbers of each image, and "
            f"{f.network.config['name']} takes {inputs}: give a unet or adm, with "
            f"augment={NUMBERS}, or leave out --augment."
        )


def check_columns(name: str, needs: Needs, data: Dataset, flip: bool) -> None:
    """Raise `FewstepError` unless the data have what an objective learns from.

    Args:
        name: of the objective.
        needs: of the objective.
        data: the training images.
        flip: whether the training mirrors or moves them.
    """
    missing = [column for column in needs.columns if column not in data.columns]
    if other := [column for column in missing if column in needs.other_columns]:
        raise FewstepError(
            f"{name} learns from {' and '.join(other)} of each image; {data.name} has none: give "
            "data whose reader gives them, Dataset.columns."
        )
    if missing:
        how = " --trajectory 4" * ("trajectory" in missing)
        raise FewstepError(
            f"{name} learns from pairs with {' and '.join(needs.columns)}; {data.name} has no "
            f"{' and '.join(missing)}. Make them with: fewstep pairs TEACHER{how} -o FOLDER, and "
            "give --data FOLDER."
        )
    if needs.columns and flip:
        raise FewstepError(
            f"{name} learns from pairs, which cannot be mirrored or moved: leave out --flip and "
            "--augment."
        )
