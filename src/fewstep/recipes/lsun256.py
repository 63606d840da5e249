"""LSUN Bedroom and Cat 256x256 at the hyper-parameters of Song et al. 2023, on ADM's network.

Source: Song et al. 2023, Table 3 (Appendix C), which comes first where the commands published with
it differ: the batch of CD and CT is the table's 2048, where the commands have 256 (--batch 256).
What the table does not say is from the commands: the diffusion models' batch and rate, dropout,
flips and the network without scale-shift norms. There the arithmetic is fp16; here it is bf16. The
diffusion models take 600,000 steps for Bedroom and 300,000 for Cat. Nothing here has been trained
to the end by us. Give ``--data`` with a folder of images.
"""

from __future__ import annotations

from dataclasses import replace

from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Component, Data, Run, component
from fewstep.training.config import Training

DATA = Data(size=256, channels=3, labels=False)
TRAINING = Training(
    optimizer="radam",
    ema=(0.999943,),
    precision="bf16",
    flip=True,
    sample_every=5000,
    checkpoint_every=10_000,
)


def network(dropout: float) -> Component:
    """ADM's unconditional network without scale-shift norms: 526.3 million parameters."""
    return component(
        "adm",
        channels=256,
        multipliers=(1, 1, 2, 2, 4, 4),
        blocks=2,
        dropout=dropout,
        scale_shift=False,
    )


def diffusion(steps: int) -> Run:
    """The teacher of either category."""
    return Run(
        objective=component("score_matching"),
        network=network(dropout=0.1),
        p=component("edm"),
        data=DATA,
        training=replace(TRAINING, steps=steps, batch=256, microbatches=16, lr=1e-4),
    )


def distillation() -> Run:
    """CD of either category."""
    return Run(
        objective=component("cd", N=40, solver="heun", mu=0.95, distance="lpips"),
        network=network(dropout=0.0),
        p=component("edm"),
        data=DATA,
        training=replace(TRAINING, steps=600_000, batch=2048, microbatches=128, lr=1e-5),
    )


def training() -> Run:
    """CT of either category."""
    return Run(
        objective=component("ct", s0=2, s1=150, mu0=0.95, distance="lpips"),
        network=network(dropout=0.0),
        p=component("edm"),
        data=DATA,
        training=replace(TRAINING, steps=1_000_000, batch=2048, microbatches=128, lr=5e-5),
    )


@RECIPES.add("lsun_bedroom256/edm")
def bedroom_edm() -> Run:
    """The diffusion model of LSUN Bedroom: the teacher of Song et al. 2023."""
    return diffusion(600_000)


@RECIPES.add("lsun_bedroom256/cd")
def bedroom_cd() -> Run:
    """Consistency distillation with LPIPS (Song et al. 2023): FID 7.80 in one step, 5.22 in two.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return replace(distillation(), taus={"2": (4.366,)})


@RECIPES.add("lsun_bedroom256/ct")
def bedroom_ct() -> Run:
    """Consistency training with LPIPS (Song et al. 2023): FID 16.0 in one step, 7.85 in two.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return replace(training(), taus={"2": (3.991,)})


@RECIPES.add("lsun_cat256/edm")
def cat_edm() -> Run:
    """The diffusion model of LSUN Cat: the teacher of Song et al. 2023."""
    return diffusion(300_000)


@RECIPES.add("lsun_cat256/cd")
def cat_cd() -> Run:
    """Consistency distillation with LPIPS (Song et al. 2023): FID 11.0 in one step, 8.84 in two.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return distillation()


@RECIPES.add("lsun_cat256/ct")
def cat_ct() -> Run:
    """Consistency training with LPIPS (Song et al. 2023): FID 20.7 in one step, 11.7 in two.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return replace(training(), taus={"2": (5.249,)})
