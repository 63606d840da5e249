"""What a network keeps for its backward pass, and its operations, without computing anything.

The network runs on tensors that have shapes and types but no numbers; what autograd saves on the
way is counted, each piece of memory once. It takes about a second, whatever the network's size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from fewstep.flow_map import FlowMap
from fewstep.networks import NETWORKS, Autoencoder, Network
from fewstep.parameterization import EDM


@dataclass(frozen=True)
class Activations:
    """Of one evaluation with gradient.

    Args:
        per_image: bytes that are kept for each image of a micro-batch.
        fixed: bytes that are kept whatever the batch, such as weights that autocast converted.
        flops: floating-point operations of one evaluation of one image, forwards.
    """

    per_image: int
    fixed: int
    flops: int


def activations(network: str, arguments: dict[str, Any], *, bf16: bool = False) -> Activations:
    """Of a network in training.

    Args:
        network: its name.
        arguments: its settings.
        bf16: under autocast.
    """
    return _activations(network, json.dumps(arguments), bf16)


@lru_cache
def _activations(network: str, arguments: str, bf16: bool) -> Activations:
    with FakeTensorMode():
        F = NETWORKS.call(network, json.loads(arguments)).train()
        one, flops = _saved(F, lambda n: evaluated(F, torch.zeros(n, *F.shape)), 1, bf16)
        two, _ = _saved(F, lambda n: evaluated(F, torch.zeros(n, *F.shape)), 2, bf16)
    return Activations(two - one, max(0, 2 * one - two), flops)


def of_vgg(size: int, *, bf16: bool = False) -> Activations:
    """Of the network behind the learned distance, for images of ``size`` pixels a side.

    The 13 convolutions of VGG-16 (Simonyan & Zisserman 2015), on images of at least 224 pixels.
    """
    size = max(224, size)
    with FakeTensorMode():
        F = _vgg()
        image = torch.zeros(1, 3, size, size, requires_grad=True)
        kept, flops = _saved(F, lambda n: F(image), 1, bf16)
    return Activations(kept, 0, flops)


def _vgg() -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).requires_grad_(False)


def evaluated(F: Network, x: Tensor) -> Tensor:
    """A network's output for points [B, *shape], in whose cost every process is alike."""
    if isinstance(F, Autoencoder):
        return F(x, x.new_zeros(len(x)))
    f = FlowMap(F, EDM())
    return f.prediction(x, f.p.T)


def _saved(F: nn.Module, call: Callable[[int], Tensor], n: int, bf16: bool) -> tuple[int, int]:
    """Bytes that an evaluation of ``n`` images saves besides the weights, and its operations."""
    weights = {p.untyped_storage()._cdata for p in F.parameters()}
    kept: dict[int, Any] = {}

    def keep(x: Tensor) -> Tensor:
        memory = x.untyped_storage()
        if memory._cdata not in weights:
            kept[memory._cdata] = memory  # held, so that no other takes its place
        return x

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={flash: _flops_of_attention})
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with counter, saved_tensors_hooks(keep, lambda x: x), autocast:
        call(n)
    return sum(memory.nbytes() for memory in kept.values()), int(counter.get_total_flops())


def _flops_of_attention(q: Any, k: Any, v: Any, *rest: Any, **more: Any) -> int:
    """Of shapes; torch's counter does not know the CPU's kernel."""
    return sdpa_flop_count(q, k, v)
