"""ImageNet 64x64 at the hyper-parameters of Song et al. 2023, on ADM's network.

Source: Song et al. 2023, Table 3 (Appendix C), which comes first where the commands published with
it differ; dropout and flips, and the batch and rate of the diffusion model, are from these. There
the arithmetic is fp16; here it is bf16. The diffusion model sees the 2.5 billion images of EDM's
(Karras et al. 2022, Table 7), with its warm-up over the first 10 million. Nothing here has been
trained to the end by us. Give ``--data`` with a folder of images in class folders.
"""

from __future__ import annotations

from dataclasses import replace

from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Component, Data, Run, component
from fewstep.training.config import Training

P = component("edm")
DATA = Data(size=64, channels=3)
TRAINING = Training(
    optimizer="radam",
    ema=(0.999943,),
    precision="bf16",
    flip=True,
    sample_every=5000,
    checkpoint_every=10_000,
)


def network(dropout: float) -> Component:
    """ADM's class-conditional network: 295.9 million parameters."""
    return component("adm", num_classes=1000, dropout=dropout)


@RECIPES.add("imagenet64/edm")
def edm() -> Run:
    """The diffusion model of ImageNet 64x64: the teacher of Song et al. 2023."""
    return Run(
        objective=component("score_matching"),
        network=network(dropout=0.1),
        p=P,
        data=DATA,
        training=replace(
            TRAINING, steps=610_352, batch=4096, microbatches=32, lr=1e-4, warmup=2441
        ),
    )


@RECIPES.add("imagenet64/cd")
def cd() -> Run:
    """Consistency distillation with LPIPS (Song et al. 2023): FID 6.20 in one step, 4.70 in two.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return Run(
        objective=component("cd", N=40, solver="heun", mu=0.95, distance="lpips"),
        network=network(dropout=0.0),
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=600_000, batch=2048, microbatches=16, lr=8e-6),
        taus={"2": (1.382,)},
    )


@RECIPES.add("imagenet64/ct")
def ct() -> Run:
    """Consistency training with LPIPS (Song et al. 2023): FID 13.0 in one step, 11.1 in two.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return Run(
        objective=component("ct", s0=2, s1=200, mu0=0.95, distance="lpips"),
        network=network(dropout=0.0),
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=800_000, batch=2048, microbatches=16, lr=1e-4),
        taus={"2": (1.913,)},
    )
