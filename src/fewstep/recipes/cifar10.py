"""CIFAR-10 at the papers' hyper-parameters, on EDM's two networks.

Sources: Karras et al. 2022, Table 7 (EDM); Song et al. 2023, Appendix C (CD, CT, PD); Song &
Dhariwal 2023, appendix on experimental details (iCT); Geng et al. 2024, appendix (ECT). Where a
paper and the code published with it differ, the paper's tables come first; what they do not say,
such as flips, dropout and the parts of the network, is from the code (openai's
consistency_models_cifar10, locuslab's ect). Nothing here has been trained to the end by us.
``data`` is the hub's data set; ``--data train.parquet`` or a folder of images is a local copy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Component, Data, Run, component
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


def ncsnpp(dropout: float, **arguments: Any) -> Component:
    """EDM's NCSN++ network for CIFAR-10: 56.4 million parameters.

    Fourier features of the noise level, smooth resampling, and the image added at lower levels.
    """
    own = {"embedding": "fourier", "encoder": "residual", "resample_filter": (1, 3, 3, 1)}
    plain = network(dropout)
    return replace(plain, arguments=plain.arguments | own | arguments)


@RECIPES.add("cifar10/edm")
def edm() -> Run:
    """The diffusion model on DDPM++ (Karras et al. 2022, Table 7): 200 million images.

    The teacher of cifar10/ect. Horizontal flips take the place of EDM's augmentation pipeline.
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


@RECIPES.add("cifar10/edm-ncsnpp")
def edm_ncsnpp() -> Run:
    """The diffusion model on NCSN++: the teacher of cifar10/cd and cifar10/pd (Song et al. 2023).

    Otherwise as cifar10/edm.
    """
    return replace(edm(), network=ncsnpp(dropout=0.13))


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

    Of a run of cifar10/edm-ncsnpp. The distance needs the extra fewstep[lpips];
    --objective.distance l2 does without. The warm-up in the published configuration is not applied
    by its code, which has none for RAdam.
    """
    return Run(
        objective=component("cd", N=18, solver="heun", mu=0.0, distance="lpips"),
        network=ncsnpp(dropout=0.0),
        p=P,
        data=DATA,
        training=replace(TRAINING, flip=True),
        taus={"2": (0.585,)},
    )


@RECIPES.add("cifar10/pd")
def pd() -> Run:
    """Progressive distillation to one step, as Song et al. 2023 trained it: FID 8.34.

    Of a run of cifar10/edm-ncsnpp. Rounds of 50,000 steps from 8192 steps down, and of 100,000 for
    two and one; the rate falls to 0 in each, where the published code's stays at 0 in the second
    half of the last two. That code samples the weights themselves; where the rate has fallen to 0,
    an average is the same.
    """
    return Run(
        objective=component("pd", start_steps=8192, final_steps=1),
        network=ncsnpp(dropout=0.0),
        p=P,
        data=DATA,
        training=replace(
            TRAINING,
            steps=750_000,
            optimizer="adam",
            lr=5e-5,
            decay="linear",
            clip=1.0,
            flip=True,
        ),
    )


@RECIPES.add("cifar10/ct")
def ct() -> Run:
    """Consistency training with LPIPS from scratch (Song et al. 2023): FID 8.70 in one step.

    The distance needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return Run(
        objective=component("ct", s0=2, s1=150, mu0=0.9, distance="lpips"),
        network=ncsnpp(dropout=0.0),
        p=P,
        data=DATA,
        training=replace(TRAINING, flip=True),
    )


@RECIPES.add("cifar10/ict")
def ict() -> Run:
    """Improved consistency training from scratch (Song & Dhariwal 2023): FID 2.83 in one step.

    The Fourier features' scale is the paper's 0.02, where NCSN++ has 16.
    """
    return Run(
        objective=component("ict", s0=10, s1=1280, P_mean=-1.1, P_std=2.0),
        network=ncsnpp(dropout=0.3, fourier_scale=0.02),
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=400_000, batch=1024, lr=1e-4, ema=(0.99993,), flip=True),
        taus={"2": (0.821,)},
    )


@RECIPES.add("cifar10/ect")
def ect() -> Run:
    """Easy consistency tuning of a diffusion model (Geng et al. 2024): FID 3.60 in one step.

    Of a run of cifar10/edm. The distance is the norm of the difference, which the published
    commands have, too (c = 1e-8 keeps its gradient finite at 0), and nothing is mirrored. The
    weight is the paper's 1/(t - r); the published code now has EDM's (--objective.weighting edm).
    """
    return Run(
        objective=component("ect", stages=8, q=2.0, distance="pseudo_huber(c=1e-8)"),
        network=network(dropout=0.2),
        p=component("edm", eps=0.0),
        data=DATA,
        training=replace(TRAINING, steps=400_000, batch=128, lr=1e-4),
        taus={"2": (0.821,)},
    )
