"""EDM's SongUNet, the network of DDPM++ and NCSN++, as `fewstep.networks.UNet`.

Karras et al. 2022; the names are those of ``training/networks.py`` of NVlabs/edm, which
locuslab/ect and TCM keep. The resolution is part of every name, and everything else but the
dropout follows from names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.exchange.files.tensors import COPY, PERIODS, Pair, heads_first, pointwise
from fewstep.networks import UNet

CONDITION = {"map0": "map_layer0", "map1": "map_layer1"}
ATTENTION = {"norm": "norm2", "qkv": "qkv", "proj": "proj"}
_BLOCK = re.compile(r"enc\.(\d+)x\d+_block(\d+)\.conv0\.weight")


def is_song(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is a SongUNet's."""
    return "map_layer0.weight" in tensors and "out_conv.weight" not in tensors and _sides(tensors)


def _sides(tensors: Mapping[str, Tensor]) -> bool:
    return any(_BLOCK.fullmatch(name) for name in tensors)


def resolutions(tensors: Mapping[str, Tensor]) -> list[int]:
    """The heights of the levels, from the full image to the smallest."""
    found = {int(m[1]) for name in tensors if (m := _BLOCK.fullmatch(name))}
    return sorted(found, reverse=True)


def blocks_of(tensors: Mapping[str, Tensor]) -> int:
    """Residual blocks of a level on the way down."""
    return 1 + max(int(m[2]) for name in tensors if (m := _BLOCK.fullmatch(name)))


def read_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `UNet` that names and shapes tell.

    Raises:
        FewstepError: what `UNet` cannot be.
    """
    heights = resolutions(tensors)
    size = heights[0]
    read = tensors[f"enc.{size}x{size}_conv.weight"]
    channels, image = read.shape[:2]
    if any("_aux_skip" in name for name in tensors):
        raise FewstepError("its encoder is of the type skip, which the network unet does not have")
    if tensors["map_layer0.weight"].shape[0] != 4 * channels:
        raise FewstepError("its embedding is not 4 times as wide as its first level")
    fourier = "map_noise.freqs" in tensors
    written = [name for name in tensors if name.endswith("_aux_conv.weight")]
    label = tensors.get("map_label.weight")
    augment = tensors.get("map_augment.weight")
    width = [tensors[f"enc.{h}x{h}_block0.conv0.weight"].shape[0] for h in heights]
    arguments = {
        "shape": (image, size, size),
        "num_classes": 0 if label is None else label.shape[1],
        "channels": channels,
        "multipliers": tuple(w // channels for w in width),
        "blocks": blocks_of(tensors),
        "attention": tuple(h for h in heights if f"enc.{h}x{h}_block0.qkv.weight" in tensors),
        "embedding": "fourier" if fourier else "positional",
        "encoder": "residual" if any("_aux_residual" in name for name in tensors) else "standard",
        "decoder": "skip" if len(written) > 1 else "standard",
        "resample_filter": _taps(tensors, heights),
    }
    return arguments | ({} if augment is None else {"augment": augment.shape[1]})


def _taps(tensors: Mapping[str, Tensor], heights: list[int]) -> tuple[float, ...]:
    """The low-pass filter along an axis, from the buffer that holds its outer product."""
    if len(heights) == 1:
        return (1, 1)
    kernel = tensors.get(f"enc.{heights[1]}x{heights[1]}_down.conv0.resample_filter")
    if kernel is None:
        return (1, 1)
    row = kernel[0, 0].double().diagonal().sqrt()
    return tuple(round(float(tap), 4) for tap in row / row.min())


def pairs(F: UNet) -> Iterator[Pair]:
    """Every learned tensor of a `UNet` and what it is called in a SongUNet.

    The frequencies of a positional embedding are computed there, and in no file.
    """
    size, levels = F.shape[1], len(F.encoder.levels)
    for ours in F.state_dict():
        first, _, rest = ours.partition(".")
        if first == "condition" and not (rest == "embed.w" and F.positional):
            yield _of_condition(ours, rest)
        elif first == "encoder":
            yield _inside(ours, *_of_encoder(rest, size))
        elif first == "decoder":
            yield _inside(ours, *_of_decoder(rest, size, levels, skip=F.decoder.skip))


def _of_condition(ours: str, rest: str) -> Pair:
    layer, _, kind = rest.partition(".")
    if layer == "embed":
        return Pair(ours, "map_noise.freqs", PERIODS)
    return Pair(ours, f"{CONDITION.get(layer, layer)}.{kind}")


def _of_encoder(rest: str, size: int) -> tuple[str, str]:
    """The module that a tensor of the encoder is in, there, and its name in that."""
    part, *more = rest.split(".")
    if part == "read":
        return f"enc.{size}x{size}_conv", more[0]
    level = int(more[0]) + (part != "levels")
    h = size >> level
    if part == "downs":
        return f"enc.{h}x{h}_down", ".".join(more[1:])
    if part == "add":  # a convolution in a module
        return f"enc.{h}x{h}_aux_residual", more[2]
    return f"enc.{h}x{h}_block{more[1]}", ".".join(more[2:])


def _of_decoder(rest: str, size: int, levels: int, *, skip: bool) -> tuple[str, str]:
    """The module that a tensor of the decoder is in, there, and its name in that."""
    part, *more = rest.split(".")
    smallest = size >> (levels - 1)
    if part == "middle":
        return f"dec.{smallest}x{smallest}_in{more[0]}", ".".join(more[1:])
    h = smallest << (int(more[0]) + (part == "ups"))
    if part == "ups":
        return f"dec.{h}x{h}_up", ".".join(more[1:])
    if part == "write":  # by every level, or by the largest alone
        h = h if skip else size
        return f"dec.{h}x{h}_aux_{'norm' if more[1] == '0' else 'conv'}", more[2]
    return f"dec.{h}x{h}_block{more[1]}", ".".join(more[2:])


def _inside(ours: str, module: str, name: str) -> Pair:
    """A tensor of a block."""
    inner, _, kind = name.partition("attention.")
    if not kind:
        return Pair(ours, f"{module}.{name}")
    layer, _, tensor = kind.partition(".")
    how = {"norm": COPY, "qkv": heads_first(1, pointwise(2), last=True), "proj": pointwise(2)}[
        layer
    ]
    return Pair(ours, f"{module}.{inner}{ATTENTION[layer]}.{tensor}", how)


def unused(name: str) -> bool:
    """Whether a tensor of this name is a filter, which the settings say."""
    return name.endswith("resample_filter")
