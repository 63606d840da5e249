"""The tensors of a model by the names that they have in its file, whatever torch wrapped around."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError, FewstepWarning, listed
from fewstep.networks import plain_name
from fewstep.networks.base import PARALLEL
from fewstep.networks.embeddings import AUGMENTATION, GUIDANCE, INTERVAL

LEFT_OUT = (GUIDANCE, INTERVAL, AUGMENTATION)
"""What a network may be told and does without: see `with_added`."""
LATENTS = "latents."  # what the names of the autoencoder's tensors begin with


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's stored tensors, without the places where compiled modules keep theirs."""
    return {plain_name(name): x for name, x in module.state_dict().items()}


def own_names(names: Iterable[str]) -> dict[str, str]:
    """The names of a file's tensors by those that this package gives them."""
    plain = {plain_name(name): name for name in names}
    network = [name for name in plain if not name.startswith(LATENTS)]
    if not all(name.startswith(f"{PARALLEL}.") for name in network):
        return plain
    return {name.removeprefix(f"{PARALLEL}."): there for name, there in plain.items()}


def decoder_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's tensors among those of a latent model, by their names in it."""
    return {k.removeprefix(LATENTS): x for k, x in tensors.items() if k.startswith(LATENTS)}


def check_decoder(wanted: bool, names: Iterable[str], source: object) -> None:
    """Raise `FewstepError` where a decoder is wanted and none of the names is of one."""
    if wanted and not any(name.startswith(LATENTS) for name in names):
        raise FewstepError(
            f"{source} is a model of latents, but without the autoencoder that decodes them (no "
            f"tensor {LATENTS}*). Copy the model file whole, or train it again."
        )


def check_fit(
    mine: Mapping[str, Tensor], theirs: Mapping[str, tuple[int, ...]], source: object
) -> None:
    """Raise `FewstepError` unless names and shapes are the same; it names those that are not."""
    here = {name: tuple(x.shape) for name, x in mine.items()}
    others = [
        f"{name!r} is {theirs.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in sorted(here.keys() | theirs.keys())
        if theirs.get(name) != here.get(name)
    ]
    if others:
        raise FewstepError(
            f"the weights of {source} do not fit this network: {listed(others)}. "
            "Give the network the same settings."
        )


def with_added(
    mine: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    added: Mapping[str, tuple[str, ...]],
    source: object,
) -> dict[str, Tensor]:
    """Another network's tensors, with or without those of inputs that only one of the two has.

    What this network is told and the other is not adds nothing at first. What the other is told
    and this one is not is left out: without a guidance weight or an augmentation it adds nothing.

    Args:
        mine: the tensors of the network that takes them.
        theirs: the other's.
        added: the inputs that networks may lack; see `Network.added`.
        source: of the other's, for the notes.
    """
    filled = dict(theirs)
    for what, names in added.items():
        if all(name in mine and name not in theirs for name in names):
            filled |= {name: mine[name] for name in names}
            filled[names[0]] = torch.zeros_like(mine[names[0]])
            warnings.warn(
                f"the network of {source} is not told {what}, this one is: it begins as that "
                f"network, with {names[0]} = 0.",
                FewstepWarning,
                stacklevel=3,
            )
        if all(name in theirs and name not in mine for name in names) and what in LEFT_OUT:
            filled = {name: x for name, x in filled.items() if name not in names}
            warnings.warn(
                f"the network of {source} can be told {what}, this one cannot: {names[0]} is left "
                "out, which changes nothing where it was not told.",
                FewstepWarning,
                stacklevel=3,
            )
    return filled


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, assign: bool = False) -> None:
    """Copy tensors into a module, or with ``assign`` make them its own; all must be there."""
    state = {name: tensors[plain_name(name)] for name in module.state_dict()}
    module.load_state_dict(state, assign=assign)
