"""The digits by what grew from consistency models with one time: sCM, TCM, multistep, ...

Network, optimiser, data and teacher are those of `fewstep.recipes.digits`, and the training
compute is that of digits/cd: 1200 steps of 6 network evaluations an image.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fewstep.recipes.digits import DATA, NETWORK, TAUS, TRAINING
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component

SIGMA_DATA = 0.752


def angle(level: float) -> float:
    """The time of trigflow that has a noise level of EDM."""
    return round(math.atan(level / SIGMA_DATA), 4)


TRIGFLOW = component("trigflow", T=angle(20.0), sigma_data=SIGMA_DATA)
ANGLES = {steps: tuple(map(angle, taus)) for steps, taus in TAUS.items()}


def simplified(objective: str, steps: int, **arguments: Any) -> Run:
    """sCM of a diffusion model in EDM's process, whose network is used in trigflow's."""
    return Run(
        objective=component(objective, P_mean=-0.6, P_std=1.4, tangent_warmup=300, **arguments),
        network=NETWORK,
        p=TRIGFLOW,
        data=DATA,
        training=replace(TRAINING, steps=steps, lr=3e-4),
        taus=ANGLES,
    )


@RECIPES.add("digits/scd")
def scd() -> Run:
    """Simplified consistency distillation, in continuous time (sCD: Lu & Song 2024).

    The paper's tangent, its normalisation and the learned weight; the warm-up is a quarter of this
    short training, and the times are digits/cd's.
    """
    return simplified("scd", steps=1030)


@RECIPES.add("digits/sct")
def sct() -> Run:
    """Simplified consistency training, in continuous time (sCT: Lu & Song 2024).

    As digits/scd, along the path of one image and one noise; from a diffusion model's weights.
    """
    return simplified("sct", steps=1200)
