"""CIFAR-10 at the papers' hyper-parameters, on EDM's network.

Sources: Karras et al. 2022, Table 7 (EDM); Song et al. 2023, Appendix C (CD, CT); Song & Dhariwal
2023, appendix on experimental details (iCT); Geng et al. 2024, appendix (ECT). ``data`` is the
hub's data set; give ``--data train.parquet`` or a folder of images for a local copy.
"""

from __future__ import annotations

from dataclasses import replace

from fewstep.recipes.run import RECIPES, Component, Data, Run, component
from fewstep.training.config import Training

DATA = Data(data="hub:cifar10", size=32, channels=3, labels=False)
P = component("edm")
TRAINING = Training(
    steps=800_000,
    batch=512,
    optimizer="radam",
    lr=4e-4,
    ema=(0.9999,),
    sample_every=5000,
    checkpoint_every=10_000,
)


def network(dropout: float) -> Component:
    """EDM's DDPM++ network for CIFAR-10: 55.7 million parameters."""
    return component("unet", channels=128, multipliers=(2, 2, 2), blocks=4, dropout=dropout)


@RECIPES.add("cifar10/edm")
def edm() -> Run:
    """The diffusion model (Karras et al. 2022, Table 7): 200 million images.

    Horizontal flips take the place of EDM's augmentation pipeline.
    """
    return Run(
        objective=component("score_matching", P_mean=-1.2, P_std=1.2),
        network=network(dropout=0.13),
        p=P,
        data=DATA,
        training=replace(
            TRAINING,
            steps=390_625,
            optimizer="adam",
            lr=1e-3,
            warmup=19_531,
            ema=(500_000.0, 0.9999),
            flip=True,
        ),
    )


@RECIPES.add("cifar10/autoencoder")
def autoencoder() -> Run:
    """A convolutional variational autoencoder with latents of 4 x 16 x 16, a sixth of the pixels.

    Settings are our own, and not trained to the end; the paper of LSGM trains another one.
    """
    return Run(
        objective=component("autoencoder", beta=0.001),
        network=component("conv_autoencoder", latents=4, channels=64, multipliers=(1, 2), blocks=2),
        p=P,
        data=DATA,
        training=replace(
            TRAINING, steps=100_000, batch=128, optimizer="adam", lr=2e-4, ema=(0.999,)
        ),
    )


@RECIPES.add("cifar10/lsgm")
def lsgm() -> Run:
    """A diffusion model of the latents of cifar10/autoencoder (after Vahdat et al. 2021: FID 2.10).

    EDM's network and loss; the paper's autoencoder and score model are trained together.
    """
    return Run(
        objective=component("score_matching", P_mean=-1.2, P_std=1.2),
        network=component("unet", channels=128, multipliers=(2, 2), blocks=4, dropout=0.1),
        p=component("edm", sigma_data=1.0),
        data=DATA,
        training=replace(
            TRAINING, steps=390_625, optimizer="adam", lr=1e-3, warmup=19_531, ema=(500_000.0,)
        ),
        autoencoder="runs/cifar10-autoencoder",
    )


@RECIPES.add("cifar10/cd")
def cd() -> Run:
    """Consistency distillation with LPIPS, N = 18, Heun (Song et al. 2023): FID 3.55 in one step.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return Run(
        objective=component("cd", N=18, solver="heun", mu=0.0, distance="lpips"),
        network=network(dropout=0.0),
        p=P,
        data=DATA,
        training=TRAINING,
        taus={"2": (0.585,)},
    )


@RECIPES.add("cifar10/ct")
def ct() -> Run:
    """Consistency training with LPIPS from scratch (Song et al. 2023): FID 8.70 in one step.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return Run(
        objective=component("ct", s0=2, s1=150, mu0=0.9, distance="lpips"),
        network=network(dropout=0.0),
        p=P,
        data=DATA,
        training=TRAINING,
    )


@RECIPES.add("cifar10/ict")
def ict() -> Run:
    """Improved consistency training from scratch (Song & Dhariwal 2023): FID 2.83 in one step."""
    return Run(
        objective=component("ict", s0=10, s1=1280, P_mean=-1.1, P_std=2.0),
        network=network(dropout=0.3),
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=400_000, batch=1024, lr=1e-4, ema=(0.99993,), flip=True),
        taus={"2": (0.821,)},
    )


@RECIPES.add("cifar10/ect")
def ect() -> Run:
    """Easy consistency tuning of a diffusion model (Geng et al. 2024): FID 3.60 in one step."""
    return Run(
        objective=component("ect", stages=8, q=2.0),
        network=network(dropout=0.2),
        p=component("edm", eps=0.0),
        data=DATA,
        training=replace(TRAINING, steps=400_000, batch=128, lr=1e-4, flip=True),
        taus={"2": (0.821,)},
    )
