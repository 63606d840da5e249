"""EDM2's U-Net as `fewstep.networks.EDM2UNet`; the names of ``networks_edm2.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor

from fewstep.exchange.files.tensors import COPY, Pair, heads_first
from fewstep.networks import EDM2UNet
from fewstep.networks.edm2 import MPBlock

OUTER = {
    "fourier.w": "emb_fourier.freqs",
    "fourier.phase": "emb_fourier.phases",
    "embed.weight": "emb_noise.weight",
    "embed_label.weight": "emb_label.weight",
    "write.weight": "out_conv.weight",
    "gain": "out_gain",
}
INNER = {
    "gain": "emb_gain",
    "conv0.weight": "conv_res0.weight",
    "affine.weight": "emb_linear.weight",
    "conv1.weight": "conv_res1.weight",
    "skip.weight": "conv_skip.weight",
    "qkv.weight": "attn_qkv.weight",
    "proj.weight": "attn_proj.weight",
}


def is_edm2(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of EDM2's U-Net."""
    return "emb_fourier.freqs" in tensors


def read_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `EDM2UNet` that names and shapes tell."""
    sides = {name.split(".")[1].split("x")[0] for name in tensors if name.startswith("enc.")}
    heights = sorted(map(int, sides), reverse=True)
    size, label = heights[0], tensors.get("emb_label.weight")

    def has(name: str) -> bool:
        return f"{name}.weight" in tensors

    widths = [tensors[f"enc.{h}x{h}_block0.conv_res1.weight"].shape[0] for h in heights]
    blocks = 0
    while has(f"enc.{size}x{size}_block{blocks}.conv_res1"):
        blocks += 1
    return {
        "shape": (tensors["out_conv.weight"].shape[0], size, size),
        "num_classes": 0 if label is None else label.shape[1],
        "channels": widths[0],
        "multipliers": tuple(w // widths[0] for w in widths),
        "blocks": blocks,
        "attention": tuple(h for h in heights if has(f"enc.{h}x{h}_block0.attn_qkv")),
    }


def pairs(F: EDM2UNet) -> Iterator[Pair]:
    """Every tensor of an `EDM2UNet` and what it is called in EDM2."""
    places = dict(_places(F))
    for ours in F.state_dict():
        if ours in OUTER:
            yield Pair(ours, OUTER[ours])
        elif ours == "read.weight":
            yield Pair(ours, f"enc.{F.shape[1]}x{F.shape[1]}_conv.weight")
        else:
            part, i, inner = ours.split(".", 2)
            name, block = places[f"{part}.{i}"]
            order = heads_first(block.heads, COPY, last=True)
            how = order if inner.startswith("qkv") else COPY
            yield Pair(ours, f"{name}.{INNER[inner]}", how)


def _places(F: EDM2UNet) -> Iterator[tuple[str, tuple[str, MPBlock]]]:
    """EDM2's name of every block."""
    h, n = F.shape[1], 0
    down, middle, up = (cast("list[MPBlock]", part) for part in (F.down, F.middle, F.up))
    for i, layer in enumerate(down):
        halves = layer.direction is not None
        h, n = (h // 2, 0) if halves else (h, n + 1)
        yield f"down.{i}", (f"enc.{h}x{h}_{'down' if halves else f'block{n - 1}'}", layer)
    for i, layer in enumerate(middle):
        yield f"middle.{i}", (f"dec.{h}x{h}_in{i}", layer)
    n = 0
    for i, layer in enumerate(up):
        doubles = layer.direction is not None
        h, n = (2 * h, 0) if doubles else (h, n + 1)
        yield f"up.{i}", (f"dec.{h}x{h}_{'up' if doubles else f'block{n - 1}'}", layer)


def unused(name: str) -> bool:
    """No tensor of its U-Net; the estimate of the uncertainty is outside of it."""
    return False
