"""`fewstep.networks.ADM` as diffusers' ``UNet2DModel``: its settings and its tensors' names.

They are those of diffusers' own conversion of openai's consistency models: residual blocks that
resample, and attention in whole levels. What a ``UNet2DModel`` cannot be is refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.networks import ADM
from fewstep.networks.adm import EPS
from fewstep.networks.layers import Attention

OUTER = {
    "embed.0": "time_embedding.linear_1",
    "embed.2": "time_embedding.linear_2",
    "embed_label": "class_embedding",
    "read": "conv_in",
    "norm": "conv_norm_out",
    "write": "conv_out",
}
BLOCK = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "proj": "to_out.0"}
QKV = ("to_q", "to_k", "to_v")
"""Queries, keys and values are one layer here and three there."""
EXPRESSED = (
    *("name", "shape", "num_classes", "channels", "multipliers", "blocks", "attention"),
    *("head_channels", "heads", "dropout", "scale_shift"),
    *("time_scale", "label_dropout"),  # of the process, and of training alone
)
"""Arguments that a ``UNet2DModel`` or its pipeline has a place for; others must be the default."""


def settings(network: ADM) -> dict[str, Any]:
    """The settings of the ``UNet2DModel`` that is this network, as its ``config.json`` has them.

    Raises:
        FewstepError: there is none; the message names the setting at fault.
    """
    s = _arguments(network)
    widths = [round(s["channels"] * multiplier) for multiplier in s["multipliers"]]
    if widths[0] != s["channels"]:
        raise FewstepError(
            f"a UNet2DModel begins as wide as its time embedding, with {s['channels']} channels "
            f"and not {widths[0]}"
        )
    attended = [network.shape[1] >> level in network.attention for level in range(len(widths))]
    return {
        "sample_size": _side(network.shape),
        "in_channels": network.shape[0],
        "out_channels": network.shape[0],
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "block_out_channels": widths,
        "layers_per_block": s["blocks"],
        "down_block_types": [f"{_kind(yes)}Down{_place(yes)}" for yes in attended],
        "up_block_types": [f"{_kind(yes)}Up{_place(yes)}" for yes in reversed(attended)],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift" if s["scale_shift"] else "default",
        "attention_head_dim": _head_dim(network),
        "norm_num_groups": _groups(network),
        "attn_norm_num_groups": _groups(network),
        "norm_eps": EPS,
        "dropout": s["dropout"],
        "num_class_embeds": network.num_classes or None,
    }


def _arguments(network: ADM) -> dict[str, Any]:
    """Every argument of a network, those that it was made without among them.

    Raises:
        FewstepError: one that a ``UNet2DModel`` has no place for.
    """
    known = inspect.signature(type(network)).parameters
    defaults = {name: p.default for name, p in known.items()}
    for name, value in network.config.items():
        if name not in EXPRESSED and value != defaults[name]:
            raise FewstepError(f"a UNet2DModel has no place for {name}={value!r}")
    return defaults | network.config


def _kind(attends: bool) -> str:
    return "Attn" if attends else "Resnet"


def _place(attends: bool) -> str:
    return "Block2D" if attends else "sampleBlock2D"


def _side(shape: tuple[int, ...]) -> int:
    if shape[1] != shape[2]:
        raise FewstepError(f"its pipelines make square images, and these are {shape[1:]}")
    return shape[1]


def _head_dim(network: ADM) -> int:
    """Channels of an attention head, of which a ``UNet2DModel`` has one number."""
    found = {part.proj.out_features // part.heads for part in _all(network, Attention)}
    if len(found) > 1:
        raise FewstepError(
            f"a UNet2DModel has attention heads of one number of channels, and this network of "
            f"{_or(found)}"
        )
    return found.pop()


def _groups(network: ADM) -> int:
    """Groups of its norms, of which a ``UNet2DModel`` has one number."""
    found = {norm.num_groups for norm in _all(network, nn.GroupNorm)}
    if len(found) > 1:
        raise FewstepError(
            f"a UNet2DModel has group norms of one number of groups, and this network of "
            f"{_or(found)}: from 128 channels on all have 32"
        )
    return found.pop()


def _all(network: nn.Module, kind: type) -> list[Any]:
    return [part for part in network.modules() if isinstance(part, kind)]


def _or(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))


def tensors(network: ADM, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the ``UNet2DModel``, by their names there and in the type that they have.

    Args:
        network: whose places they are.
        ours: its tensors.
    """
    return {name: x.contiguous() for name, x in _renamed(network, ours)}


def _renamed(network: ADM, ours: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    places = dict(_places(network))
    for name, x in ours.items():
        top, _, kind = name.rpartition(".")
        if top in OUTER:
            yield f"{OUTER[top]}.{kind}", x
            continue
        module, _, layer = top.rpartition(".")
        place = places[module]
        if layer == "qkv":
            for part, rows in zip(QKV, x.chunk(3), strict=True):
                yield f"{place}.{part}.{kind}", rows
        else:
            inner = ATTENTION if ".attentions." in place else BLOCK
            yield f"{place}.{inner[layer]}.{kind}", x


def _places(network: ADM) -> Iterator[tuple[str, str]]:
    """Each block and attention of a network, and where it is there."""
    blocks = len(network.up) // network.levels - 1
    for i, level in enumerate(network.down):
        at, place = divmod(i + 1, blocks + 1)
        if not place:  # the block that halves what the level before gives
            yield f"down.{i}.0", f"down_blocks.{at - 1}.downsamplers.0"
            continue
        yield from _inside(f"down.{i}", level, f"down_blocks.{at}", place - 1)
    for j, name in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        yield f"middle.{j}", f"mid_block.{name}"
    for i, level in enumerate(network.up):
        at, place = divmod(i, blocks + 1)
        yield from _inside(f"up.{i}", level, f"up_blocks.{at}", place)


def _inside(ours: str, level: nn.Module, theirs: str, place: int) -> Iterator[tuple[str, str]]:
    """A block, and the attention or the doubling that may follow it."""
    for j, part in enumerate(level.children()):
        if isinstance(part, Attention):
            yield f"{ours}.{j}", f"{theirs}.attentions.{place}"
        else:
            yield f"{ours}.{j}", f"{theirs}.upsamplers.0" if j else f"{theirs}.resnets.{place}"
