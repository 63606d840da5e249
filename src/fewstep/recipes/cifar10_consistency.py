"""CIFAR-10 by what grew from consistency models with one time, at the papers' hyper-parameters.

Network, data and teacher are those of `fewstep.recipes.cifar10`. Where a paper does not say a
number, it is from the code published with it, or else from NVIDIA's FastGen, which reproduces the
method. Nothing here has been trained to the end by us.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fewstep.recipes.cifar10 import DATA, TRAINING, network
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component
from fewstep.training.config import Training

TRIGFLOW = component("trigflow", T=round(math.atan(80 / 0.5), 5))
SIMPLIFIED = replace(TRAINING, steps=400_000, lr=1e-4, betas=(0.9, 0.99), ema=(500_000.0,))


def simplified(objective: str, P_std: float, dropout: float, training: Training) -> Run:
    """sCM of a run of cifar10/edm, whose network is used in trigflow's process."""
    return Run(
        objective=component(objective, P_mean=-1.0, P_std=P_std),
        network=network(dropout),
        p=TRIGFLOW,
        data=DATA,
        training=training,
        taus={"2": (1.1,)},
    )


@RECIPES.add("cifar10/sct")
def sct() -> Run:
    """Simplified consistency training in continuous time (sCT: Lu & Song 2024): FID 2.85.

    In two steps 2.06. Of a run of cifar10/edm, for which the paper has P_std = 1.8 (Appendix E.3);
    its own teacher was trained in trigflow's process, with which it is 1.4.
    """
    return simplified("sct", P_std=1.8, dropout=0.2, training=SIMPLIFIED)


@RECIPES.add("cifar10/scd")
def scd() -> Run:
    """Simplified consistency distillation in continuous time (sCD: Lu & Song 2024): FID 3.66.

    In two steps 2.52. Of a run of cifar10/edm; the paper's teacher was trained in trigflow's
    process.
    """
    return simplified("scd", P_std=1.4, dropout=0.0, training=SIMPLIFIED)
