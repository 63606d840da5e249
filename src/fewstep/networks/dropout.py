"""Dropout whose masks two passes through a network can share.

The consistency losses compare a network at two points with one dropout mask. The first pass inside
`SharedDropout` draws the masks, the second takes them again in the same order. They are tensors
like any other, so that a compiler can take both passes into one graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError


class SharedDropout:
    """``with masks: first pass`` and ``with masks: second pass``: the second sees the same masks.

    Both must drop at the same places, as the same network does. A later pass may be of the first
    rows of the batch alone.
    """

    def __init__(self) -> None:
        self.masks: list[Tensor] = []
        self._next = 0
        self._outer: list[SharedDropout | None] = []

    def __enter__(self) -> None:
        global _active
        self._outer.append(_active)
        self._next, _active = 0, self

    def __exit__(self, *error: object) -> None:
        global _active
        _active = self._outer.pop()

    def mask(self, draw: Callable[[], Tensor], rows: int | None = None) -> Tensor:
        """The mask of this place: drawn in the first pass, repeated in the others.

        Args:
            draw: makes one.
            rows: of which images it is, the first of the batch; None of one number for all.
        """
        if self._next == len(self.masks):
            self.masks.append(draw())
        self._next += 1
        found = self.masks[self._next - 1]
        return found if rows is None else found[:rows]


_active: SharedDropout | None = None


def shared() -> SharedDropout:
    """The masks in use, or new ones where none are."""
    return SharedDropout() if _active is None else _active


def mask(draw: Callable[[], Tensor], rows: int | None = None) -> Tensor:
    """What ``draw`` gives, or inside `SharedDropout` what it gave at this place before.

    Whatever a network draws at random must go through here, or student and target differ in it.
    """
    return draw() if _active is None else _active.mask(draw, rows)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element with probability ``p`` in training, and scale the others by ``1/(1-p)``.

    On the CPU the draws of torch's own dropout cost as much as a convolution, so there four
    elements share one 64-bit number; ``p`` is then a multiple of ``2^-16``.
    """
    if not (training and p):
        return x
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    if x.device.type == "cpu" and dense and not torch.compiler.is_compiling():
        return x * mask(lambda: _packed_mask(x, p), len(x))
    if _active is None:
        return functional.dropout(x, p)
    return x * mask(lambda: _plain_mask(x, p), len(x))


def dropout_seed(device: torch.device) -> Tensor:
    """For a kernel that computes its mask itself: an int64 from the device's random stream."""
    return torch.randint(2**63 - 1, (), device=device)


def _packed_mask(x: Tensor, p: float) -> Tensor:
    kept = min(max(round((1 - p) * 2**16), 1), 2**16)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16).as_strided(x.shape, x.stride())
    keep = (draws < kept - 2**15) if kept < 2**16 else torch.ones_like(draws)
    return keep.to(x.dtype).mul_(2**16 / kept)


def _plain_mask(x: Tensor, p: float) -> Tensor:
    keep = torch.rand(x.shape, device=x.device) >= p
    return keep.to(x.dtype) / (1 - p)


def check_dropout(network: nn.Module) -> None:
    """Raise `FewstepError` for torch's own dropout, whose masks two passes cannot share."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
            raise FewstepError(
                f"{name} of the network is torch's {type(module).__name__}, of which student and "
                "target would get different masks: use fewstep.networks.dropout."
            )
