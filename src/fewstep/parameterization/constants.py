"""Tables of numbers that formulas look up, on whatever device they are computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.tracing import transformed


class Constants:
    """Numbers that never change, and their copies of other types on other devices.

    Each copy is made once: one from the host waits for all that a device has still to compute, and
    no CUDA graph can be recorded with it.

    Args:
        values: the numbers, in float64 on the CPU.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._copies: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def of(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The numbers in a type on a device; they are not to be written to."""
        if torch.compiler.is_compiling():  # whose graph would be another one with every new copy
            return self._copied(dtype, device)
        if (dtype, device) in self._copies:
            return self._copies[dtype, device]
        if transformed():  # a copy would end with the transform
            return self._copied(dtype, device)
        with torch.inference_mode(False):  # a copy may later be part of what is differentiated
            copy = self._copies[dtype, device] = self._copied(dtype, device)
        return copy

    def _copied(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return self.values.to(dtype).to(device)  # in this order: not every device has float64

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the copies, whose devices another process may not have."""
        return Constants, (self.values,)
