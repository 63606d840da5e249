"""How networks of other projects are told the time, where their files leave it to the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fewstep.parameterization import from_config

OPENAI, DIFFUSERS = "openai", "diffusers"
STEPS = 1000.0
"""Of DDPM's chain, by which embeddings of the time are laid out (Ho et al. 2020)."""
COUNTED = 10.0  # c_noise at T of a process that counts steps is larger, of any other smaller


def time_scale(process: Mapping[str, Any], *, consistency: bool, project: str) -> float:
    """What ``c_noise`` is multiplied by before the network is told it: 1 or `STEPS`.

    A process that counts steps has their index as ``c_noise``, which all take. In EDM's process it
    is ``ln(t) / 4``. All models of openai/consistency_models take 1000 times that (``rescaled_t``
    of ``karras_diffusion.py``), and so do the consistency models of diffusers
    (``CMStochasticIterativeScheduler``). The diffusion models of diffusers take it as it is
    (``EDMEulerScheduler``). Diffusers' flows take ``1000 t``.

    Args:
        process: name and arguments of the parameterization.
        consistency: whether the model is a consistency model.
        project: `OPENAI` or `DIFFUSERS`.
    """
    p = from_config(dict(process))
    if float(p.c_noise(torch.tensor(p.T, dtype=torch.float64))) > COUNTED:
        return 1.0
    flows = process["name"] == "rectified_flow"
    return STEPS if project == OPENAI or consistency or flows else 1.0


def as_said(scale: float) -> str:
    """The note of a scale that was assumed."""
    return f"its network is taken to be told {scale:g} times c_noise (--time-scale)"
