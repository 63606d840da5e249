"""How other projects lay their networks out, and how a state dict tells which it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.exchange.files.tensors import Pair
from fewstep.exchange.imported import Wanted
from fewstep.exchange.layouts import adm, edm2, song


@dataclass(frozen=True)
class Layout:
    """How a project lays a network out.

    Args:
        project: its name.
        network: name of our network.
        is_it: whether a state dict is of it.
        arguments: our network's arguments from the state dict and what is wanted.
        pairs: our tensors and theirs.
        unused: whether a tensor holds nothing learned.
        silent: whether its names and shapes leave the size of the images and the order of queries,
            keys and values open.
    """

    project: str
    network: str
    is_it: Callable[[Mapping[str, Tensor]], bool]
    arguments: Callable[[Mapping[str, Tensor], Wanted], dict[str, Any]]
    pairs: Callable[[Any, bool], Iterable[Pair]]
    unused: Callable[[str], bool] = lambda name: False
    silent: bool = False


LAYOUTS = (
    Layout(
        "EDM's SongUNet",
        "unet",
        song.is_song,
        lambda tensors, wanted: song.read_arguments(tensors),
        lambda F, lead: song.pairs(F),
        song.unused,
    ),
    Layout(
        "EDM's DhariwalUNet",
        "adm",
        adm.is_dhariwal,
        lambda tensors, wanted: adm.read_dhariwal(tensors),
        lambda F, lead: adm.pairs_dhariwal(F),
        song.unused,
    ),
    Layout(
        "openai's UNetModel",
        "adm",
        adm.is_openai,
        lambda tensors, wanted: adm.read_openai(tensors, wanted.size),
        lambda F, lead: adm.pairs_openai(F, heads_lead=lead),
        silent=True,
    ),
    Layout(
        "EDM2's U-Net",
        "edm2",
        edm2.is_edm2,
        lambda tensors, wanted: edm2.read_arguments(tensors),
        lambda F, lead: edm2.pairs(F),
        edm2.unused,
    ),
)
"""Every network that can be read, in any order: no state dict is of two."""
READ_HERE = f"What is read here: {', '.join(layout.project for layout in LAYOUTS)}."


def is_known(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of a network that can be read."""
    return any(layout.is_it(tensors) for layout in LAYOUTS)
