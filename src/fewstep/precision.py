"""In which arithmetic a network is evaluated."""

from __future__ import annotations

from typing import Literal

import torch

from fewstep.errors import unknown

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HALF = (torch.bfloat16, torch.float16)


def has_float64(device: torch.device) -> bool:
    """Whether a device has float64: all but Apple's GPUs."""
    return device.type != "mps"


def widest(x: torch.Tensor) -> torch.Tensor:
    """In float64, or where there is none in float32."""
    return x.double() if has_float64(x.device) else x.float()


def dtype_of(precision: str) -> torch.dtype:
    """The type of a network's weights.

    Raises:
        FewstepError: none of fp32, bf16, fp16.
    """
    if precision not in DTYPES:
        raise unknown("precision", precision, DTYPES)
    return DTYPES[precision]
