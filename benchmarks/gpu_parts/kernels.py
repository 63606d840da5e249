"""What single kernels of CIFAR-10's network reach: its convolutions, and the norm's kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.networks import norm
from gpu_parts.stage import H100_BF16, Stage, replaced, timed
from gpu_parts.training import cifar10_network

BATCH = 512
WAYS: dict[str, dict[str, int]] = {  # of the norm's kernel
    "read twice": {"HELD": 0},
    "twice as many in hand": {"SHARE": 16384},
    "half as many in hand": {"SHARE": 4096},
    "32 channels at least": {"NARROW": 32, "HELD": 32768},
}
WIDE = [  # inputs, outputs, size, side: in CIFAR-10's network, in ADM's
    *((512, 256, 3, 32), (384, 256, 3, 32), (512, 256, 3, 16), (512, 256, 3, 8)),
    *((384, 384, 3, 32), (576, 384, 3, 32), (960, 384, 3, 32), (1152, 576, 3, 16)),
    *((512, 256, 1, 32),),
]
SHAPES = [(256, 32), (512, 32), (256, 16)]  # channels, pixels of a side


@dataclass(frozen=True)
class Layer:
    """A convolution of the network."""

    inputs: int
    outputs: int
    size: int
    side: int

    def __str__(self) -> str:
        return f"{self.inputs} to {self.outputs}, {self.size} x {self.size}, {self.side} px"

    def flops(self, batch: int) -> float:
        """Of one pass."""
        return 2.0 * batch * self.side**2 * self.inputs * self.outputs * self.size**2


def kernels(stage: Stage) -> None:
    _weights_in_parts(stage)
    _norms(stage)
    _convolutions(stage)


def _weights_in_parts(stage: Stage) -> None:
    """The gradient of a wide convolution's weights at once, and in parts with their copies."""
    batch, found = 2 if stage.rehearse else 128, {}
    with stage.trying("gradients of weights"):
        for layer in (Layer(*numbers) for numbers in WIDE[: 1 if stage.rehearse else None]):
            make = partial(torch.randn, device=stage.device, dtype=torch.bfloat16)
            shapes = (batch, layer.inputs), (batch, layer.outputs)
            x, y = (
                make(*s, layer.side, layer.side).to(memory_format=torch.channels_last)
                for s in shapes
            )
            w = make(layer.outputs, layer.inputs, layer.size, layer.size)
            w = w.to(memory_format=torch.channels_last)
            times = []
            for width in (layer.inputs, 256, 128):
                step = partial(_gradient_of_weights, x, w, y, width)
                step()
                with stage.alone():
                    times.append(timed(stage, step, 0.05, 30)["ms"])
            found[str(layer)] = " ".join(f"{1e-9 * layer.flops(batch) / t:.0f}" for t in times)
        stage.report("gradients of weights: whole, 256, 128 at once, TFLOP/s", **found)


def _gradient_of_weights(x: Tensor, w: Tensor, y: Tensor, width: int) -> Tensor:
    pad = w.shape[2] // 2
    sizes = ([1, 1], [pad, pad], [1, 1], False, [0, 0], 1)

    def gradient(x: Tensor, w: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        words = (y, x, w, None, *sizes, [False, True, False])
        return torch.ops.aten.convolution_backward(*words)[1]

    return torch.cat(list(map(gradient, x.split(width, 1), w.split(width, 1))), 1)


def layers(network: nn.Module, shape: tuple[int, ...]) -> Counter[Layer]:
    """The convolutions of an evaluation, and how often each occurs; all have stride 1."""
    found: Counter[Layer] = Counter()

    def look(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        place = (module.in_channels, module.out_channels, module.kernel_size[0], y.shape[-1])
        found[Layer(*place)] += 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    with torch.no_grad():
        network(torch.empty(1, *shape), torch.empty(1))
    return found


def _convolutions(stage: Stage) -> None:
    """Time of all convolutions of a step of CT, each alone: its bound, were all else free."""
    with torch.device("meta"):
        network = cifar10_network(stage, 0.0)
        found = layers(network, network.shape)
    batch = 2 if stage.rehearse else BATCH
    for name, layout, free in (
        ("channels last", torch.channels_last, False),
        ("channels last, any algorithms", torch.channels_last, True),
        ("contiguous", torch.contiguous_format, False),
    ):
        with stage.trying(f"convolutions, {name}"):
            cudnn = torch.backends.cudnn
            with replaced(cudnn, "benchmark", free), replaced(cudnn, "deterministic", not free):
                times = {layer: _passes(stage, layer, batch, layout) for layer in found}
            sums = [sum(n * times[layer][i] for layer, n in found.items()) for i in range(3)]
            work = sum(n * layer.flops(batch) for layer, n in found.items())
            ms = 2 * sums[0] + sums[1] + sums[2]
            stage.report(
                f"convolutions, {name}",
                batch=batch,
                ct_step_ms=ms,
                of_bf16_peak=4 * work / ms / 1e-3 / H100_BF16,
                forward_ms=sums[0],
                input_gradient_ms=sums[1],
                weight_gradient_ms=sums[2],
                layers={str(a): _speeds(a, batch, times[a], n) for a, n in found.items()},
            )


def _speeds(a: Layer, batch: int, ms: list[float], n: int) -> str:
    rates = " ".join(f"{1e-9 * a.flops(batch) / each:.0f}" for each in ms)
    return f"{n} times, {rates} TFLOP/s"


def _passes(stage: Stage, a: Layer, batch: int, layout: torch.memory_format) -> list[float]:
    """Milliseconds of forward, input's gradient, weight's gradient."""
    make = partial(torch.randn, device=stage.device, dtype=torch.bfloat16)
    x = make(batch, a.inputs, a.side, a.side).to(memory_format=layout)
    w = make(a.outputs, a.inputs, a.size, a.size).to(memory_format=layout)
    y = make(batch, a.outputs, a.side, a.side).to(memory_format=layout)
    pad = a.size // 2

    def backward(*mask: bool) -> Any:
        sizes = ([1, 1], [pad, pad], [1, 1], False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(y, x, w, None, *sizes, list(mask))

    passes: list[Callable[[], object]] = [
        lambda: functional.conv2d(x, w, padding=pad),
        lambda: backward(True, False, False),
        lambda: backward(False, True, False),
    ]
    for step in passes:
        step()
    with stage.alone():
        return [timed(stage, step, 0.05, 30)["ms"] for step in passes]


def _norms(stage: Stage) -> None:
    """Shift, norm, silu and dropout of channels_last maps, forward and backward."""
    for channels, side in SHAPES[:1] if stage.rehearse else SHAPES:
        shape = (2, 8, 4, 4) if stage.rehearse else (BATCH, channels, side, side)
        with stage.trying(f"norm {channels} x {side}"):
            found: dict[str, Any] = {"torchs": _activated(stage, shape, 0.0, fused=False)}
            if not stage.rehearse:
                found["now"] = _activated(stage, shape, 0.0)
                found["now, dropout"] = _activated(stage, shape, 0.1)
                found |= _ways(stage, shape)
            pass_ms = _copy(stage, shape) / 2
            stage.report(
                f"norm {shape}", one_read_or_write_ms=pass_ms, forward_and_backward_ms=found
            )


def _ways(stage: Stage, shape: tuple[int, ...]) -> dict[str, Any]:
    from fewstep.networks import norm_kernel

    found = {}
    for name, numbers in WAYS.items():
        with ExitStack() as stack:
            for constant, value in numbers.items():
                stack.enter_context(replaced(norm_kernel, constant, value))
            found[name] = _activated(stage, shape, 0.0)
    return found


def _copy(stage: Stage, shape: tuple[int, ...]) -> float:
    x = torch.randn(shape, device=stage.device, dtype=torch.bfloat16)
    with stage.alone():
        return timed(stage, x.clone, 0.1)["ms"]


def _activated(stage: Stage, shape: tuple[int, ...], p: float, *, fused: bool = True) -> str:
    """Milliseconds forward and backward."""
    layer = norm.group_norm(shape[1]).to(stage.device)
    x, g = (
        torch.randn(shape, device=stage.device, dtype=torch.bfloat16).to(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    x.requires_grad_()
    shift = torch.randn(shape[:2], device=stage.device, requires_grad=True)
    leaves = [x, shift, layer.weight, layer.bias]
    with replaced(norm, "fused", norm.fused if fused else lambda x: False):

        def forward() -> Tensor:
            return layer.silu(x.clone() if not fused else x, shift, p=p)

        y = forward()
        backward = partial(torch.autograd.grad, y, leaves, g, retain_graph=True)
        backward()
        with stage.alone():
            times = [timed(stage, step, 0.1)["ms"] for step in (forward, backward)]
    return " + ".join(f"{ms:.3f}" for ms in times)
