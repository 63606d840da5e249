"""Fashion-MNIST, 28x28 pictures of clothes: what `fewstep reproduce fashion` trains.

The images are where the Debian package `dataset-fashion-mnist` puts them, or where ``--data``
says. Steps are those of an hour on two cores; the reproduction counts its own, by its
budget and this machine. How the settings were found: docs/fashion.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.recipes import digits
from fewstep.recipes.digits import TAUS
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Data, Run, component

SIGMA_DATA = 0.706  # standard deviation of the training images on [-1, 1]
SHAPE: dict[str, Any] = {
    "channels": 32,
    "multipliers": (1, 2, 3),
    "blocks": 1,
    "attention": (),
    "dropout": 0.0,
}
NETWORK = component("unet", **SHAPE)
TWO_TIMES = component("unet", **SHAPE, two_time=True)
P = component("edm", T=40.0, sigma_data=SIGMA_DATA)
FLOW = component("rectified_flow", sigma_data=SIGMA_DATA, second="gap")
TIMES = {"P_mean": -0.5, "P_std": 1.2}
CD_TIMES = {"P_mean": -0.8, "P_std": 1.4}
DATA = Data(data="fashion-mnist")
TRAINING = replace(
    digits.TRAINING, batch=64, ema=(20_000.0,), log_every=25, samples=64, checkpoint_every=250
)


@RECIPES.add("fashion/edm")
def edm() -> Run:
    """The diffusion model (Karras et al. 2022).

    Noise levels follow the images' standard deviation, as the digits' do.
    """
    return Run(
        objective=component("score_matching", **TIMES),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=2100),
    )


@RECIPES.add("fashion/cd")
def cd() -> Run:
    """Consistency distillation of fashion/edm (Song et al. 2023, Algorithm 2).

    The paper's N = 18 and Heun's solver; weight and times of the diffusion model, as in digits/cd.
    """
    times = f"lognormal(P_mean={CD_TIMES['P_mean']}, P_std={CD_TIMES['P_std']})"
    return Run(
        objective=component("cd", N=18, distance="l2", weighting="edm", times=times),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=860, lr=1e-3, ema=(8_000.0,)),
        taus=TAUS,
    )


@RECIPES.add("fashion/soflow")
def soflow() -> Run:
    """SoFlow from scratch (Luo et al. 2025): a flow map from the data alone.

    The paper's times, shares and weight. Its smallest gap is ten times the paper's: the difference
    quotient divides what bf16 rounds by it. The time point of two steps was chosen by the distance
    of samples to training images.
    """
    return Run(
        objective=component("soflow", last=0.02),
        network=TWO_TIMES,
        p=FLOW,
        data=DATA,
        training=replace(TRAINING, steps=2900),
        taus={"2": (0.65,)},
    )
