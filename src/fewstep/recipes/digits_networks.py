"""scikit-learn's digits on other networks than the residual MLP."""

from __future__ import annotations

from dataclasses import replace

from fewstep.recipes.digits import rf1
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component


@RECIPES.add("digits/dit")
def dit() -> Run:
    """A flow on a small diffusion transformer, as SiT's (Ma et al. 2024).

    Objective and process of digits/rf1. 16 patches of 2x2 pixels, rotary positions, and 0.35
    million parameters; size and learning rate are our own.
    """
    network = component(
        "dit", patch=2, width=64, blocks=4, heads=4, positions="rope", time_scale=16.0
    )
    run = rf1()
    return replace(run, network=network, training=replace(run.training, steps=1500, lr=2e-3))
