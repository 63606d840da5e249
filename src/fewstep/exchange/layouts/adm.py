"""ADM's U-Net as openai and as NVIDIA name it, as `fewstep.networks.ADM`.

Dhariwal & Nichol 2021. ``UNetModel`` of openai/guided-diffusion and openai/consistency_models, and
``DhariwalUNet`` of NVlabs/edm, are the same network with other names, another order of queries,
keys and values, and another scale of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.exchange.files.tensors import COPY, TRANSPOSED, How, Pair, heads_first, pointwise
from fewstep.exchange.layouts.song import ATTENTION, blocks_of, resolutions
from fewstep.networks import ADM

LEAST_CHANNELS = 128  # with fewer, their 32 groups and ours differ
LARGEST_ATTENDED = 32  # pixels of the largest maps with attention, of every published network
INNER = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
    "skip": "skip_connection",
    "norm": "norm",
    "qkv": "qkv",
    "proj": "proj_out",
}
OUTER = {
    "embed.0": "time_embed.0",
    "embed.2": "time_embed.2",
    "embed_label": "label_emb",
    "read": "input_blocks.0.0",
    "norm": "out.0",
    "write": "out.2",
}
_UP = re.compile(r"output_blocks\.(\d+)\.(\d+)\.in_layers\.0\.weight")


# openai's names


def is_openai(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a UNetModel's."""
    return "time_embed.0.weight" in tensors and "input_blocks.0.0.weight" in tensors


def read_openai(tensors: Mapping[str, Tensor], size: int | None = None) -> dict[str, Any]:
    """The arguments of `ADM` that names and shapes tell.

    Args:
        tensors: the state dict.
        size: of the images; default where the largest maps with attention have 32 pixels.

    Raises:
        FewstepError: what `ADM` cannot be.
    """
    if any(name.endswith(".op.weight") for name in tensors):
        raise FewstepError("it resamples by convolutions, and the network adm by residual blocks")
    channels = tensors["time_embed.0.weight"].shape[1]
    if channels < LEAST_CHANNELS:
        raise FewstepError(
            f"it has {channels} channels, and below {LEAST_CHANNELS} its group norms are others"
        )
    outputs = {int(m[1]) for name in tensors if (m := _UP.fullmatch(name))}
    ups = {int(m[1]) for name in tensors if (m := _UP.fullmatch(name)) and m[2] != "0"}
    levels = len(ups) + 1
    blocks = len(outputs) // levels - 1
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = [_out(tensors, f"input_blocks.{i}.0.out_layers.3") for i in firsts]
    attended = [i for i, at in enumerate(firsts) if f"input_blocks.{at}.1.qkv.weight" in tensors]
    label = tensors.get("label_emb.weight")
    if _out(tensors, "out.2") == tensors["input_blocks.0.0.weight"].shape[1] == 6:
        raise FewstepError("it also looks at a small image, to enlarge it: no sampler here has one")
    image, affine = tensors["input_blocks.0.0.weight"].shape[1], "input_blocks.1.0.emb_layers.1"
    size = size or _size(attended, levels)
    multiples = [w / channels for w in widths]
    return {
        "shape": (image, size, size),
        "num_classes": 0 if label is None else label.shape[0],
        "channels": channels,
        "multipliers": tuple(int(m) if m == int(m) else m for m in multiples),
        "blocks": blocks,
        "attention": tuple(size >> i for i in attended),
        "scale_shift": _out(tensors, affine) == 2 * widths[0],
    }


def _out(tensors: Mapping[str, Tensor], layer: str) -> int:
    return tensors[f"{layer}.weight"].shape[0]


def _size(attended: list[int], levels: int) -> int:
    if not attended:
        raise FewstepError("the size of its images does not follow from its weights: give --size")
    return LARGEST_ATTENDED << min(attended)


def pairs_openai(F: ADM, *, heads_lead: bool = False, axes: int = 1) -> Iterator[Pair]:
    """Every tensor of an `ADM` and what openai calls it.

    Args:
        F: the network.
        heads_lead: whether the rows of queries, keys and values begin with the head, as they do in
            guided-diffusion and not in consistency_models.
        axes: dimensions of the convolutions of the attention: 2 in consistency_models.
    """
    for ours, x in F.state_dict().items():
        top, _, kind = ours.rpartition(".")
        if top in OUTER:
            yield Pair(ours, f"{OUTER[top]}.{kind}")
            continue
        part, *place, layer = top.split(".")
        if part == "down":
            module = f"input_blocks.{int(place[0]) + 1}.{place[1]}"
        else:
            side = {"middle": "middle_block", "up": "output_blocks"}[part]
            module = f"{side}.{'.'.join(place)}"
        yield Pair(
            ours, f"{module}.{INNER[layer]}.{kind}", _how(F, layer, x, axes, lead=heads_lead)
        )


def _how(F: ADM, layer: str, x: Tensor, axes: int, *, lead: bool, last: bool = False) -> How:
    if layer == "qkv" and lead:
        return heads_first(F.heads_of(x.shape[0] // 3), pointwise(axes), last=last)
    return pointwise(axes) if layer in ("qkv", "proj") else COPY


# NVIDIA's names


def is_dhariwal(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a DhariwalUNet's."""
    return "map_layer0.weight" in tensors and "out_conv.weight" in tensors


def read_dhariwal(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `ADM` that names and shapes tell."""
    heights = resolutions(tensors)
    size = heights[0]
    channels = tensors["map_layer0.weight"].shape[1]
    label, augment = tensors.get("map_label.weight"), tensors.get("map_augment.weight")
    width = [_out(tensors, f"enc.{h}x{h}_block0.conv0") for h in heights]
    arguments = {
        "shape": (tensors[f"enc.{size}x{size}_conv.weight"].shape[1], size, size),
        "num_classes": 0 if label is None else label.shape[1],
        "channels": channels,
        "multipliers": tuple(w // channels for w in width),
        "blocks": blocks_of(tensors),
        "attention": tuple(h for h in heights if f"enc.{h}x{h}_block0.qkv.weight" in tensors),
        "scale_shift": True,
        "time_scale": 1.0,
    }
    return arguments | ({} if augment is None else {"augment": augment.shape[1]})


def pairs_dhariwal(F: ADM) -> Iterator[Pair]:
    """Every tensor of an `ADM` and what EDM calls it."""
    places = {f"{part}.{place}": name for part, place, name in _modules(F)}
    simple = {
        "embed.0": "map_layer0",
        "embed.2": "map_layer1",
        "embed_label": "map_label",
        "embed_augment": "map_augment",
        "read": f"enc.{F.shape[1]}x{F.shape[1]}_conv",
        "norm": "out_norm",
        "write": "out_conv",
    }
    for ours, x in F.state_dict().items():
        top, _, kind = ours.rpartition(".")
        if top in simple:
            yield Pair(ours, f"{simple[top]}.{kind}", TRANSPOSED if "label" in top else COPY)
            continue
        module, _, layer = top.rpartition(".")
        attends = layer in ATTENTION
        yield Pair(
            ours,
            f"{places[module]}.{ATTENTION[layer] if attends else layer}.{kind}",
            _how(F, layer, x, 2, lead=True, last=True) if attends else COPY,
        )


def _modules(F: ADM) -> Iterator[tuple[str, str, str]]:
    """Part, place in it, and NVIDIA's name of every block and attention of an `ADM`."""
    size, levels = F.shape[1], F.levels
    blocks = len(F.up) // levels - 1
    smallest = size >> (levels - 1)
    for i in range(len(F.down)):
        level, place = divmod(i + 1, blocks + 1)
        h = size >> level
        name = f"enc.{h}x{h}_down" if not place else f"enc.{h}x{h}_block{place - 1}"
        yield from (("down", f"{i}.{j}", name) for j in range(2))
    for j, name in enumerate(("in0", "in0", "in1")):
        yield "middle", str(j), f"dec.{smallest}x{smallest}_{name}"
    for i, layers in enumerate(F.up):
        level, place = divmod(i, blocks + 1)
        h = smallest << level
        for j, part in enumerate(layers.children()):
            up = j and hasattr(part, "conv0")
            yield "up", f"{i}.{j}", f"dec.{2 * h}x{2 * h}_up" if up else f"dec.{h}x{h}_block{place}"
