"""Your own images: a folder, a Parquet file or a hub data set, on a U-Net of moderate size.

Say which with ``--data PATH --size 32``. The settings are those of the CIFAR-10 recipes with a
smaller network, no learned distance, and lengths that one GPU finishes in hours; they are a
starting point, not tuned on anything.
"""

from __future__ import annotations

from dataclasses import replace

from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Data, Run, component
from fewstep.training.config import Training

NETWORK = component("unet", channels=64, multipliers=(1, 2, 2), blocks=2, dropout=0.1)
P = component("edm")
DATA = Data()
TRAINING = Training(
    steps=100_000,
    batch=128,
    optimizer="radam",
    lr=2e-4,
    warmup=1000,
    clip=1.0,
    ema=(0.9999,),
    flip=True,
    sample_every=1000,
    checkpoint_every=1000,
)


@RECIPES.add("images/edm")
def edm() -> Run:
    """A diffusion model of your images (Karras et al. 2022)."""
    return Run(
        objective=component("score_matching"),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, optimizer="adam"),
    )


@RECIPES.add("images/cd")
def cd() -> Run:
    """Distil your diffusion model into a consistency model (Song et al. 2023, Algorithm 2)."""
    return Run(
        objective=component("cd", distance="pseudo_huber", weighting="inverse_t"),
        network=NETWORK,
        p=P,
        data=DATA,
        training=TRAINING,
    )


@RECIPES.add("images/ect")
def ect() -> Run:
    """Tune your diffusion model into a consistency model (Geng et al. 2024)."""
    return Run(
        objective=component("ect"),
        network=NETWORK,
        p=component("edm", eps=0.0),
        data=DATA,
        training=TRAINING,
    )


@RECIPES.add("images/ct")
def ct() -> Run:
    """Plain consistency training of your images from scratch (Song et al. 2023, Algorithm 3)."""
    return Run(
        objective=component("ct", distance="pseudo_huber", weighting="inverse_t"),
        network=NETWORK,
        p=P,
        data=DATA,
        training=TRAINING,
    )


@RECIPES.add("images/ict")
def ict() -> Run:
    """A consistency model of your images from scratch (Song & Dhariwal 2023)."""
    return Run(objective=component("ict"), network=NETWORK, p=P, data=DATA, training=TRAINING)
