"""The weights of a model for another number of classes, or for images of another size."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fewstep import networks
from fewstep.classes import Agreement, names_for
from fewstep.errors import FewstepError, FewstepWarning, listed
from fewstep.named_tensors import named_tensors
from fewstep.networks import Network, skeleton
from fewstep.stored_model import StoredModel


def tensors_for(f: StoredModel, other: StoredModel, path: object) -> dict[str, Tensor]:
    """The weights of another model's network as the network of ``f`` may take them.

    A class that both know by name keeps its numbers. A new class begins as the mean of all that
    the other model knows, or where that knows none as no class at all. What becomes of the classes
    is said, and so is another size of images.

    Raises:
        FewstepError: images of other channels.
    """
    _check_images(f, other, path)
    theirs = named_tensors(other.network)
    ours, known = _classes(f), _classes(other)
    if ours == known:
        return theirs
    if not (ours and known):
        return theirs | _without_classes(f, other, theirs, path)
    agreement = Agreement(known, ours)
    by_name = len(ours) == len(known) or not agreement.by_place
    numbers = agreement.numbers if by_name else (-1,) * len(known)
    _say(known, ours, numbers, path)
    gain = other.network.class_gain / f.network.class_gain
    for name, axis in class_axes(f.network).items():
        if name in theirs:
            theirs[name] = _rows(theirs[name], axis, numbers, len(ours), gain)
    return theirs


def class_axes(F: Network) -> dict[str, int]:
    """The weights of a network with classes that have numbers for each class, and their axis."""
    here, more = (_shapes(F, F.num_classes + i) for i in (0, 1))
    differ = {name: [a != b for a, b in zip(here[name], more[name], strict=True)] for name in here}
    return {name: axes.index(True) for name, axes in differ.items() if any(axes)}


def _shapes(F: Network, num_classes: int) -> dict[str, tuple[int, ...]]:
    config: dict[str, Any] = F.config | {"num_classes": num_classes}
    with skeleton():
        made = networks.from_config(config)
    return {name: tuple(x.shape) for name, x in named_tensors(made).items()}


def _classes(f: StoredModel) -> tuple[str, ...]:
    return names_for(f.num_classes, f.trained.classes)


def _rows(x: Tensor, axis: int, numbers: tuple[int, ...], n: int, gain: float) -> Tensor:
    """Numbers of ``n`` classes along an axis, from those of others that have other numbers."""
    old = x.movedim(axis, 0) * gain
    new = old.mean(0, keepdim=True).repeat(n, *[1] * (old.ndim - 1))
    for i, number in enumerate(numbers):
        if number >= 0:
            new[number] = old[i]
    return new.movedim(0, axis).contiguous()


def _without_classes(
    f: StoredModel, other: StoredModel, theirs: dict[str, Tensor], path: object
) -> dict[str, Tensor]:
    """What stands for the classes where one of two networks knows none; what is left is dropped."""
    mine, one = named_tensors(f.network), f if f.num_classes else other
    only = named_tensors(one.network).keys() - _shapes(one.network, 0).keys()
    if not f.num_classes:
        for name in only:
            theirs.pop(name, None)
        _warn(f"{path} knows {other.num_classes} classes, this run none: they are left out.")
        return {}
    _warn(f"{path} knows no classes, this run {listed(_classes(f))}: each begins as no class.")
    return {name: _nothing(f.network, name, mine[name]) for name in only}


def _nothing(F: Network, name: str, x: Tensor) -> Tensor:
    """Numbers with which a class adds nothing; as they are where zeros would be normalised."""
    layer = F.get_submodule(name.rpartition(".")[0])
    plain = isinstance(layer, nn.Embedding | nn.Linear)
    return torch.zeros_like(x) if plain else x


def _say(
    known: tuple[str, ...], ours: tuple[str, ...], numbers: tuple[int, ...], path: object
) -> None:
    kept = [ours[i] for i in numbers if i >= 0]
    if len(kept) == len(ours) == len(known):
        return
    new = [name for name in ours if name not in kept]
    what = [f"{listed(kept)} {'is' if len(kept) == 1 else 'are'} kept"] * bool(kept)
    what += [f"{listed(new)} {'begins' if len(new) == 1 else 'begin'} as their mean"] * bool(new)
    _warn(f"{path} knows the classes {listed(known)}: {', '.join(what)}.")


def _check_images(f: StoredModel, other: StoredModel, path: object) -> None:
    ours, theirs = tuple(f.shape), tuple(other.shape)
    if ours == theirs:
        return
    if len(ours) != 3 or len(theirs) != 3 or ours[0] != theirs[0]:
        raise FewstepError(
            f"the model {path} is of shape {theirs}, this run of {ours}: only height and width may "
            "be others (--channels says how many channels images are read with)."
        )
    _warn(f"{path} was trained on images of {_size(theirs)}, this run has {_size(ours)}.")


def why_not(f: StoredModel, other: StoredModel, path: object, error: FewstepError) -> FewstepError:
    """The error for weights that do not fit a network of images of another size."""
    if tuple(f.shape) == tuple(other.shape):
        return error
    name = f.network.config["name"]
    attends = "attention" in inspect.signature(type(f.network).__init__).parameters
    other_way = ", or --network.attention with the heights of this size" * attends
    return FewstepError(
        f"the {name} of {path} is made for images of {_size(other.shape)}, not {_size(f.shape)}: "
        f"give --size {other.shape[1]}{other_way}. ({error})"
    )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]}"


def _warn(text: str) -> None:
    warnings.warn(text, FewstepWarning, stacklevel=4)
