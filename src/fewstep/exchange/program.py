"""Modules as programs of torch, for batches of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

LARGEST_BATCH = 65_536


class _OneByOne(nn.Module):
    """A module whose inputs are a list, whatever names its own have."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)


@torch.no_grad()
def program(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """A module as a program of torch.

    Args:
        module: of tensors [B, ...].
        inputs: an example, of at least two rows.
    """
    batch = Dim("batch", min=1, max=LARGEST_BATCH)
    shapes = tuple({0: batch} for _ in inputs)
    return torch.export.export(
        _OneByOne(module), tuple(inputs), dynamic_shapes=(shapes,), strict=False
    )
